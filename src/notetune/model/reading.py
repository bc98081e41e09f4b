"""How transformers reads a folder: with which class, of what, and what it says where it cannot."""

import warnings
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
)
from transformers.utils import logging as transformers_logging

from notetune.errors import BackboneError
from notetune.model.backbone_folder import read_config


def kind_of(folder: Path) -> tuple[Any, dict[str, Any]]:
    """The class that loads a folder, and what else it must be told."""
    config = read_config(folder / "config.json")
    model_type, fills_gaps = config.get("model_type"), MODEL_FOR_MASKED_LM_MAPPING_NAMES
    predicts = model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    if model_type in fills_gaps and not (predicts and config.get("is_decoder")):
        kind = AutoModel._model_mapping[type(AutoConfig.for_model(model_type))]
        has_pooler = "add_pooling_layer" in signature(kind.__init__).parameters
        return AutoModel, {"add_pooling_layer": False} if has_pooler else {}  # nobody asks for it
    return AutoModelForCausalLM, {}


def text_model(folder: Path, dtype: torch.dtype | str) -> Any:
    """The configuration of the text model in a folder that holds more than it, such as images."""
    if "text_config" not in read_config(folder / "config.json"):
        return None
    whole = from_folder(AutoConfig, folder, dtype)
    config = whole.get_text_config(decoder=True)
    config.tie_word_embeddings = whole.tie_word_embeddings  # which decides for the whole model
    return config if config.model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES else None


def from_folder(kind: Any, folder: Path, dtype: torch.dtype | str, **options: Any) -> Any:
    """What a class of transformers reads from a folder, without a network or code of the folder.

    Raises:
        BackboneError: If it cannot.
    """
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return kind.from_pretrained(
                str(folder),
                dtype=dtype,
                local_files_only=True,
                trust_remote_code=False,
                **options,
            )
    except ImportError as error:
        raise BackboneError(_lacking(folder, error)) from None
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise BackboneError(
            f"{folder} cannot be loaded ({type(error).__name__}); it should be a decoder or an "
            "encoder that this version of transformers knows, and config.json and the safetensors "
            "files belong together."
        ) from None


def _lacking(folder: Path, error: ImportError) -> str:
    """What a folder needs that is not installed, such as the package of its quantised weights."""
    config = read_config(folder / "config.json").get("quantization_config")
    method = config.get("quant_method") if isinstance(config, dict) else None
    weights = f"the weights in {folder} are quantised by {method}" if method else str(folder)
    said = str(error).strip().splitlines()[0]
    return f"{weights}, which cannot be read here: {said.rstrip('.')}. Or take plain weights."

"""Folders of backbones: which one a name means, what is in it, and its fingerprint."""

import functools
import json
import os
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, NamedTuple

from notetune import storage
from notetune.config import as_yaml
from notetune.errors import BackboneError

Dtype = Literal["float32", "bfloat16", "nf4"]
"""What the weights of a backbone are kept in."""
SHIPPED_BACKBONE = "tiny"
WEIGHTS = "model.safetensors"
VOCABULARY_WITH_TYPES = "vocab_updated.txt"
BESIDE_WEIGHTS = (
    "generation_config.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
)
BACKBONE_FILES = ("config.json", WEIGHTS, *BESIDE_WEIGHTS)
"""What is written of one."""
_LICENCE_CHARACTERS = 20_000
_PICKLE_SUFFIXES = {".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib"}


def resolve_backbone(name: str, *, needs_weights: bool = True) -> Path:
    """The folder of a backbone: a path, or the name of the shipped one.

    Raises:
        BackboneError: If it is not a folder with a safetensors model, or holds pickled weights
            only, or asks to run code of its own, or its weights may not be read.
    """
    shipped = Path(str(files("notetune") / "backbones" / name))
    folder = shipped if name == SHIPPED_BACKBONE and shipped.is_dir() else Path(name)
    if folder.suffix == ".gguf":
        raise BackboneError(f"{name} is a GGUF; `notetune convert {name} FOLDER` makes a backbone.")
    if not folder.is_dir():
        raise BackboneError(
            f"backbone {name} is not a folder; give a Hugging Face model folder or "
            f"`{SHIPPED_BACKBONE}` for the shipped one. In the repository `make backbones` makes "
            "backbones/smollm2-135m and backbones/minilm-l6."
        )
    config = folder / "config.json"
    if not config.is_file():
        raise BackboneError(f"{folder} has no config.json, so it is not a backbone folder.")
    if needs_weights and not any(folder.glob("*.safetensors")):
        pickles = [path.name for path in folder.iterdir() if path.suffix in _PICKLE_SUFFIXES]
        found = f"only the pickled checkpoint {pickles[0]}" if pickles else "no weights"
        raise BackboneError(
            f"{folder} holds {found}; a pickle can run code, so only .safetensors is read. "
            "Convert it with `save_pretrained(..., safe_serialization=True)`."
        )
    for path in folder.glob("*.safetensors") if needs_weights else ():
        if not os.access(path, os.R_OK):
            raise BackboneError(f"{path} may not be read; allow it, or name another folder.")
    if "auto_map" in read_config(config):
        raise BackboneError(f"{config} asks to run code of its own (auto_map); that is refused.")
    return folder


def own_backbone(name: str, given: str | None) -> str:
    """The folder that is given for a bundle's backbone, else the one of its name, if that is here.

    Raises:
        BackboneError: If neither is.
    """
    if given is None and name != SHIPPED_BACKBONE and not Path(name).is_dir():
        raise BackboneError(
            f"the bundle needs its backbone, {name}, which is not a folder here; name its folder "
            "with --backbone."
        )
    return given or name


def backbone_fingerprint(folder: Path) -> str:
    """Fingerprint of configuration, tokenizer and weights."""
    beside = (folder / "tokenizer.json", folder / VOCABULARY_WITH_TYPES)
    parts = [folder / "config.json", *(path for path in beside if path.is_file())]
    files = (*parts, *folder.glob("*.safetensors"))
    return storage.fingerprint({path.name: sha256_once(path) for path in files})


def sha256_once(path: Path) -> str:
    """The sha256 of a file, read once in a process as long as its size and time stay the same."""
    state = path.stat()
    return _sha256(path, state.st_size, state.st_mtime_ns)


@functools.cache
def _sha256(path: Path, _size: int, _modified: int) -> str:
    return storage.sha256_of_file(path)


class Licence(NamedTuple):
    """What the folder of a backbone says of its licence; "" where it says nothing."""

    name: str
    text: str


def licence_of(folder: Path) -> Licence:
    """The name in the front matter of `README.md`, and the beginning of a `LICENSE` file."""
    readme = folder / "README.md"
    lines = _beginning(readme).splitlines() if readme.is_file() else []
    names: dict[str, str] = {}
    if lines[:1] == ["---"] and "---" in lines[1:]:
        said = [line.partition(":")[::2] for line in lines[1 : lines.index("---", 1)]]
        names = {key: value.strip(" '\"") for key, value in said}
    name = names.get("license_name") or names.get("license", "")
    files = licence_files(folder)
    return Licence(name, _beginning(files[0]) if files else "")


def licence_files(folder: Path) -> list[Path]:
    """Its `LICENSE` and the like."""
    return sorted(path for path in folder.glob("LICEN[SC]E*") if path.is_file())


def model_card(front: Mapping[str, str | None], text: str) -> str:
    """A `README.md` with what is known of `front`, such as `license`, before its text."""
    known = {key: value for key, value in front.items() if value}
    return f"---\n{as_yaml(known)}---\n\n{text}\n" if known else f"{text}\n"


def _beginning(path: Path) -> str:
    with path.open(encoding="utf-8", errors="replace") as file:
        return file.read(_LICENCE_CHARACTERS)


def read_config(path: Path) -> dict[str, Any]:
    """What a `config.json` says.

    Raises:
        BackboneError: If it is no JSON object.
    """
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        raise BackboneError(f"{path} is not JSON; copy the backbone again.") from None
    if not isinstance(config, dict):
        raise BackboneError(f"{path} is not a model configuration; copy the backbone again.")
    return config

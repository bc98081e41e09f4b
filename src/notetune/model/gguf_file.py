"""Backbones in the GGUF format, converted to a Hugging Face folder.

transformers reads the configuration and the weights. What stands here are mends: a part of the file
that it would leave out or invent is refused, and the tokenizer cuts texts as the file declares.
"""

import re
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import gguf
from safetensors.torch import save_file
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from tokenizers.pre_tokenizers import ByteLevel, Digits, PreTokenizer, Split
from torch import Tensor
from transformers import AutoModelForCausalLM
from transformers.utils import logging as transformers_logging

from notetune import runs, storage
from notetune.errors import BackboneError
from notetune.model.backbone import Backbone, load_backbone, outline_backbone
from notetune.model.backbone_folder import WEIGHTS, model_card
from notetune.model.piece_tokenizer import to_tokenizer

_MAGIC = b"GGUF"
_NEEDED = ("block_count", "context_length", "embedding_length", "attention.head_count")
_PART = {"gpt2": "merges", "llama": "scores"}  # of a tokenizer, beside its tokens
# What transformers raises on a file that is not as it expects.
_FAULTS = (
    OSError,
    ValueError,
    TypeError,
    LookupError,
    RuntimeError,
    AssertionError,
    ArithmeticError,
)
_UNKNOWN_TYPE = re.compile(r"(\d+)\)? is not a valid GGMLQuantizationType")
_IDS = {"bos": "bos", "eos": "eos", "unknown": "unk", "padding": "pad"}  # as transformers says
_LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


class _Cuts(NamedTuple):
    """How a byte-level tokenizer of a known name reads a text."""

    steps: list[PreTokenizer]
    """First cut of a text, before byte pairs merge."""
    keeps_words: bool = False
    """Whether a piece that is a token itself is not merged from bytes."""
    opens: bool = False
    """Whether BOS opens a text where the file does not say."""


def _by_pattern(pattern: str) -> list[PreTokenizer]:
    bytes_alone = ByteLevel(add_prefix_space=False, use_regex=False)
    return [Split(Regex(pattern), behavior="isolated"), bytes_alone]


_WORDS = ByteLevel(add_prefix_space=False)
# By `tokenizer.ggml.pre`; what llama.cpp's vocabulary loader does under that name.
_CUTS = {
    "gpt-2": _Cuts([_WORDS]),
    "smollm": _Cuts([Digits(individual_digits=True), _WORDS]),
    "llama-bpe": _Cuts(_by_pattern(_LLAMA_3), keeps_words=True, opens=True),
    "qwen2": _Cuts(_by_pattern(_LLAMA_3.replace(r"\p{N}{1,3}", r"\p{N}"))),
}


def convert(source: Path, folder: Path) -> Backbone:
    """Write a backbone folder from a GGUF file, and return its outline.

    Weights are in float32, as transformers reads them.

    Raises:
        BackboneError: If the folder exists, or the file is damaged, or has an architecture, a
            tensor, a type or a tokenizer that would not be read exactly.
    """
    if folder.exists() or folder.is_symlink():
        raise BackboneError(f"{folder} exists already; name a folder that does not.")
    content = _read(source)
    tokenizer = _tokenizer(source, content)
    with runs.new_folder(folder, {"model": source.name}) as new:
        _save_model(source, content, new)
        tokenizer.save(str(new / "tokenizer.json"))
        storage.write_json(new / "tokenizer_config.json", _tokenizer_config(content))
        (new / "README.md").write_text(_about(source, content), encoding="utf-8")
        try:
            load_backbone(str(new))
        except BackboneError as error:  # it names a folder that goes with it
            raise BackboneError(str(error).replace(str(new), str(source))) from None
    return outline_backbone(str(folder))


class _Content(dict[str, Any]):
    """The parsed file: metadata by key, and the table of tensors."""

    def __init__(self, reader: gguf.GGUFReader) -> None:
        super().__init__((key, field.contents()) for key, field in reader.fields.items())
        self.tensors = reader.tensors
        self.architecture = str(self.get("general.architecture"))

    @property
    def ids(self) -> dict[str, int]:
        """Special ids that the file declares, by their name in it."""
        found = {name: self.get(f"tokenizer.ggml.{name}_token_id") for name in _IDS}
        return {name: number for name, number in found.items() if number is not None}

    @property
    def tokens(self) -> list[str]:
        """Every token as it is spelled in the file, by its id."""
        return list(self.get("tokenizer.ggml.tokens", ()))

    def tokens_of(self, kind: gguf.TokenType) -> list[str]:
        """The tokens that the file marks as of a kind."""
        marks = self.get("tokenizer.ggml.token_type", ())
        return [token for token, mark in zip(self.tokens, marks, strict=False) if mark == kind]


def _read(path: Path) -> _Content:
    if not path.is_file():
        raise BackboneError(f"{path} is not a file; give a GGUF.")
    with path.open("rb") as file:
        if file.read(len(_MAGIC)) != _MAGIC:
            raise BackboneError(f"{path} is not a GGUF file; give a file that begins with `GGUF`.")
    try:
        content = _Content(gguf.GGUFReader(path))
    except (ValueError, IndexError, KeyError, OverflowError, MemoryError) as error:
        if unknown := _UNKNOWN_TYPE.search(str(error)):
            raise BackboneError(
                f"{path} has a tensor of type {unknown[1]}, which the gguf package does not know; "
                "take a file of another quantisation, such as Q8_0."
            ) from None
        raise BackboneError(f"{path} is cut short or damaged; copy it again.") from None
    part = _PART.get(content.get("tokenizer.ggml.model", ""), "model")
    needed = ["general.architecture", *(f"{content.architecture}.{key}" for key in _NEEDED)]
    needed += [f"tokenizer.ggml.{key}" for key in ("tokens", "token_type", part)]
    lacking = [key for key in needed if content.get(key) is None]
    if lacking:
        raise BackboneError(f"{path} lacks {lacking[0]}; it is not a whole model.")
    for tensor in {tensor.tensor_type: tensor for tensor in content.tensors}.values():
        try:
            gguf.dequantize(tensor.data[:1], tensor.tensor_type)
        except NotImplementedError:
            raise BackboneError(
                f"{path}: tensor {tensor.name} has type {tensor.tensor_type.name}, which the gguf "
                "package cannot dequantise; take a file of another quantisation, such as Q8_0."
            ) from None
    scaling = content.get(f"{content.architecture}.rope.scaling.type", "none")
    if scaling != "none" and content.architecture != "gpt-oss":
        raise BackboneError(
            f"{path} scales its positions ({scaling}), which transformers does not read from a "
            "GGUF; take the model's safetensors folder."
        )
    return content


def _save_model(path: Path, content: _Content, folder: Path) -> None:
    model = _model(path, content)
    weights = _weights(model)
    held = sum(
        tensor.n_elements
        for tensor in content.tensors
        if not (tensor.name == "output.weight" and model.config.tie_word_embeddings)
    )
    if held != sum(weight.numel() for weight in weights.values()):
        raise BackboneError(
            f"{path} holds {_left_out(content, model)}, which transformers leaves out of a "
            f"{model.config.model_type} model; take the model's safetensors folder."
        )
    config = model.config
    config.architectures = [type(model).__name__]
    for name in ("bos", "eos"):  # never those of the class, which are another model's
        setattr(config, f"{name}_token_id", content.ids.get(name))
    of_the_file = ("quantization_config", "_model_name_or_path")
    written = {k: v for k, v in config.to_diff_dict().items() if k not in of_the_file}
    storage.write_json(folder / "config.json", written)
    with storage.written(folder / WEIGHTS, sum(weight.nbytes for weight in weights.values())):
        save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})


def _model(path: Path, content: _Content) -> Any:
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model, loading = AutoModelForCausalLM.from_pretrained(
                str(path.parent),
                gguf_file=path.name,
                dtype="float32",
                local_files_only=True,
                ignore_mismatched_sizes=True,  # so that they are named below
                output_loading_info=True,
            )
    except _FAULTS as error:
        raise BackboneError(
            f"{path} has the architecture {content.architecture}, which transformers does not read "
            f"as a decoder from a GGUF ({type(error).__name__})."
        ) from None
    lacking = sorted({*loading["missing_keys"], *(name for name, *_ in loading["mismatched_keys"])})
    if lacking:
        raise BackboneError(
            f"{path} lacks or misshapes {len(lacking)} tensors, {lacking[0]} first; it is not a "
            "whole model."
        )
    return model


def _weights(model: Any) -> dict[str, Tensor]:
    """The state of a model by name, shared tensors once."""
    weights: dict[int, tuple[str, Tensor]] = {}
    for name, tensor in model.state_dict().items():
        weights.setdefault(tensor.data_ptr(), (name, tensor.contiguous()))
    return dict(weights.values())


def _left_out(content: _Content, model: Any) -> str:
    """The tensors of a file that have no place in a model, the first by name."""
    kinds = {name: kind for kind, name in gguf.MODEL_ARCH_NAMES.items()}
    names = gguf.get_tensor_name_map(kinds[content.architecture], model.config.num_hidden_layers)
    read = {names.get_name(name, (".weight", ".bias")) for name in model.state_dict()}
    left = [tensor.name for tensor in content.tensors if tensor.name not in read]
    return f"{len(left)} tensors, {left[0]} first" if left else "tensors"


def _tokenizer(path: Path, content: _Content) -> Tokenizer:
    """The tokenizer that the file declares, if its kind and first cut of a text are known here."""
    ids = range(len(content.tokens))
    odd = [number for number in content.ids.values() if number not in ids]
    if odd:
        raise BackboneError(
            f"{path} holds {len(ids)} tokens, yet names id {odd[0]}; copy it again."
        )
    kind, name = content.get("tokenizer.ggml.model"), content.get("tokenizer.ggml.pre", "default")
    has_prefix = content.get("tokenizer.ggml.add_space_prefix", True)
    if kind == "llama" and name == "default" and has_prefix:
        scores = content["tokenizer.ggml.scores"]
        tokenizer, opens = to_tokenizer(list(zip(content.tokens, scores, strict=False))), True
    elif kind == "gpt2" and name in _CUTS:
        cuts = _CUTS[name]
        tokenizer, opens = _byte_level(path, content, cuts), cuts.opens
    else:
        prefix = "" if has_prefix or kind == "gpt2" else " without a space before the text"
        raise BackboneError(
            f"{path} declares the tokenizer {kind} with the pre-tokenizer {name}{prefix}, which is "
            f"not known here: known are gpt2 with {', '.join(sorted(_CUTS))}, and llama with "
            "default. Take the model's safetensors folder."
        )
    own = content.tokens_of(gguf.TokenType.USER_DEFINED)
    special = content.tokens_of(gguf.TokenType.CONTROL)
    tokenizer.add_tokens([AddedToken(t, normalized=False) for t in own])
    tokenizer.add_special_tokens([AddedToken(t, normalized=False, special=True) for t in special])
    if [tokenizer.id_to_token(number) for number in (*ids, len(ids))] != [*content.tokens, None]:
        raise BackboneError(
            f"{path} holds {len(ids)} tokens that do not make a tokenizer of as many ids: some are "
            "twice there, or its special ones are not known here."
        )
    _frame(tokenizer, content, opens=opens)
    return tokenizer


def _byte_level(path: Path, content: _Content, cuts: _Cuts) -> Tokenizer:
    merges = [tuple(merge.partition(" ")[::2]) for merge in content["tokenizer.ggml.merges"]]
    vocabulary = {token: number for number, token in enumerate(content.tokens)}
    wrong = sum(not {*merge, "".join(merge)} <= vocabulary.keys() for merge in merges)
    if wrong:
        raise BackboneError(
            f"{path} holds {wrong} merges of no tokens; it is damaged, copy it again."
        )
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, ignore_merges=cuts.keeps_words))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(cuts.steps)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _frame(tokenizer: Tokenizer, content: _Content, *, opens: bool) -> None:
    """Put BOS before and EOS after a text where the file says so."""
    before, after = (
        [content.tokens[content.ids[name]]]
        if content.get(f"tokenizer.ggml.add_{name}_token", otherwise) and name in content.ids
        else []
        for name, otherwise in (("bos", opens), ("eos", False))
    )
    if before or after:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=[*before, "$A", *after],
            special_tokens=[(token, tokenizer.token_to_id(token)) for token in before + after],
        )


def _tokenizer_config(content: _Content) -> dict[str, object]:
    """What transformers reads beside `tokenizer.json`, whose steps it then takes as they are."""
    template = content.get("tokenizer.chat_template")
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "model_max_length": content.get(f"{content.architecture}.context_length"),
        **{f"{_IDS[name]}_token": content.tokens[number] for name, number in content.ids.items()},
        **({"chat_template": template} if template else {}),
    }


def _about(path: Path, content: _Content) -> str:
    """Where a folder comes from, and the licence that its file names."""
    front = {
        "license": content.get("general.license"),
        "license_name": content.get("general.license.name"),
        "license_link": content.get("general.license.link"),
    }
    said = {
        "Model": content.get("general.name"),
        "By": content.get("general.organization"),
    }
    lines = [f"{what}: {value}" for what, value in said.items() if value]
    return model_card(front, "\n\n".join([f"# Converted from {path.name}", *lines]))

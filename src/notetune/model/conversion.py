"""Models of other formats, converted to a Hugging Face folder that is a backbone."""

from pathlib import Path

from notetune.errors import BackboneError
from notetune.model import gguf_file, llama2c
from notetune.model.backbone import Backbone, outline_backbone


def convert(model: Path, out: Path, tokenizer: Path | None = None) -> Backbone:
    """Write a backbone folder, and return its outline.

    Args:
        model: A GGUF file, or a llama2.c checkpoint.
        out: The folder to write.
        tokenizer: The SentencePiece model of a llama2.c checkpoint; a GGUF holds its own.

    Raises:
        BackboneError: If `out` exists, or the model cannot be read exactly.
    """
    if out.exists() or out.is_symlink():
        raise BackboneError(f"{out} exists already; name a folder that does not.")
    if not model.is_file():
        raise BackboneError(f"{model} is not a file; give a GGUF or a llama2.c checkpoint (.bin).")
    if gguf_file.is_gguf(model) or model.suffix == ".gguf":
        if tokenizer is not None:
            raise BackboneError(f"{model} holds its own tokenizer; leave --tokenizer out.")
        gguf_file.convert(model, out)
    elif tokenizer is None:
        raise BackboneError(
            f"{model} is not a GGUF; if it is a llama2.c checkpoint, give its SentencePiece model "
            "with --tokenizer FILE."
        )
    else:
        llama2c.convert(model, tokenizer, out)
    return outline_backbone(str(out))

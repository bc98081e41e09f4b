"""The semantic types of UmlsBERT: a further embedding, decided by the token alone."""

from pathlib import Path

import torch
from safetensors import safe_open
from tokenizers import Tokenizer
from torch import Tensor

from notetune.errors import BackboneError
from notetune.model.backbone_folder import VOCABULARY_WITH_TYPES

_WEIGHT = "tui_type_embeddings.weight"
_SHORTEST = 3  # shorter words and concept names carry no type


def add_semantic_types(embeddings_VH: Tensor, folder: Path) -> None:
    """Add to each of `(V, H)` embeddings that of the token's semantic type, in place.

    A token has at most one type, so the sum is what UmlsBERT computes from two tables. A backbone
    folder without the vocabulary file of the published code is a plain BERT, and stays so.

    Raises:
        BackboneError: If the vocabulary is there and no embeddings of types are, as in a folder
            that was saved as a plain BERT, or if it names more types than there are embeddings.

    Source: Michalopoulos et al. 2021 (arXiv 2010.10391); `run_glue.py` of gmichalo/UmlsBERT
        numbers the types from 1 in the order of the file, and type 0 adds nothing.
    """
    if not (folder / VOCABULARY_WITH_TYPES).is_file():
        return
    types_SH = _read_weight(folder)
    if types_SH is None:
        raise BackboneError(
            f"{folder} has {VOCABULARY_WITH_TYPES}, but its weights have no {_WEIGHT}; saving as a "
            "plain BERT drops it. Convert the published weights with all their names, or remove "
            "the vocabulary to use it as a plain BERT."
        )
    number_of = _types_of_words(folder / VOCABULARY_WITH_TYPES)
    if max(number_of.values(), default=0) >= len(types_SH):
        raise BackboneError(
            f"{folder / VOCABULARY_WITH_TYPES} names {max(number_of.values())} semantic types, but "
            f"the backbone embeds {len(types_SH) - 1}; take the file that it was trained with, or "
            "none to use it as a plain BERT."
        )
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    known = {tokenizer.token_to_id(word): number for word, number in number_of.items()}
    known.pop(None, None)
    with torch.no_grad():
        embeddings_VH[list(known)] += types_SH[list(known.values())].to(embeddings_VH)


def _read_weight(folder: Path) -> Tensor | None:
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 (the file is no dictionary)
                if name.endswith(_WEIGHT):
                    weight: Tensor = file.get_tensor(name)
                    return weight
    return None


def _types_of_words(path: Path) -> dict[str, int]:
    """Lines are `word`, or `word|concept|type`; types are numbered from 1 as they first appear."""
    numbers: dict[str, int] = {}
    number_of = {}
    for line in path.read_text(encoding="utf-8").split("\n"):
        word, *rest = line.replace(" ", "").split("|")
        if len(rest) >= 2 and min(len(word), len(rest[0])) >= _SHORTEST:
            number_of[word] = numbers.setdefault(rest[1], len(numbers) + 1)
    return number_of

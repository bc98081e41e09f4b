"""Note text to token ids, with the tokenizer of the backbone."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

from notetune.errors import BackboneError


@dataclass(frozen=True)
class Document:
    """The tokens of one note, or of one piece of a long note.

    Attributes:
        ids: Token ids, BOS first; the last piece of a note ends in EOS.
        start: First character of the piece in the note.
        end: One past its last character.
        piece: 0 for the beginning of the note.
    """

    ids: tuple[int, ...]
    start: int
    end: int
    piece: int


@dataclass(frozen=True)
class Encoder:
    """A tokenizer with the special ids of its backbone."""

    tokenizer: Tokenizer
    bos_id: int
    eos_id: int
    vocabulary_size: int

    def documents(self, texts: Sequence[str], max_tokens: int) -> Iterator[list[Document]]:
        """Encode texts, each into documents of at most `max_tokens` tokens.

        A long note becomes consecutive pieces that together hold all its tokens.
        """
        for text, encoding in zip(
            texts, self.tokenizer.encode_batch(list(texts), add_special_tokens=False), strict=True
        ):
            yield self._pieces(encoding.ids, encoding.offsets, len(text), max_tokens)

    def decode(self, document: Document) -> str:
        """The text of a document, without BOS and EOS."""
        return str(self.tokenizer.decode(list(document.ids), skip_special_tokens=True))

    def _pieces(
        self,
        ids: Sequence[int],
        offsets: Sequence[tuple[int, int]],
        text_length: int,
        max_tokens: int,
    ) -> list[Document]:
        with_eos = [*ids, self.eos_id]
        body = max_tokens - 1  # BOS takes one slot of every piece
        pieces = []
        for piece, first in enumerate(range(0, len(with_eos), body)):
            last = first + body
            start = offsets[first][0] if first < len(offsets) else text_length
            end = offsets[last][0] if last < len(offsets) else text_length
            document_ids = (self.bos_id, *with_eos[first:last])
            pieces.append(Document(document_ids, start, end, piece))
        return pieces


def load_encoder(backbone: Path) -> Encoder:
    """The encoder of a backbone folder.

    Raises:
        BackboneError: If `tokenizer.json` is missing or damaged, or BOS or EOS is not declared.
    """
    path = backbone / "tokenizer.json"
    if not path.is_file():
        raise BackboneError(
            f"{backbone} has no tokenizer.json; save the fast tokenizer of the backbone there."
        )
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception:  # noqa: BLE001 (the library raises bare Exception)
        raise BackboneError(f"{path} is not a tokenizer file; copy it again.") from None
    tokenizer.no_padding()
    tokenizer.no_truncation()
    tokenizer.encode_special_tokens = True  # "</s>" in a note is text, not the end of it
    config = json.loads((backbone / "config.json").read_text(encoding="utf-8"))
    size = config["vocab_size"]
    if tokenizer.get_vocab_size() > size:
        raise BackboneError(
            f"{path} has {tokenizer.get_vocab_size()} tokens but the backbone embeds {size}; "
            "the tokenizer belongs to another backbone."
        )
    bos, eos = _special_id(config, "bos", backbone), _special_id(config, "eos", backbone)
    return Encoder(tokenizer, bos, eos, size)


def _special_id(config: dict[str, object], name: str, backbone: Path) -> int:
    value = config.get(f"{name}_token_id")
    if isinstance(value, list):  # LLaMA 3 declares several EOS ids; the first ends a text
        value = value[0] if value else None
    if not isinstance(value, int):
        raise BackboneError(f"{backbone}/config.json declares no {name}_token_id; add it.")
    return value

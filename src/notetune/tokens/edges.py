"""What opens a document and what ends a note: what the folder of a backbone declares of both."""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from tokenizers import Tokenizer

from notetune import storage
from notetune.aliases import Join
from notetune.errors import BackboneError

Opener = Literal["none", "bos", "separator"]

NOTHING = "nothing"
SETTINGS = "tokenizer_config.json"
_FEW_PIECES = 0.01  # of a vocabulary
# Best known first; a backbone that names none of them separates its texts by EOS.
_SEPARATORS = (
    "<|endoftext|>",
    "<|end_of_text|>",
    "<|endofdocument|>",
    "<|end_of_document|>",
    "</s>",
    "<eos>",
)


@dataclass(frozen=True)
class Edges:
    """What stands round the tokens of a note."""

    opener_id: int | None
    """Begins every document; `[CLS]` for an encoder, None where nothing does."""
    end_id: int
    """Ends a note; `[SEP]` for an encoder."""
    opener: str = ""
    """The opener as its vocabulary spells it."""
    ends_every_piece: bool = False
    """Whether a piece of a note that goes on ends in `end_id` too."""
    join: Join = "none"
    """With "by time" a note is the notes of a stay, so its pieces are cut from its end on and the
    last one comes first: the newest text is what is read."""


@dataclass(frozen=True)
class Declared:
    """What a backbone folder declares of its tokens."""

    folder: Path
    tokenizer: Tokenizer
    """Text to ids; special tokens that a text spells out are text."""
    config: dict[str, Any]
    """`config.json`, with what it says of its text model."""
    settings: dict[str, Any]
    """What `SETTINGS` holds; empty where there is none."""
    largest_id: int
    """The largest id that a text can become."""

    @property
    def vocabulary_size(self) -> int:
        """Tokens that the backbone embeds."""
        return int(self.config.get("vocab_size") or self.largest_id + 1)

    @cached_property
    def loses_case(self) -> bool:
        """Whether the tokenizer makes all letters small, so that pieces with capitals are idle."""
        normalizer, added = self.tokenizer.normalizer, self.tokenizer.get_added_tokens_decoder()
        if normalizer is None or normalizer.normalize_str("ABC") != "abc":
            return False
        pieces = self.tokenizer.get_vocab()
        capital = [p for p, n in pieces.items() if n not in added and p != p.lower()]
        return len(capital) > _FEW_PIECES * len(pieces)

    def edges(self, opener: Opener) -> Edges:
        """The edges with a kind of opener.

        Raises:
            BackboneError: If the folder does not declare what they need.
        """
        if opener == "none":
            return self._opened_by(None)
        return self._opened_by(self._special_id("bos") if opener == "bos" else self._separator_id)

    def name_of(self, edges: Edges) -> Opener | None:
        """What a recipe calls the opener of some edges, if it has a name for it."""
        names: tuple[Opener, ...] = (*self._bos, "separator", "none")
        return next(
            (name for name in names if self.edges(name) == replace(edges, join="none")), None
        )

    @property
    def candidates(self) -> tuple[Edges, ...]:
        """What can open a document: nothing, BOS if there is one, the separator; each once."""
        return tuple(dict.fromkeys(map(self.edges, ("none", *self._bos, "separator"))))

    @property
    def _bos(self) -> tuple[Opener, ...]:
        return () if self._declared_id("bos") is None else ("bos",)

    @cached_property
    def own_edges(self) -> Edges | None:
        """The edges that the tokenizer itself gives a text; None if it opens none.

        `add_bos_token` decides where it is declared, else what the post-processor does.
        """
        adds_bos = self.settings.get("add_bos_token")
        if adds_bos:
            return self.edges("bos")
        bare = self.tokenizer.encode("a", add_special_tokens=False).ids
        whole = self.tokenizer.encode("a").ids
        starts = [n for n in range(len(whole)) if whole[n : n + len(bare)] == bare]
        # Several tokens in front are a prompt of some kind, not what separates texts.
        return self._opened_by(whole[0]) if adds_bos is None and starts[:1] == [1] else None

    @cached_property
    def framed_edges(self) -> Edges | None:
        """`[CLS]` and `[SEP]`, if the tokenizer puts two such round every text."""
        frame = self.tokenizer.encode("").ids
        if len(frame) != 2:
            return None
        return Edges(frame[0], frame[1], self._spelt(frame[0]), ends_every_piece=True)

    def _opened_by(self, opener_id: int | None) -> Edges:
        """A separator ends what it opens, as it did in pre-training; else EOS ends a note."""
        is_separator = opener_id is not None and opener_id == self._separator_id
        end_id = self._separator_id if is_separator else self._special_id("eos")
        return Edges(opener_id, end_id, NOTHING if opener_id is None else self._spelt(opener_id))

    @cached_property
    def _separator_id(self) -> int:
        found = [n for n in map(self.tokenizer.token_to_id, _SEPARATORS) if n is not None]
        return int(found[0]) if found else self._special_id("eos")

    def _spelt(self, token_id: int) -> str:
        return str(self.tokenizer.id_to_token(token_id) or token_id)

    def _declared_id(self, name: str) -> Any:
        """What `config.json` says, else of the token that the tokenizer is told to use."""
        if (value := self.config.get(f"{name}_token_id")) is not None:
            return value
        token = self.settings.get(f"{name}_token")
        spelt = token.get("content") if isinstance(token, dict) else token
        return self.tokenizer.token_to_id(spelt) if isinstance(spelt, str) else None

    def _special_id(self, name: str) -> int:
        value = self._declared_id(name)
        if isinstance(value, list):  # LLaMA 3 declares several EOS ids; the first ends a text
            value = value[0] if value else None
        if not isinstance(value, int):
            raise BackboneError(f"{self.folder}/config.json declares no {name}_token_id; add it.")
        if not 0 <= value < self.vocabulary_size:
            raise BackboneError(
                f"{self.folder}/config.json: {name}_token_id {value} is outside its vocabulary of "
                f"{self.vocabulary_size} tokens; mend it."
            )
        return value


def settings_digest(backbone: Path) -> str:
    """Of the file that says what opens and ends a document; "" where there is none.

    The fingerprint of a backbone is that of its configuration, tokens and weights.
    """
    path = backbone / SETTINGS
    return storage.sha256_of_file(path) if path.is_file() else ""


def read_declared(backbone: Path) -> Declared:
    """What a backbone folder declares.

    Raises:
        BackboneError: If `tokenizer.json` is missing, damaged or of another backbone.
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
    config = _json(backbone / "config.json")
    of_text = {k: v for k, v in (config.get("text_config") or {}).items() if v is not None}
    settings = _json(backbone / SETTINGS)
    declared = Declared(backbone, tokenizer, config | of_text, settings, _largest_id(tokenizer))
    if declared.largest_id >= declared.vocabulary_size:
        raise BackboneError(
            f"{path} gives ids up to {declared.largest_id} but the backbone embeds "
            f"{declared.vocabulary_size} tokens; the tokenizer belongs to another backbone."
        )
    return declared


def _json(path: Path) -> dict[str, Any]:
    found = storage.read_json(path) if path.is_file() else {}
    return found if isinstance(found, dict) else {}


def _largest_id(tokenizer: Tokenizer) -> int:
    """Special tokens are left out: no text becomes one, so they may stand for images, say."""
    added = tokenizer.get_added_tokens_decoder()
    special = {number for number, token in added.items() if token.special}
    return max((n for n in tokenizer.get_vocab().values() if n not in special), default=0)

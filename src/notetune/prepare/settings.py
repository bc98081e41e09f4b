"""What a recipe says of preparing notes, and what one preparation is."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from notetune.aliases import Join
from notetune.config import Config
from notetune.model.backbone_folder import Dtype
from notetune.model.device import DeviceName
from notetune.sources import Source, SourceConfig
from notetune.sources.splits import AnySplit, Split, SplitConfig
from notetune.tokens.edges import Opener
from notetune.tokens.encode import LongNotes
from notetune.tokens.store import FORMAT

LEAST_TOKENS = 8
ROW = 4096
"""Tokens of a row where the recipe leaves it to us and no note is longer."""

Auto = Literal["auto"]
TokensPerRow = PositiveInt | Auto
LeakedTexts = Literal["stop", "drop"]


def row_of(given: TokensPerRow, longest: int = 0) -> int:
    """Tokens of a row that holds the longest note, its virtual tokens included."""
    return max(ROW, longest) if given == "auto" else given


def read_pieces(
    given: int | Auto, wanted: int, row: TokensPerRow, max_tokens: int, virtual: int = 0
) -> int:
    """Pieces of a note that are read: those that the recipe says, or those wanted that fit a row.

    Each has at most `max_tokens` tokens and `virtual` ones in front of them.
    """
    if given != "auto":
        return given
    return max(1, min(wanted, row_of(row) // (max_tokens + virtual)))


class PrepareConfig(Config):
    """Notes to splits, labels and tokens."""

    source: SourceConfig
    split: Split = SplitConfig()
    opener: Literal["auto", Opener] = "auto"
    """What opens every document, in both steps and in predictions: nothing, BOS, or the separator
    of texts in pre-training, which then ends a note too. `auto` is what the tokenizer itself puts
    there; where it puts nothing, that with the lowest perplexity on a few training notes."""
    max_tokens: Annotated[int, Field(ge=LEAST_TOKENS)] | Auto = "auto"
    """Longest document. A longer note becomes pieces: step 1 reads all of them, step 2 the first
    `downstream.max_pieces`. `auto` holds 95 % of the labelled training notes whole, as far as the
    backbone has positions and a row has room: `tokens_per_row` is the bound of memory."""
    long_notes: LongNotes = "pieces"
    """`first` drops what is beyond the first piece, as the published pipeline does."""
    drop_near_duplicates: bool = False
    """Leave training notes out of step 1 that are nearly the same as an earlier one."""
    join: Join = "none"
    """`by time` makes one document of the notes of a stay, those of step 1 too: in order of time,
    without those that `late_notes` drops, the newest last. Where it is longer than what a model
    reads, its beginning is cut. It holds all notes in memory."""
    late_notes: Literal["stop", "drop"] = "stop"
    """What to do with labelled notes that were written after the prediction time of their task.
    `drop` leaves out too what is not known to be before it: notes of its day without an hour and,
    of a joined stay, those without a time."""
    min_train_positives: PositiveInt = 8
    """A class of a multilabel task is kept if that many training notes have it."""
    allow_leaks: bool = False
    """Go on when a leak check finds something that should stop; the report says so."""
    workers: PositiveInt | None = None
    """Processes that encode; as many as there are cores without. The files do not depend on it."""

    @model_validator(mode="after")
    def _keeps_one_end(self) -> Self:
        if self.join != "none" and self.long_notes == "first":
            raise ValueError(
                "long_notes: first keeps the beginning and join the end; leave one out"
            )
        return self


@dataclass(frozen=True)
class Preparation:
    """One set of notes to prepare, for the tasks or for step 1 alone.

    Attributes:
        source: Its paths start from `data`, as those of `split`.
        backbone: Whose tokens they become; where its weights choose the opener, of which `dtype`
            they are and on which `device` they do.
        tasks: Those that are wanted; all of the source when empty.
        codes: Columns beside the text whose numbers are codes.
        leaked_texts: What to do with a note of step 1 that is also a held-out note of the tasks.
        room: Longest document that every row has room for, where `max_tokens` is `auto`.
        positions_taken: Positions that adapters take in front of a document, at most.
        has_step_1: Whether step 1 reads notes. Without, no leak into it stops; the notes are the
            same.
    """

    folder: Path
    source: Source
    split: AnySplit
    config: PrepareConfig
    backbone: str
    dtype: Dtype
    device: DeviceName
    tasks: tuple[str, ...]
    codes: tuple[str, ...]
    leaked_texts: LeakedTexts
    is_of_step_1: bool
    room: int
    positions_taken: int
    has_step_1: bool = True


@dataclass(frozen=True)
class EncodeSpec:
    """The labelled notes in the tokens of an encoder.

    Attributes:
        texts: Digest of the texts, with their splits.
        labels: Digests of all labels, which say which notes have one.
        settings: Digest of what its folder says of the edges of a document.
        max_tokens: Longest document, by the recipe; what becomes of more is `long_notes`.
        room: What the recipe's rows have room for; the encoder may read less.
        store: Format of the result.
    """

    texts: str
    labels: tuple[str, ...]
    encoder: str
    settings: str
    max_tokens: int | Auto
    room: int
    long_notes: LongNotes
    store: int = FORMAT

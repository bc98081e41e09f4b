"""Why a note has its score: what each sentence changes, and what words and columns weigh.

Shapes: N notes, S sentences of a note, F features, K classes.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import polars as pl

from notetune.aliases import FloatArray
from notetune.errors import ConfigError
from notetune.model.cards import Card
from notetune.notes.sentences import Span, sentences
from notetune.plain.linear import log_odds
from notetune.serve.plain import ColumnsPredictor, HybridPredictor, WordsPredictor
from notetune.serve.predictions import Predictor, cleaned

MOST_SENTENCES = 60
"""Of one note; in a longer one neighbours are left out together."""
_TEXTS_AT_ONCE = 256
_TELLING = 1e-300, 1 - 1e-15
"""Between which scores in float64 tell logits apart."""


@dataclass(frozen=True)
class LeftOut:
    """A note, and its scores without each of its sentences in turn.

    Attributes:
        text: As it is read.
        spans: Its S sentences; none if it has but one, without which nothing is left.
        scores_K: Of all of it.
        without_SK: Scores without one of them.
    """

    text: str
    spans: list[Span]
    scores_K: FloatArray
    without_SK: FloatArray


def leave_out(
    predictor: Predictor, texts: Sequence[str], columns: pl.DataFrame | None = None
) -> Iterator[LeftOut]:
    """Leave out each sentence of each note, many notes at once; errors as of `predict`."""
    read_N = cleaned(texts)
    spans_N = [sentences(text, MOST_SENTENCES) for text in read_N]
    spans_N = [spans if len(spans) > 1 else [] for spans in spans_N]
    for some in _together([1 + len(spans) for spans in spans_N]):
        variants = [(n, text) for n in some for text in _variants(read_N[n], spans_N[n])]
        rows = columns[[n for n, _ in variants]] if columns is not None else None
        scores_VK = predictor.predict([text for _, text in variants], rows).scores_NK
        first = 0
        for n in some:
            of_note = scores_VK[first : first + 1 + len(spans_N[n])]
            first += len(of_note)
            yield LeftOut(read_N[n], spans_N[n], of_note[0], of_note[1:])


def without(text: str, spans: Sequence[Span], left_out: Collection[int]) -> str:
    """A text without some of its sentences, by their numbers."""
    kept = (text[start:end] for n, (start, end) in enumerate(spans) if n not in left_out)
    return "".join(kept)


def reasons(
    predictor: Predictor,
    notes: pl.DataFrame,
    columns: pl.DataFrame | None,
    about: Card,
    labels: Sequence[str],
) -> pl.DataFrame:
    """What speaks for and against the scores of notes.

    `notes` are N rows of `note_id` and `text`, `about` is the card of the bundle, and `labels` say
    which scores: without any, that of the highest label of each note.

    Returns:
        A row for each sentence of a note (`of` is "sentence"), for each of its words and pairs of
        words that TF-IDF weighs ("word") and for each column ("column"): `note_id`, `label`,
        `score`, `of`, `text`, `change` (score minus that without the sentence; empty for the
        others) and `log_odds` (the same of the log-odds, of classes the log score; of words and
        columns what they add). Those that add most to a score come first.

    Raises:
        ConfigError: If the bundle has no such label.
        DataError: As of `predict`.
    """
    if unknown := sorted({*labels} - {*about.classes}):
        raise ConfigError(
            f"--label {unknown[0]}: the bundle has {', '.join(about.classes[:20])}"
            f"{', ...' if len(about.classes) > 20 else ''}."
        )
    texts, chosen = notes["text"].to_list(), [*map(about.classes.index, dict.fromkeys(labels))]
    scores_NK = predictor.predict(texts, columns).scores_NK
    wanted = [(n, k) for n, row_K in enumerate(scores_NK) for k in chosen or [int(row_K.argmax())]]
    found = [*_of_words_and_columns(predictor, texts, columns, wanted)]
    if not isinstance(predictor, ColumnsPredictor):
        left_out = [*leave_out(predictor, texts, columns)]
        found += [row for n, k in wanted for row in _of_sentences(left_out[n], n, k, about.kind)]
    return _as_table(found, scores_NK, notes["note_id"], about.classes)


_Row: TypeAlias = tuple[int, int, str, str, float | None, float]
"""Note, class, what it is, its text, change of the score, and of the log-odds."""


def _as_table(
    found: Sequence[_Row], scores_NK: FloatArray, ids: pl.Series, classes: Sequence[str]
) -> pl.DataFrame:
    names = ("n", "k", "of", "text", "change", "log_odds")
    types = (pl.Int64, pl.Int64, pl.String, pl.String, pl.Float64, pl.Float64)
    table = pl.DataFrame(found, dict(zip(names, types, strict=True)), orient="row")
    table = table.sort("n", "k", "of", -pl.col("log_odds"), maintain_order=True)
    n, k = table["n"].to_numpy(), table["k"].to_numpy()
    return table.select(
        ids[n].alias("note_id"),
        pl.Series("label", classes, pl.String)[k],
        pl.Series("score", scores_NK[n, k]),
        *names[2:],
    )


def _of_sentences(left_out: LeftOut, n: int, k: int, kind: str) -> Iterator[_Row]:
    whole_K = log_odds(kind, left_out.scores_K, *_TELLING)
    odds_SK = log_odds(kind, left_out.without_SK, *_TELLING)
    for s, (start, end) in enumerate(left_out.spans):
        change = float(left_out.scores_K[k] - left_out.without_SK[s, k])
        text = left_out.text[start:end].strip()
        yield n, k, "sentence", text, change, float(whole_K[k] - odds_SK[s, k])


def _of_words_and_columns(
    predictor: Predictor,
    texts: Sequence[str],
    columns: pl.DataFrame | None,
    wanted: Sequence[tuple[int, int]],
    slope: float = 1.0,
) -> Iterator[_Row]:
    """What each word and column adds to the log-odds of some notes and classes."""
    match predictor:
        case HybridPredictor():
            for one, part in zip(predictor.stacked.slopes_M, predictor.parts, strict=True):
                yield from _of_words_and_columns(part, texts, columns, wanted, float(one))
        case WordsPredictor():
            bundle, features_NF = predictor.bundle, predictor.features(texts)
            for n, k in wanted:
                row = features_NF[[n]]
                added = slope * row.data * bundle.linear.weight_KF[k, row.indices]
                for place, value in zip(row.indices, added, strict=True):
                    yield n, k, "word", bundle.words.terms[place], None, float(value)
        case ColumnsPredictor():
            assert columns is not None  # else `predict` has said so
            bundle_of_columns = predictor.bundle
            names = bundle_of_columns.columns.names_of_features
            features_NF = bundle_of_columns.columns.features(columns)
            for n, k in wanted:
                added = slope * features_NF[n] * bundle_of_columns.linear.weight_KF[k]
                for name in bundle_of_columns.columns.names:
                    value = sum(added[place] for place, of in enumerate(names) if of == name)
                    yield n, k, "column", f"{name}: {columns[name][n]}", None, float(value)


def _together(sizes: Sequence[int]) -> Iterator[list[int]]:
    """Places whose sizes sum to at most `_TEXTS_AT_ONCE`, or one of them, in order."""
    some: list[int] = []
    for place, size in enumerate(sizes):
        if some and sum(sizes[n] for n in some) + size > _TEXTS_AT_ONCE:
            yield some
            some = []
        some.append(place)
    yield some


def _variants(text: str, spans: Sequence[Span]) -> Iterator[str]:
    yield text
    for left_out in range(len(spans)):
        yield without(text, spans, (left_out,))

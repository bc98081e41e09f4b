"""A file of notes to a file of scores."""

import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, Literal, NamedTuple

import numpy as np
import polars as pl

from notetune import sources, storage
from notetune.aliases import Combine, Join
from notetune.config import parse
from notetune.errors import ConfigError, RunWarning
from notetune.metrics.stays import Stays
from notetune.model.cards import Card, read_card
from notetune.model.device import DeviceName, torch_device
from notetune.ownership import refuse_existing
from notetune.plain.bundles import ColumnsCard, HybridCard
from notetune.serve.predictions import Predictions
from notetune.sources.cohort import Cohort
from notetune.sources.rejections import place
from notetune.sources.tables.files import names_in, table_files
from notetune.sources.tables.source import TableColumns, TableSource
from notetune.strict_csv import csv_text

_MISSING_BEFORE: Final = ("NULL", "null", r"\N", "None", "nan", "NaN", "NaT", "NA", "<NA>")
"""The cells that were empty to the study of a bundle that does not say which were."""


class Scored(NamedTuple):
    """Scores of a file of notes, and the rows of `explain.reasons`, if they were asked for."""

    scores: pl.DataFrame
    reasons: pl.DataFrame | None


def source_of(
    card: Card,
    notes: Path,
    given: Mapping[str, str | None],
    policy: Literal["strict", "quarantine"],
) -> TableSource:
    """A file of notes, read as the bundle's study read its own; `policy` is for unusable rows.

    Columns are `given` by the keys of `TableColumns`; for each that is None the one of the study is
    taken, if the file has it.

    Raises:
        DataError: If the file is missing, of another format, or faulty in its first line.
    """
    first = table_files(notes)[0]
    spelt = {name: name for name in names_in(first)}
    if ".jsonl" not in first.name.lower():  # the letter case counts there alone
        spelt = {name.lower(): name for name in spelt} | spelt
    known = {key: spelt.get(n, spelt.get(n.lower())) for key, n in card.note_columns.items()}
    chosen = {key: name for key, name in (*known.items(), *given.items()) if name is not None}
    columns = parse(TableColumns, {"text": "text", **chosen}, "columns of the notes")
    source = TableSource(
        kind="table", path=notes, columns=columns, policy=policy, max_rejected_share=1
    )
    missing = _MISSING_BEFORE if card.missing is None else card.missing
    return source.model_copy(update={"missing": missing, "day_first": card.day_first})


def predict_file(
    bundle: Path,
    source: TableSource,
    backbone: str | None,
    device: DeviceName = "auto",
    combine: Combine = "none",
    explained: Sequence[str] | None = None,
    card: Card | None = None,
) -> Scored:
    """Scores of every note of a file, one row per note and class, and what speaks for them.

    A bundle of joined notes reads the notes of each stay as one, under the id of the stay. Rows
    that the source's policy leaves out are counted in a warning, and notes with changed characters
    in another.

    `explained` are the labels whose scores are explained; where there is none, the highest of each
    note. Nothing is explained without. `backbone`, `device` and `card` are as of `load_predictor`.

    Returns:
        Scores with columns `patient_id`, `note_id`, `task`, `label`, `score` and, where tokens are
        read, `tokens`, `pieces`, `truncated`; with `combine` one row per stay, without these.

    Raises:
        ConfigError: If scores cannot be combined, or the bundle lacks a label to explain.
        DataError: If the file, a note or a cell of a column that the bundle reads is faulty.
        BundleError: If the bundle is, or a score is not finite.
    """
    card = card or read_card(bundle)
    features = card.columns if isinstance(card, ColumnsCard | HybridCard) else ()
    join = _join_of(card, source, combine)
    cohort = sources.read(source.model_copy(update={"features": features}), join)
    notes = cohort.notes
    for message in _notices(card, source, cohort):
        warnings.warn(message, RunWarning, stacklevel=2)
    # These load torch, so a fault of a file comes first.
    from notetune.serve.explain import reasons
    from notetune.serve.predictor import load_predictor

    predictor = load_predictor(bundle, backbone, torch_device(device), card)
    predictions = predictor.predict(notes["text"].to_list(), cohort.columns)
    for message in predictions.notices:
        warnings.warn(message, RunWarning, stacklevel=2)
    why = None
    if explained is not None:
        why = reasons(predictor, notes, cohort.columns, card, explained)
    return Scored(_as_table(card, notes, predictions, combine), why)


def _as_table(
    card: Card, notes: pl.DataFrame, predictions: Predictions, combine: Combine
) -> pl.DataFrame:
    patients_N, ids_N = (notes[name].to_numpy() for name in ("patient_id", "note_id"))
    scores_NK = predictions.scores_NK
    reading = predictions.reading.columns if predictions.reading else {}
    if combine != "none":
        stays = Stays.of(ids_N, notes)
        patients_N, ids_N = stays.shared(patients_N, "patients"), stays.ids_S
        scores_NK, reading = stays.combined(scores_NK, combine, card.kind), {}
    classes = len(card.classes)
    return pl.DataFrame(
        {
            "patient_id": np.repeat(patients_N, classes),
            "note_id": np.repeat(ids_N, classes),
            "task": [card.task] * scores_NK.size,
            "label": list(card.classes) * len(ids_N),
            "score": scores_NK.ravel(),
            **{n: np.repeat(v, classes) for n, v in reading.items()},
        }
    )


def _join_of(card: Card, source: TableSource, combine: Combine) -> Join:
    """Whether the notes of a stay are joined: as in training, if the file names stays.

    Raises:
        ConfigError: If scores are to be combined and there are no stays, or stays are joined.
    """
    has_stays = source.columns.stay_id is not None
    if combine != "none" and not (has_stays and card.join == "none"):
        why = "the file must name the stay of each note: give --stay-id"
        if has_stays:
            why = "the bundle reads the notes of a stay as one, so nothing is left to combine"
        raise ConfigError(f"--combine {combine}: {why}.")
    if combine == "last" and not source.columns.time:
        message = (
            "--combine last: the last note of a stay is here the one in the last of its rows; "
            "--time names the column that says which is the newest."
        )
        warnings.warn(message, RunWarning, stacklevel=3)
    if card.join != "none" and not (has_stays and source.columns.time):
        what = "its notes are in the order of the rows" if has_stays else "each row is read as one"
        message = (
            f"the bundle reads the notes of a stay as one, in order of time: here {what}; "
            "--stay-id and --time say what belongs together."
        )
        warnings.warn(message, RunWarning, stacklevel=3)
    return card.join if has_stays else "none"


def _notices(card: Card, source: TableSource, cohort: Cohort) -> Iterator[str]:
    """What the notes should be, how they are named, and what was left out or changed."""
    if made := sources.MADE_NOTES.get(card.source):
        yield (
            f"the bundle was trained on {made}, and reads this file as it is; `notetune prepare` "
            f"with a recipe whose source is of kind {card.source} writes such notes into "
            "prepared/texts, which can be read in place of the file with --note-id note_id."
        )
    if card.drops_late:
        yield (
            "the bundle was trained without notes from after the prediction time, and reads every "
            "note of this file: give it those from up to that time alone."
        )
    if source.columns.note_id is None:
        yield "notes are named after their lines in the file; --note-id names a column of ids."
    if (named := card.note_columns.get("patient_id")) and source.columns.patient_id is None:
        yield f"no column {named}: patients are named after notes; --patient-id names another."
    if (left_out := cohort.rejections).height:
        first = place(Path(left_out["file"][0]), left_out["line"][0])
        reasons = ", ".join(sorted(set(left_out["reason"])))
        yield f"{left_out.height} rows are left out ({reasons}); the first is {first}."
    if changes := cohort.flow[0].changes:
        yield f"{changes}."
    if notice := cohort.flow[0].notice:
        yield notice


def check_output(path: Path | None) -> None:
    """Refuse a file that `write_predictions` would not write.

    Raises:
        ConfigError: If it is neither .csv nor .parquet.
        RunError: If it exists: it could be the notes.
        WriteError: If it cannot be written there.
    """
    if path is None:
        return
    if path.suffix not in (".csv", ".parquet"):
        raise ConfigError(f"output {path} is neither .csv nor .parquet; give it one of them.")
    refuse_existing(path)
    storage.refuse_unwritable(path)


def write_predictions(table: pl.DataFrame, path: Path | None) -> None:
    """Write scores to a new .csv or .parquet file in one step, or as CSV to standard output.

    In CSV, an id that a spreadsheet would compute gets an apostrophe before it. Errors are those of
    `check_output`.
    """
    check_output(path)
    if path is None:
        sys.stdout.write(csv_text(table))
    elif path.suffix == ".csv":
        storage.write_text(path, csv_text(table), replaces=False)
    else:
        with storage.new_file(path) as file:
            table.write_parquet(file)

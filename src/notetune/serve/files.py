"""A file of notes to a file of scores."""

import sys
import warnings
from pathlib import Path

import numpy as np
import polars as pl

from notetune import runs, sources, storage
from notetune.errors import ConfigError, RunWarning
from notetune.model.bundle import read_card
from notetune.model.device import DeviceName, torch_device
from notetune.ownership import refuse_existing
from notetune.plain.bundles import ColumnsCard, HybridCard
from notetune.serve.predictor import load_predictor
from notetune.sources import TableSource
from notetune.sources.rejections import place
from notetune.strict_csv import csv_text


def predict_file(
    bundle: Path, source: TableSource, backbone: str | None, device: DeviceName = "auto"
) -> pl.DataFrame:
    """Scores of every note of a file, one row per note and class.

    Rows that the source's policy leaves out are counted in a warning.

    Returns:
        Columns `patient_id`, `note_id`, `task`, `label`, `score` and, where tokens are read,
        `tokens`, `pieces`, `truncated`.

    Raises:
        DataError: If the file, a note or a cell of a column that the bundle reads is faulty.
        BundleError: If the bundle is.
    """
    card = read_card(bundle)
    features = card.columns if isinstance(card, ColumnsCard | HybridCard) else ()
    cohort = sources.read(source.model_copy(update={"features": features}))
    notes, left_out = cohort.notes, cohort.rejections
    if left_out.height:
        first = place(Path(left_out["file"][0]), left_out["line"][0])
        reasons = ", ".join(sorted(set(left_out["reason"])))
        message = f"{left_out.height} rows are left out ({reasons}); the first is {first}."
        warnings.warn(message, RunWarning, stacklevel=2)
    predictor = load_predictor(bundle, backbone, torch_device(device))
    predictions = predictor.predict(notes["text"].to_list(), cohort.columns)
    for name, count in predictions.unkept.items():
        message = (
            f"column {name}: {count} of {notes.height} notes have a level that the bundle does not "
            "know, or that was rare in its training; it counts for nothing."
        )
        warnings.warn(message, RunWarning, stacklevel=2)
    reading = predictions.reading.columns if predictions.reading else {}
    classes = len(card.classes)
    return pl.DataFrame(
        {
            "patient_id": np.repeat(notes["patient_id"].to_numpy(), classes),
            "note_id": np.repeat(notes["note_id"].to_numpy(), classes),
            "task": [card.task] * (classes * notes.height),
            "label": list(card.classes) * notes.height,
            "score": predictions.scores_NK.ravel(),
            **{n: np.repeat(v, classes) for n, v in reading.items()},
        }
    )


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

    In CSV, an id that a spreadsheet would compute gets an apostrophe before it.

    Raises:
        ConfigError: If the file has another suffix.
        RunError: If it exists.
    """
    check_output(path)
    if path is None:
        sys.stdout.write(csv_text(table))
    elif path.suffix == ".csv":
        runs.write_text(path, csv_text(table), replaces=False)
    else:
        with runs.new_file(path) as file:
            table.write_parquet(file)

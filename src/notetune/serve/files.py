"""A file of notes to a file of scores."""

import sys
from pathlib import Path

import numpy as np
import polars as pl

from notetune import runs
from notetune.errors import ConfigError
from notetune.model.bundle import read_card
from notetune.notes import sources
from notetune.notes.sources import TableSource
from notetune.notes.strict_csv import csv_text
from notetune.serve.predictor import load_predictor


def predict_file(bundle: Path, source: TableSource, backbone: str | None) -> pl.DataFrame:
    """Scores of every note of a file, one row per note and class.

    Returns:
        Columns `patient_id`, `note_id`, `task`, `label`, `score`, `tokens`, `pieces`, `truncated`.

    Raises:
        DataError: If the file or a note is faulty.
        BundleError: If the bundle is.
    """
    card = read_card(bundle)
    notes = sources.read(source).notes
    predictor = load_predictor(bundle, backbone)
    predictions = predictor.predict(notes["text"].to_list())
    classes = len(card.classes)
    return pl.DataFrame(
        {
            "patient_id": np.repeat(notes["patient_id"].to_numpy(), classes),
            "note_id": np.repeat(notes["note_id"].to_numpy(), classes),
            "task": [card.task] * (classes * notes.height),
            "label": list(card.classes) * notes.height,
            "score": predictions.scores_NK.ravel(),
            **{n: np.repeat(v, classes) for n, v in predictions.reading.columns.items()},
        }
    )


def write_predictions(table: pl.DataFrame, path: Path | None) -> None:
    """Write scores to a .csv or .parquet file, or as CSV to standard output.

    In CSV, an id that a spreadsheet would compute gets an apostrophe before it.

    Raises:
        ConfigError: If the file has another suffix.
    """
    if path is None:
        sys.stdout.write(csv_text(table))
    elif path.suffix == ".csv":
        runs.write_text(path, csv_text(table))
    elif path.suffix == ".parquet":
        table.write_parquet(path)
    else:
        raise ConfigError(f"output {path} ends in {path.suffix}; use .csv or .parquet.")

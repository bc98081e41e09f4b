"""A study of a DataFrame: `notetune.fit(notes, outcomes=[...])`."""

import hashlib
import math
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import polars as pl
from polars.exceptions import PanicException, PolarsError

from notetune import manifest, runs
from notetune.cli import dry_runs, terminal
from notetune.config import as_name, merged, parse
from notetune.errors import ConfigError, DataError, RunWarning
from notetune.metrics.ranking import macro_auroc
from notetune.metrics.results import Results
from notetune.metrics.scores import read_scores
from notetune.model.cards import BUNDLE, read_card
from notetune.ownership import refuse_foreign
from notetune.recipe.draft import Choices, draft
from notetune.recipe.recipe import Recipe
from notetune.report.page import write_report
from notetune.report.summary import summary
from notetune.serve.predictor import load_predictor
from notetune.sources.rejections import ReadingPolicy
from notetune.sources.tables.records import Record
from notetune.sources.tables.source import TableSource
from notetune.sources.tables.survey import survey
from notetune.study.costs import Costs, costs
from notetune.study.jobs import Job
from notetune.study.listing import read_study
from notetune.study.run import run_study

_LEAST_TO_CHOOSE = 10
"""Validation notes with the rarer value, below which no model is chosen by their AUROC."""
_UNCHOSEN = "tf-idf"
_PAST_WHOLE, _PAST_EXACT = 2**63, 2**53
"""From here on a number is no whole one of a table, and a float may stand for several."""


@runs.private_files()
def fit(
    notes: Any,
    outcomes: str | Sequence[str],
    *,
    text: str | None = None,
    patient: str | None = None,
    note_id: str | None = None,
    features: str | Sequence[str] = (),
    folder: str | Path = "runs/fit",
    backbone: str | None = None,
    **keys: Any,
) -> "Study":
    """Run both steps on a DataFrame, a row per note, and write the report.

    The same call again goes on with what is there; notes are kept in `folder`, for the owner alone.
    `plan` of the same arguments says how long it takes.

    Args:
        notes: Of pandas or polars, lazy or not.
        outcomes: Columns to predict, or one: two values, several, or lists of labels.
        text: Column of the text; the longest without.
        patient: Column of the patient id; guessed by its name without.
        note_id: Column of the note id, which scores carry; guessed by its name without.
        features: Columns beside the text, such as age and sex, or one.
        folder: The run folder; its last part is the name of the study, so it becomes one of a-z,
            0-9, `.`, `_` and `-`.
        backbone: Folder of a Hugging Face model; without it and `backbones`, `tiny`.
        **keys: Keys of a recipe, such as `seeds=1` or `downstream={"variants": ["head-only"]}`.

    Raises:
        NotetuneError: What is wrong with the notes or the keys.
    """
    columns: dict[str, Any] = {"text": text, "patient": patient, "note_id": note_id}
    options: dict[str, Any] = {**keys, "features": features, "backbone": backbone}
    root = _root(folder)
    recipe = _recipe(notes, outcomes, root, root, **columns, **options)
    refuse_foreign(recipe.folder.report)
    results = run_study(recipe, terminal.track)
    write_report(results, recipe.folder.report)
    return Study(recipe, results, manifest.made_from(recipe.folder.prepared))


def plan(
    notes: Any, outcomes: str | Sequence[str], *, folder: str | Path = "runs/fit", **options: Any
) -> Costs:
    """Print what `fit` of the same arguments takes on this machine; nothing of it stays on disk.

    Returns:
        The trainings, of which `seconds` is the time by backbone; errors as of `fit`.
    """
    with tempfile.TemporaryDirectory() as place:
        recipe = _recipe(notes, outcomes, Path(place), _root(folder), **options)
        found = costs(recipe)
    dry_runs.tell(recipe, found, as_json=False)
    return found


@dataclass(frozen=True)
class Study:
    """A finished study on notes as of `manifest.made_from`; `study run` takes its recipe too."""

    recipe: Recipe
    results: Results
    notes_from: str | None

    def __repr__(self) -> str:
        return f"<Study of {', '.join(task.task for task in self.results.tasks)}: {self.report}>"

    @property
    def report(self) -> Path:
        """The page."""
        return self.recipe.folder.report / "report.html"

    def summary(self) -> str:
        """The report in words, and where no model can be chosen to predict with."""
        lines = [f"{said.about}: {said.text}" for said in summary(self.results)]
        unsure = {task: _why_not_chosen(jobs) for task, jobs in _made(self.recipe).items()}
        lines += [f"To predict {task}: {why}." for task, why in unsure.items() if why]
        return "\n".join(lines)

    def predict(self, notes: Any, model: str | None = None) -> Any:
        """Score new notes.

        Args:
            notes: A DataFrame with the columns that the study read, without the outcomes.
            model: By its name in the report; without it, for each outcome the one with the highest
                validation AUROC, or tf-idf with a warning where too few notes can tell.

        Returns:
            A frame of the kind given: `row` (from 0), the study's column of note ids if the notes
            have it, `task`, `model`, `label` and `score`.

        Raises:
            ConfigError: If there is no such model, or the study is about stays.
            DataError: If a column is missing or a note is empty, or another study took the folder.
        """
        if manifest.made_from(self.recipe.folder.prepared) != self.notes_from:
            raise DataError(f"{self.recipe.folder.root.resolve()} is not this study's; fit anew.")
        if self.recipe.prepare.join != "none" or self.recipe.evaluate.combine != "none":
            raise ConfigError(
                "this study is about stays, and here each row is scored by itself; score a file "
                "with `notetune predict`, which takes the column of the stay."
            )
        source = self.recipe.prepare.source
        assert isinstance(source, TableSource)
        wanted, note_id = (source.columns.text, *source.features), source.columns.note_id
        table, _ = _readable(notes, [*wanted, *filter(None, [note_id])])
        if absent := [name for name in wanted if name not in table.columns]:
            raise DataError(f"the notes have no column {absent[0]}.")
        records = _records(table.select(wanted), source)
        texts = [record.cells[wanted[0]] or "" for record in records]
        if odd := {type(text).__name__ for text in texts} - {"str"}:
            raise DataError(f"column {wanted[0]} holds cells of kind {min(odd)}; a note is text.")
        columns = _columns(records, source.features)
        scores = pl.concat(_scored(job, texts, columns) for job in _chosen(self.recipe, model))
        if note_id in table.columns:
            ids = table[note_id].gather(scores["row"])
            scores.insert_column(1, ids.alias("note_id") if note_id in scores.columns else ids)
        return scores if isinstance(notes, pl.DataFrame) else type(notes)(scores.to_dict())


def _root(folder: str | Path) -> Path:
    """The run folder that becomes of the one given: the study has its name."""
    given = Path(folder) if Path(folder).name.strip(".") else Path(folder).resolve()
    root = given.parent / as_name(given.name, "study")
    if root != given:
        terminal.say(f"Check: a study has a name of a-z, 0-9, . _ and -, so its folder is {root}.")
    return root


def _recipe(
    notes: Any,
    outcomes: str | Sequence[str],
    kept: Path,
    root: Path,
    *,
    text: str | None = None,
    patient: str | None = None,
    note_id: str | None = None,
    features: str | Sequence[str] = (),
    backbone: str | None = None,
    **keys: Any,
) -> Recipe:
    """The recipe of a study in the folder `root`, of notes that go into the folder `kept`."""
    named, beside = _names(outcomes), _names(features)
    if not named:
        raise ConfigError("outcomes names no column; name one or several.")
    text, patient, note_id = (one if one is None else str(one) for one in (text, patient, note_id))
    table, left_out = _readable(notes, [*filter(None, (text, patient, note_id)), *named, *beside])
    for name, why in left_out.items():
        terminal.say(f"Check: column {name} {why}; it is left out.")
    path = _kept(table, kept)
    kinds = dict.fromkeys(named)
    chosen = Choices(text, patient, note_id, outcomes=kinds, features=beside, text_option="text=")
    drafted = draft(path, survey(path), chosen, root.name, backbone or "tiny")
    for remark in drafted.remarks:
        terminal.say(f"Check: {remark}")
    begun = dict(drafted.keys)
    if backbone is None and keys.get("backbones"):
        del begun["backbone"]
    return parse(Recipe, merged(begun, {"runs": str(root.parent), **keys}), "fit")


def _names(given: Any) -> tuple[str, ...]:
    """One name or several, as text: those of pandas may be numbers."""
    is_several = isinstance(given, Iterable) and not isinstance(given, str)
    return tuple(map(str, given if is_several else (given,)))


def _readable(notes: Any, named: Sequence[str]) -> tuple[pl.DataFrame, dict[str, str]]:
    """The columns that can be read, as polars has them, and what is wrong with each of the others.

    Numbers that are whole but stand as decimals, as beside gaps, become so.

    Raises:
        DataError: If notes are no DataFrame, or a column that is `named` cannot be read.
    """
    if isinstance(notes, pl.LazyFrame):
        notes = notes.collect()
    if isinstance(notes, pl.DataFrame):
        found = [(column.name, column) for column in notes]
    elif hasattr(notes, "columns"):
        found = [(str(name), notes.iloc[:, place]) for place, name in enumerate(notes.columns)]
    else:
        raise DataError(
            f"notes are of type {type(notes).__name__}; give a DataFrame of pandas or polars."
        )
    counts, columns, faults = Counter(name for name, _ in found), [], {}
    for name, column in found:
        read = _series(name, column) if counts[name] == 1 else f"stands there {counts[name]} times"
        if isinstance(read, pl.Series):
            columns.append(_whole(read))
        else:
            faults[name] = read
    for name in named:
        if name in faults:
            raise DataError(
                f"column {name} {faults[name]}; give one column of that name, of text, numbers, "
                "times or lists of text."
            )
    return pl.DataFrame(columns), faults


def _series(name: str, column: Any) -> pl.Series | str:
    """A column as polars has it, or what it holds that no table can hold."""
    cells = column if isinstance(column, pl.Series) else _cells(column)
    try:
        read = pl.Series(name, cells, strict=False)
    except UnicodeError:
        return "holds halves of characters"
    except (PanicException, PolarsError, AttributeError, TypeError, ValueError, OverflowError):
        return f"holds cells of kind {_kinds(cells)} that do not go together"  # errors show cells
    if read.dtype in (pl.Object, pl.Struct([])):
        return f"holds cells of kind {_kinds(cells)}"
    if exact := {"float16": 2**11, "float32": 2**24}.get(kind := str(column.dtype).lower()):
        known = read.cast(pl.Float64).drop_nulls().drop_nans()
        if (known % 1 == 0).all() and (known.abs() > exact).any():
            return f"holds whole numbers that a {kind} may have rounded"
    return read


def _kinds(cells: Iterable[Any]) -> str:
    return " and ".join(sorted({type(cell).__name__ for cell in cells if cell is not None}))


def _whole(column: pl.Series) -> pl.Series:
    if not column.dtype.is_float():
        return column
    known = column.drop_nulls()
    is_whole = (known % 1 == 0).all() and (known.abs() <= _PAST_EXACT).all()
    return column.cast(pl.Int64) if is_whole else column


def _cells(column: Any) -> list[Any]:
    """The cells of a column of pandas, None where one is missing; times beside others as text."""
    pairs = zip(column.tolist(), column.isna().tolist(), strict=True)
    cells = [None if is_missing else _plain(cell) for cell, is_missing in pairs]
    are_times = {isinstance(cell, date) for cell in cells if cell is not None}
    if are_times == {True, False}:
        return [None if cell is None else str(cell) for cell in cells]
    return cells


def _plain(cell: Any) -> Any:
    """A cell in the one form that its value has, so that 7.0 and 7 are one id."""
    if isinstance(cell, np.number | np.bool_ | np.ndarray):
        cell = cell.tolist()
    if isinstance(cell, float) and cell.is_integer() and abs(cell) <= _PAST_EXACT:
        return int(cell)
    is_beyond = isinstance(cell, int) and abs(cell) >= _PAST_WHOLE
    return str(cell) if is_beyond or isinstance(cell, UUID) else cell


def _kept(table: pl.DataFrame, root: Path) -> Path:
    """The notes as a file in the run folder."""
    folder = root / "notes"
    inputs = hashlib.sha256(table.write_ipc(None).getvalue()).hexdigest()
    if not manifest.is_finished(folder, inputs):
        with runs.new_folder(folder, inputs) as temporary:
            table.write_parquet(temporary / "notes.parquet")
    return folder / "notes.parquet"


def _records(table: pl.DataFrame, policy: ReadingPolicy) -> list[Record]:
    """Notes as a source reads them."""
    rows = table.iter_rows(named=True)
    return [Record(Path("the notes"), n, row).read_by(policy) for n, row in enumerate(rows)]


def _columns(records: Sequence[Record], features: Sequence[str]) -> pl.DataFrame:
    """Features as a source gives them."""
    cells = {name: [record.feature(name) for record in records] for name in features}
    ids = [str(row) for row in range(len(records))]
    return pl.DataFrame({"note_id": ids, **cells}, schema_overrides=dict.fromkeys(cells, pl.String))


def _made(recipe: Recipe) -> dict[str, list[Job]]:
    """The finished models of the first run, by task."""
    found: dict[str, list[Job]] = {}
    for one in read_study(recipe):
        for job in one.done_of("baseline", "model", "hybrid"):
            if not job.seed:
                found.setdefault(job.task, []).append(job)
    return found


def _chosen(recipe: Recipe, model: str | None) -> list[Job]:
    """The model of each task that is named, or that the validation notes choose."""
    chosen = []
    for task, jobs in _made(recipe).items():
        wanted = model
        if model is None and (why := _why_not_chosen(jobs)):
            warnings.warn(f"task {task}: {why}.", RunWarning, stacklevel=3)
            wanted = _UNCHOSEN
        known = [job for job in jobs if job.model and (job.folder / BUNDLE).is_file()]
        named = [job for job in known if job.model and wanted in (None, job.model.label)]
        if not named:
            raise ConfigError(
                f"task {task} has no model {wanted} that can predict; name one with model=: "
                f"{', '.join(job.model.label for job in known if job.model)}."
            )
        chosen.append(max(named, key=_validation_auroc))
    return chosen


def _why_not_chosen(jobs: Sequence[Job]) -> str | None:
    """Why the validation notes of a task cannot choose among its models; None if they can."""
    way_out = f"{_UNCHOSEN} is taken; name another with predict(df, model=...)"
    if not _validation(jobs[0]).is_file():
        return f"there are no validation notes to choose a model by: {way_out}"
    targets_NK = read_scores(_validation(jobs[0])).targets_NK
    positive_K = targets_NK.sum(0, dtype=np.int64)
    rarer = int(np.minimum(positive_K, len(targets_NK) - positive_K).max())
    if rarer >= _LEAST_TO_CHOOSE:
        return None
    of_label = "" if len(positive_K) == 1 else " of the label with most"
    return (
        f"too few validation notes to choose a model ({rarer} with the rarer value{of_label}): "
        f"{way_out}"
    )


def _validation(job: Job) -> Path:
    return job.folder / "validation.parquet"


def _validation_auroc(job: Job) -> float:
    if not _validation(job).is_file():  # of all models alike
        return 0.0
    table = read_scores(_validation(job))
    auroc = macro_auroc(table.targets_NK, table.scores_NK)
    return 0.0 if math.isnan(auroc) else auroc


def _scored(job: Job, texts: Sequence[str], columns: pl.DataFrame) -> pl.DataFrame:
    card = read_card(job.folder)
    predictor = load_predictor(job.folder, job.place.backbone, card=card)
    predictions = predictor.predict(texts, columns)
    for message in predictions.notices:
        warnings.warn(message, RunWarning, stacklevel=4)
    assert job.model
    count = len(card.classes)
    return pl.DataFrame(
        {
            "row": np.repeat(np.arange(len(texts)), count),
            "task": card.task,
            "model": job.model.label,
            "label": list(card.classes) * len(texts),
            "score": predictions.scores_NK.ravel(),
        }
    )

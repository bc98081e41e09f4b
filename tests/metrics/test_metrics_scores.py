import numpy as np
import polars as pl
import pytest

from notetune.errors import DataError
from notetune.metrics.scores import ScoreTable, read_scores, write_scores


def score_table(kind="multilabel", notes=7, **changes):
    generator = np.random.default_rng(notes)
    classes = ("I10",) if kind == "binary" else ("I10", "E11", "J18")
    scores = generator.random((notes, len(classes)))
    targets = (generator.random(scores.shape) < 0.5).astype(np.int8)
    if kind == "multiclass":
        scores /= scores.sum(axis=1, keepdims=True)
        targets = np.eye(len(classes), dtype=np.int8)[generator.integers(0, len(classes), notes)]
    values = {
        "task": "codes",
        "kind": kind,
        "model": "task-lora",
        "seed": 13,
        "split": "test",
        "classes": classes,
        # Not sorted, with one patient of several notes: order must survive.
        "note_ids_N": np.array([f"n{i:02d}" for i in generator.permutation(notes)]),
        "patient_ids_N": np.array([f"p{i // 2}" for i in range(notes)]),
        "targets_NK": targets,
        "scores_NK": scores,
    }
    return ScoreTable(**values | changes)


@pytest.mark.parametrize("kind", ["binary", "multiclass", "multilabel"])
def test_a_table_comes_back_from_parquet_bit_by_bit(kind, tmp_path):
    table = score_table(kind, notes=50)
    write_scores(table, tmp_path / "new" / "scores.parquet")
    back = read_scores(tmp_path / "new" / "scores.parquet")
    assert all(np.array_equal(value, vars(back)[name]) for name, value in vars(table).items())
    assert len(vars(back)) == 11
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["scores.parquet"]


def test_the_file_is_tidy(tmp_path):
    table = score_table(notes=4)
    write_scores(table, tmp_path / "scores.parquet")
    frame = pl.read_parquet(tmp_path / "scores.parquet")
    assert frame.shape == (12, 10)
    assert set(frame.columns) == {
        *("patient_id", "note_id", "task", "kind", "label"),
        *("split", "model", "seed", "score", "target"),
    }
    cell = frame.filter(note_id=str(table.note_ids_N[2]), label="E11").row(0, named=True)
    assert cell["score"] == table.scores_NK[2, 1]
    assert cell["target"] == table.targets_NK[2, 1]
    assert cell["patient_id"] == table.patient_ids_N[2]


def test_shuffled_rows_hold_the_same_table(tmp_path):
    table = score_table(notes=20)
    path = tmp_path / "scores.parquet"
    write_scores(table, path)
    rewrite(path, lambda frame: frame.sample(fraction=1, shuffle=True, seed=1))
    shuffled = read_scores(path)
    assert sorted(shuffled.classes) == sorted(table.classes)
    columns = [shuffled.classes.index(label) for label in table.classes]
    aligned = shuffled.in_note_order(table.note_ids_N)
    np.testing.assert_array_equal(aligned.scores_NK[:, columns], table.scores_NK)
    np.testing.assert_array_equal(aligned.targets_NK[:, columns], table.targets_NK)


def test_arrays_are_copies_that_cannot_be_written():
    scores = np.full((7, 3), 0.5)
    table = score_table(scores_NK=scores)
    scores[:] = 0
    assert table.scores_NK.min() == 0.5
    with pytest.raises(ValueError, match="read-only"):
        table.targets_NK[0, 0] = 1


def test_in_note_order_moves_whole_rows():
    table = score_table(notes=9)
    wanted = np.sort(table.note_ids_N)
    moved = table.in_note_order(wanted)
    assert moved.note_ids_N.tolist() == wanted.tolist()
    for note, scores, patient in zip(
        table.note_ids_N, table.scores_NK, table.patient_ids_N, strict=True
    ):
        row = wanted.tolist().index(note)
        assert moved.scores_NK[row].tolist() == scores.tolist()
        assert moved.patient_ids_N[row] == patient
    with pytest.raises(DataError, match=r"1 of 9 notes are missing and 1 are not of this set"):
        table.in_note_order(np.array([*wanted[:-1], "other"]))


NAN_IN_NOTE = np.full((7, 3), 0.5)
NAN_IN_NOTE[2, 1] = np.nan


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        ("multilabel", {"scores_NK": NAN_IN_NOTE}, "1 of 7 notes have a score that is NaN"),
        ("multilabel", {"scores_NK": np.full((7, 3), 1.5)}, "7 of 7 notes .* outside 0..1"),
        ("multilabel", {"scores_NK": np.full((7, 2), 0.5)}, r"scores \(7, 2\)"),
        ("multilabel", {"targets_NK": np.full((7, 3), 2)}, "21 targets are not 0 or 1"),
        ("multilabel", {"targets_NK": np.full((7, 3), 0.5)}, "values other than 0 and 1"),
        ("multilabel", {"targets_NK": np.full((7, 3), 257)}, "values other than 0 and 1"),
        ("multilabel", {"patient_ids_N": np.array(["p"] * 6)}, r"patients \(6,\)"),
        ("multilabel", {"note_ids_N": np.array(["n1", *"abcde", "n1"])}, "1 notes stand there twi"),
        ("multilabel", {"classes": ("I10", "E11", "I10")}, "3 classes, 1 of them repeated"),
        ("ordinal", {}, "kind is ordinal; allowed are binary, multiclass"),
        ("binary", {"classes": ("no", "yes")}, "2 classes, .* a binary task has exactly 1"),
        ("multiclass", {"targets_NK": np.ones((7, 3))}, "7 of 7 notes have a number of classes"),
        ("multiclass", {"scores_NK": np.full((7, 3), 0.5)}, "softmax scores that do not sum to 1"),
    ],
)
def test_a_table_that_breaks_a_rule_is_refused(kind, changes, message):
    with pytest.raises(DataError, match=message) as refusal:
        score_table(kind, **changes)
    assert "task-lora (seed 13) on codes/test" in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_an_empty_table_is_refused():
    empty = np.zeros((0, 3))
    with pytest.raises(DataError, match="at least one note"):
        score_table(
            note_ids_N=np.array([], str),
            patient_ids_N=np.array([], str),
            targets_NK=empty,
            scores_NK=empty,
        )


def rewrite(path, change, **metadata):
    frame = change(pl.read_parquet(path))
    frame.write_parquet(path, metadata={"format": "1"} | metadata)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.head(-1), "20 rows for 7 notes and 3 labels"),
        (lambda f: pl.concat([f, f.head(1)]), "22 rows for 7 notes and 3 labels"),
        (lambda f: pl.concat([f.head(-1), f.head(1)]), "exactly one row"),
        (lambda f: f.drop("score"), r"\['score'\]"),
        (lambda f: f.with_columns(score=pl.col("score").cast(str)), r"\['score'\]"),
        (lambda f: f.with_columns(extra=1), r"unknown columns: \['extra'\]"),
        (lambda f: f.clear(), "has 0 rows"),
        (lambda f: f.with_columns(score=pl.lit(None, pl.Float64)), "21 empty cells"),
        (lambda f: f.with_columns(score=pl.lit(float("nan"))), "is NaN"),
        (
            lambda f: f.with_columns(seed=pl.int_range(pl.len(), dtype=pl.Int64)),
            "column seed has 21 values",
        ),
        (
            lambda f: f.with_columns(patient_id=pl.int_range(pl.len()).cast(str)),
            "each note one patient",
        ),
        (  # as many rows as two notes have
            lambda f: f.head(6).with_columns(
                note_id=pl.lit("n"), patient_id=(pl.int_range(pl.len()) // 3).cast(str)
            ),
            "each note one patient",
        ),
    ],
)
def test_a_malformed_file_is_refused(change, message, tmp_path):
    path = tmp_path / "scores.parquet"
    write_scores(score_table(), path)
    rewrite(path, change)
    with pytest.raises(DataError, match=message):
        read_scores(path)


def test_files_that_are_not_score_tables_are_refused_by_name(tmp_path):
    with pytest.raises(DataError, match=r"absent.parquet is not a file"):
        read_scores(tmp_path / "absent.parquet")
    (tmp_path / "text.parquet").write_text("canary")
    with pytest.raises(DataError, match="is not a Parquet file") as refusal:
        read_scores(tmp_path / "text.parquet")
    assert "canary" not in str(refusal.value)
    write_scores(score_table(), tmp_path / "newer.parquet")
    rewrite(tmp_path / "newer.parquet", lambda frame: frame, format="2")
    with pytest.raises(DataError, match="format 2; this version reads format 1"):
        read_scores(tmp_path / "newer.parquet")

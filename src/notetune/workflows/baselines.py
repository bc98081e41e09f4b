"""Models without a language model, trained and scored on the same notes."""

from typing import Any, Literal, assert_never

import numpy as np
import numpy.typing as npt
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from notetune import runs
from notetune.metrics.scores import ScoreTable, write_scores
from notetune.workflows.prepare import Prepared, TaskTable
from notetune.workflows.recipe import Recipe

Baseline = Literal["prevalence", "tf-idf"]
FloatArray = npt.NDArray[np.float64]


def inputs(prepared: Prepared, task: str, baseline: Baseline) -> dict[str, Any]:
    """What a baseline depends on."""
    return {
        "stage": "baseline",
        "prepared": runs.read_json(prepared.folder / runs.MANIFEST)["inputs"],
        "cell": (task, baseline),
    }


def score_baseline(recipe: Recipe, prepared: Prepared, task: str, baseline: Baseline) -> None:
    """Train a baseline and write its test scores, unless that was done from the same inputs."""
    folder = recipe.folder.cell(task, baseline, 0)
    depends_on = inputs(prepared, task, baseline)
    if runs.is_finished(folder, depends_on):
        return
    table = prepared.tasks[task]
    with runs.new_folder(folder, depends_on) as temporary:
        scores = _test_scores(prepared, table, baseline)
        write_scores(scores, temporary / "test.parquet")


def _test_scores(prepared: Prepared, table: TaskTable, baseline: Baseline) -> ScoreTable:
    train, test = table.rows("train"), table.rows("test")
    targets_NK = table.targets_NK[train]
    match baseline:
        case "prevalence":
            scores_NK = np.tile(targets_NK.mean(0, dtype=np.float64), (len(test), 1))
        case "tf-idf":
            scores_NK = _tfidf_scores(
                table.task.kind,
                prepared.texts(table.note_ids_N[train]),
                targets_NK,
                prepared.texts(table.note_ids_N[test]),
            )
        case _:
            assert_never(baseline)
    return ScoreTable(
        table.task.name,
        table.task.kind,
        baseline,
        0,
        "test",
        table.task.classes,
        table.note_ids_N[test],
        table.patient_ids_N[test],
        table.targets_NK[test],
        scores_NK,
    )


def _tfidf_scores(
    kind: str, train_texts: list[str], targets_NK: npt.NDArray[np.int8], test_texts: list[str]
) -> FloatArray:
    """`(N, K)`: words and word pairs, and one logistic regression per label (one for classes)."""
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True)
    train, test = vectorizer.fit_transform(train_texts), vectorizer.transform(test_texts)
    if kind == "multiclass":
        return _class_scores(train, targets_NK, test)
    return np.column_stack([_label_scores(train, target_N, test) for target_N in targets_NK.T])


def _label_scores(train: Any, target_N: npt.NDArray[np.int8], test: Any) -> FloatArray:
    if target_N.min() == target_N.max():
        return np.full(test.shape[0], float(target_N[0]))
    model = LogisticRegression(C=10.0, max_iter=1000, solver="liblinear")
    scores: FloatArray = model.fit(train, target_N).predict_proba(test)[:, 1]
    return scores


def _class_scores(train: Any, targets_NK: npt.NDArray[np.int8], test: Any) -> FloatArray:
    model = LogisticRegression(C=10.0, max_iter=1000).fit(train, targets_NK.argmax(1))
    scores_NK = np.zeros((test.shape[0], targets_NK.shape[1]))
    scores_NK[:, model.classes_] = model.predict_proba(test)  # a class may be absent in training
    return scores_NK

"""Everything that the report shows, as one frozen value with a JSON form.

No field holds note text: notes appear as counts, scores and label names only. A figure that does
not exist is None with a reason beside it, never NaN, 0 or 0.5.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, Self, get_args

from pydantic import Field, JsonValue, NonNegativeInt

from notetune.aliases import TaskKind
from notetune.audit import Finding, FlowCount
from notetune.config import Config
from notetune.metrics.best import Standing
from notetune.metrics.bootstrap import Estimate
from notetune.metrics.learning import CurvePoint as CurvePoint
from notetune.metrics.learning import Evaluation as Evaluation
from notetune.metrics.published import Publication
from notetune.metrics.ranking import macro_auroc, micro_auroc


class SplitCount(Config):
    """Size of one split of one task; `positives` counts notes per class."""

    task: str
    split: str
    notes: NonNegativeInt
    patients: NonNegativeInt
    positives: dict[str, NonNegativeInt]


class PerplexityRow(Config):
    """Perplexity on one source of one split.

    `method` of step 1 made the adapter on the backbone, None without one; `backbone` is its name in
    a study of several.
    """

    method: str | None
    is_domain_adapter: bool = False
    backbone: str = ""
    split: str
    source: str
    perplexity: float
    bits_per_byte: float
    tokens: NonNegativeInt


class MethodRow(Config):
    """One method of step 1; perplexity by split (`train`, `validation`, `test`, `general`).

    The 95 % intervals are over patients, of splits with two. `standing` is among the methods on its
    backbone, on the test notes; `processes` is how many trained it together, where recorded.
    """

    method: str
    trainable_parameters: NonNegativeInt = 0
    total_parameters: NonNegativeInt = 0
    perplexity: dict[str, float]
    intervals: dict[str, tuple[float, float]] = Field(default_factory=dict)
    standing: Standing | None = None
    tokens_per_second: float | None = None
    seconds: float | None = None
    peak_memory_mib: float | None = None
    processes: int | None = None


class DeletionRow(Config):
    """Means over test notes of what leaving out sentences takes from a score.

    Attributes:
        left_out: Sentences that are left out together.
        sentences: Of a note; None, as are those below, with fewer than two notes.
        score: Of whole notes, for the label with the highest one.
        top: What it falls by without the sentences that raise it most.
        others: What it falls by without as many at random.
        low: End of the 95 % interval of the difference; `high` is the other one.
    """

    task: str
    model: str
    notes: NonNegativeInt
    left_out: NonNegativeInt
    sentences: float | None = None
    score: float | None = None
    top: float | None = None
    others: float | None = None
    low: float | None = None
    high: float | None = None


class TrialRow(Config):
    """One trial of a search; no score where it failed, and no time but of one that finished."""

    number: NonNegativeInt
    point: dict[str, str | int | float | bool]
    score: float | None = None
    state: Literal["running", "finished", "failed"]
    seconds: float | None = None
    steps: int | None = None


class SearchRow(Config):
    """A search for the settings of a training, on validation notes.

    Attributes:
        model: The method of step 1, or the model of step 2, as its own row names it.
        task: Of step 2.
        objective: What its scores are: `perplexity` and `loss` are better when lower.
        winner: Number of the best trial; `point` are its settings.
        validation: Its score, too good because it was chosen by it.
        corrected: What the choice is worth on patients that had no part in it.
        at_ends: Keys that the winner has at an end of the space.
    """

    search: str
    model: str = ""
    task: str = ""
    objective: Literal["perplexity", "auroc", "loss"]
    space: dict[str, str]
    proposer: str
    trials: tuple[TrialRow, ...]
    winner: NonNegativeInt
    point: dict[str, str | int | float | bool]
    validation: float
    corrected: float | None
    at_ends: tuple[str, ...] = ()

    @property
    def seconds(self) -> float | None:
        """Wall time of the trials that finished, where it was recorded."""
        known = [trial.seconds for trial in self.trials if trial.seconds is not None]
        return sum(known) if known else None


class KeptState(Config):
    """Which state of a training run was kept: the one after `steps` of `all_steps` updates."""

    run: str
    steps: NonNegativeInt
    all_steps: NonNegativeInt
    why: str
    evaluations: tuple[Evaluation, ...] = ()


class Calibration(Config):
    """Calibration of a binary task, means over runs; None where a figure does not exist.

    `intercept` is fitted with the slope fixed at 1.
    """

    observed_expected: float | None
    intercept: float | None
    slope: float | None
    scaled_brier: float | None
    expected_calibration_error: float


@dataclass(frozen=True)
class MeanOfRuns:
    """How a figure of a model is made, that is a plain mean over its runs.

    Attributes:
        figure: From `(N, K)` targets and scores of a run, of the K labels with both values alone.
        needs_rare_labels: Whether it tells nothing new where all those labels are judged.
    """

    figure: Callable[[Any, Any], float]
    kinds: tuple[TaskKind, ...] = get_args(TaskKind)
    needs_rare_labels: bool = False


class ModelRow(Config):
    """One model on one task. Scores are means over its runs; intervals cover patients and runs.

    A figure with a title has a column of that name in reports, where any model has it.

    Attributes:
        runs: Numbers of its runs; one where another training would give the same model.
        is_deterministic: Whether one run is all there is.
        auroc: Macro over the judged labels; None with `reason`, and then none per run.
        auroc_all_labels: Macro over all labels with both values, where that is more than the
            judged ones; without interval, because a label of one or two patients has none.
        auroc_micro: All labels with both values of a multilabel task as one; else None.
        average_precision: Macro over the labels with both values.
        average_precision_interval: None for a multilabel task, and for rare classes: drawing their
            few positives repeatedly raises their average precision, so it would be wrong.
        brier: Binary: mean squared error; multiclass: summed over classes; multilabel: mean over
            all labels.
        standing: To the best model: `best` alone, `tied` with the best, or `worse`; None where
            it cannot be judged.
    """

    model: str
    runs: tuple[int, ...]
    is_deterministic: bool = False
    auroc: Estimate | None
    auroc_per_run: tuple[float, ...] = ()
    auroc_all_labels: Annotated[float | None, MeanOfRuns(macro_auroc, needs_rare_labels=True)] = (
        Field(default=None, title="Macro, all labels")
    )
    auroc_micro: Annotated[float | None, MeanOfRuns(micro_auroc, kinds=("multilabel",))] = Field(
        default=None, title="Micro AUROC"
    )
    average_precision: float | None = None
    average_precision_interval: tuple[float, float] | None = None
    brier: Estimate
    calibration: Calibration | None = None
    standing: Standing | None = None
    reason: str | None = None


MEANS_OF_RUNS: Final = {
    name: how
    for name, field in ModelRow.model_fields.items()
    for how in field.metadata
    if isinstance(how, MeanOfRuns)
}


class Comparison(Config):
    """AUROC of `model` minus AUROC of `against`, on the same patients.

    Attributes:
        about: What makes the two different, such as `domain adapter`.
        difference: Of the means over runs, with its interval over patients and runs.
        p_value: None where there is a `reason`, and then counted as 1.
        p_holm: Adjusted for all primary comparisons of the study; None for the others.
        family: How many those are.
        is_found: Whether a primary comparison shows a difference.
        detectable: The smallest true difference that is found in 80 % of studies like this one.
        chosen: How often each model was the best validated one, over the runs that all have.
        left_out: Models that could not be: a single run beside others with several, or a run
            without validation scores.
        reason: Why there is no difference or no p-value.
    """

    model: str
    against: str
    about: str = ""
    difference: Estimate | None = None
    p_value: float | None = None
    p_holm: float | None = None
    family: NonNegativeInt = 0
    is_found: bool = False
    detectable: float | None = None
    chosen: dict[str, int] = Field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    reason: str | None = None

    @property
    def is_same(self) -> bool:
        """Whether both models rank these patients alike, whoever is drawn."""
        found = self.difference
        return found is not None and found.value == found.low == found.high == 0


class LabelRow(Config):
    """AUROC of each model on one label, means over runs; None when the label has one class."""

    label: str
    description: str = ""
    positives: NonNegativeInt
    aurocs: dict[str, float | None]


class RocPoints(Config):
    """ROC curve of a model on a binary task, averaged over runs at equal false positive rates."""

    model: str
    false_positive_rates: tuple[float, ...]
    true_positive_rates: tuple[float, ...]


class ReliabilityPoints(Config):
    """Reliability bins of the first run of a model on a binary task."""

    model: str
    run: int
    counts: tuple[NonNegativeInt, ...]
    predicted: tuple[float, ...]
    observed: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


class TaskResult(Config):
    """All models on the test split of one task, in the order in which they were given.

    Attributes:
        notes: Rows of scores, each of what `unit` says.
        labels_judged: Those of them that intervals and comparisons are about.
        rarer_patients: Patients with the rarer value of the rarest class or label that is judged.
        why_not_judged: Why nothing is said of who is better; None where something is.
        exploratory: Further ones, of which nothing is said to be found.
    """

    task: str
    kind: TaskKind
    split: str
    notes: NonNegativeInt
    unit: Literal["notes", "stays"] = "notes"
    patients: NonNegativeInt
    labels_evaluated: NonNegativeInt
    labels_skipped: NonNegativeInt
    labels_total: NonNegativeInt
    labels_judged: NonNegativeInt
    rarer_patients: NonNegativeInt
    why_not_judged: str | None = None
    skipped_reason: str | None
    rows: tuple[ModelRow, ...]
    primary: tuple[Comparison, ...] = ()
    exploratory: tuple[Comparison, ...] = ()
    labels: tuple[LabelRow, ...] = ()
    roc: tuple[RocPoints, ...] = ()
    reliability: tuple[ReliabilityPoints, ...] = ()

    def described(self, words: Mapping[str, str]) -> Self:
        """The same with the words for its labels, as far as there are any."""
        labels = tuple(
            row.model_copy(update={"description": words.get(row.label, "")}) for row in self.labels
        )
        return self.model_copy(update={"labels": labels})


class HeadlineRow(Config):
    """Mean test AUROC of one model over the tasks; None with `reason`."""

    model: str
    tasks: tuple[str, ...]
    auroc: Estimate | None
    standing: Standing | None = None
    reason: str | None = None


class Cost(Config):
    """What one stage of one model cost."""

    model: str
    stage: str
    trainable_parameters: NonNegativeInt
    total_parameters: NonNegativeInt
    seconds: float
    tokens_per_second: float | None = None
    peak_memory_mib: float | None = None


class Results(Config):
    """A finished study. `report.json` is this value.

    Attributes:
        baselines: Models that are not language models; the summary says when one of them wins.
        hybrids: Names of the models that each hybrid joins.
        learning_curves: Points of each training run, by name.
        compat_switches: Every setting that repeats a known fault of earlier work on purpose.
        notices: Sentences that a reader must see, such as that trainings are missing.
        unsuspected: Tasks with suspect test notes, judged without these.
        suspects: How many these are, by task and by what was found.
        published: A publication whose tables the report shows with these results beside.
    """

    format: Literal[1] = 1
    title: str
    created: str
    recipe: dict[str, JsonValue] = Field(default_factory=dict)
    seeds: tuple[int, ...] = ()
    baselines: tuple[str, ...] = ("prevalence", "tf-idf")
    hybrids: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    flow: tuple[FlowCount, ...] = ()
    splits: tuple[SplitCount, ...] = ()
    methods: tuple[MethodRow, ...] = ()
    perplexity: tuple[PerplexityRow, ...] = ()
    learning_curves: dict[str, tuple[CurvePoint, ...]] = Field(default_factory=dict)
    kept: tuple[KeptState, ...] = ()
    searches: tuple[SearchRow, ...] = ()
    deletions: tuple[DeletionRow, ...] = ()
    tasks: tuple[TaskResult, ...] = ()
    listed_patients: tuple[TaskResult, ...] = ()
    unsuspected: tuple[TaskResult, ...] = ()
    suspects: dict[str, dict[str, int]] = Field(default_factory=dict)
    headline: tuple[HeadlineRow, ...] = ()
    costs: tuple[Cost, ...] = ()
    leakage: tuple[Finding, ...] = ()
    compat_switches: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()
    published: Publication | None = None
    provenance: dict[str, str] = Field(default_factory=dict)

"""How often the statistics of a report are wrong, and how often they see what is there.

Reports are simulated and go through the product's own functions. Three questions:
how often one of ten equal models is marked as worse; how often a true difference is found at the
size of the paper's test set; how often intervals over patients and runs hold the truth, and how
wide they are beside intervals whose variances were known.

Scores are binormal. A patient has 1 + Poisson(.32) notes. Two notes of a patient are alike in the
latent outcome (.3) and in the scores (.4); scores of two models of one family correlate .8, of two
families .5. Runs of a model differ in its true AUROC.

`make nightly` asks all with 1,000 reports each (16 minutes on one free core). The seed of a report
is its number, so that each can be looked at alone.
"""

import argparse
import csv
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from rows import about_this_run
from scipy.special import expit
from scipy.stats import norm

from notetune.metrics.best import standings
from notetune.metrics.bootstrap import patient_draws
from notetune.metrics.questions import Pair, answers
from notetune.metrics.scores import ScoreTable
from notetune.metrics.task_scores import TaskScores, labels_of
from notetune.metrics.uncertainty import ModelRuns

NOTES_PER_PATIENT = 1.32
OUTCOMES_ALIKE, SCORES_ALIKE = 0.3, 0.4
ALL_MODELS, OF_FAMILY = 0.5, 0.3
FAMILY_OF_COMPARISONS = 15
_OTHERS = 10**6
"""First seed of reports that only measure a spread."""
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Study:
    """What is simulated.

    Attributes:
        notes: Of the test set.
        share: Of notes with the outcome.
        aurocs: True AUROC of each model.
        families: Family of each model.
        runs: Of each model; None for models of which another training gives the same.
        run_sd: Standard deviation of a run's true AUROC.
        draws: Of patients.
    """

    notes: int
    share: float
    aurocs: tuple[float, ...]
    families: tuple[int, ...]
    runs: int | None
    run_sd: float = 0.0
    draws: int = 1_000

    def report(self, seed: int) -> TaskScores:
        """The models of one report, as the product holds them."""
        generator = np.random.default_rng(seed)
        patient_N = _patients(self.notes, generator)
        latent_N = _alike(patient_N, OUTCOMES_ALIKE, generator)
        targets_N1 = (latent_N > norm.ppf(1 - self.share)).astype(np.int8)[:, None]
        patient_ids_N, note_ids_N = patient_N.astype(str), np.arange(self.notes).astype(str)
        tables = {
            model: [
                ScoreTable(
                    *("outcome", "binary", model, run, "test", ("yes",)),
                    *(note_ids_N, patient_ids_N, targets_N1, scores_N[:, None]),
                )
                for run, scores_N in enumerate(of_model)
            ]
            for model, of_model in self._scores(patient_N, targets_N1[:, 0], generator)
        }
        about = {model: ModelRuns(model, is_deterministic=self.runs is None) for model in tables}
        draws = patient_draws(patient_ids_N, self.draws, seed)
        first = next(iter(tables.values()))[0]
        return TaskScores(tables, about, draws.counts_of(patient_ids_N), labels_of(first))

    def _scores(
        self,
        patient_N: npt.NDArray[np.int64],
        target_N: npt.NDArray[np.int8],
        generator: np.random.Generator,
    ) -> Iterator[tuple[str, list[FloatArray]]]:
        """Each model's name and the scores of its runs."""
        common_N = _alike(patient_N, SCORES_ALIKE, generator)
        of_family = {
            family: _alike(patient_N, SCORES_ALIKE, generator)
            for family in sorted(set(self.families))
        }
        for number, (auroc, family) in enumerate(zip(self.aurocs, self.families, strict=True)):
            own_N = _alike(patient_N, SCORES_ALIKE, generator)
            noise_N = math.sqrt(ALL_MODELS) * common_N + math.sqrt(OF_FAMILY) * of_family[family]
            noise_N += math.sqrt(1 - ALL_MODELS - OF_FAMILY) * own_N
            aurocs = auroc + self.run_sd * generator.standard_normal(self.runs or 1)
            distances = math.sqrt(2) * norm.ppf(aurocs.clip(0.01, 0.99))
            yield f"model-{number}", [expit(noise_N + d * target_N) for d in distances]


def marked_as_worse(study: Study, seed: int) -> bool:
    """Whether a report marks at least one model as worse than the best."""
    scores = study.report(seed)
    places = standings(list(scores.aurocs.values()), scores.labels.rarer - 1, seed)
    return "worse" in places


def found(study: Study, seed: int) -> bool:
    """Whether a report finds the difference of its two models, beside 14 that show nothing."""
    pairs = [Pair("model-1", "model-0")]
    pairs += [Pair("model-1", "model-0", "not run")] * (FAMILY_OF_COMPARISONS - 1)
    family = answers(pairs, {"outcome": study.report(seed)}, {}, ["outcome"])
    return family[0][1].is_found


def first_interval(study: Study, seed: int) -> tuple[float, float, float]:
    """AUROC of the first model, and its interval."""
    estimate = study.report(seed).auroc_interval("model-0")
    return estimate.value, estimate.low, estimate.high


def spread_over_patients(study: Study, reports: int) -> float:
    """Standard deviation of the first model's AUROC over test sets."""
    alone = replace(study, runs=None, run_sd=0.0, draws=2, aurocs=study.aurocs[:1], families=(0,))
    values = [alone.report(_OTHERS + n).aurocs["model-0"].per_run[0] for n in range(reports)]
    return float(np.std(values, ddof=1))


def _patients(notes: int, generator: np.random.Generator) -> npt.NDArray[np.int64]:
    """`(N,)`: the patient of each note."""
    of_patient = 1 + generator.poisson(NOTES_PER_PATIENT - 1, notes)
    return np.repeat(np.arange(notes), of_patient)[:notes]


def _alike(
    patient_N: npt.NDArray[np.int64], share: float, generator: np.random.Generator
) -> FloatArray:
    """`(N,)` normal; two notes of a patient correlate by the share."""
    of_patient = generator.standard_normal(patient_N[-1] + 1)[patient_N]
    own = generator.standard_normal(len(patient_N))
    alike: FloatArray = math.sqrt(share) * of_patient + math.sqrt(1 - share) * own
    return alike


@dataclass(frozen=True)
class Row:
    """One figure, and what is demanded of it."""

    question: str
    case: str
    figure: float
    demanded: str
    reports: int
    draws: int


def _described(study: Study) -> str:
    runs = "one run is all there is" if study.runs is None else f"{study.runs} runs"
    spread = f", SD of runs {study.run_sd:.4f}" if study.run_sd else ""
    return f"{study.notes} notes, {study.share:.0%} positive, {runs}{spread}"


def _equal_models(reports: int, notes: tuple[int, ...]) -> Iterator[Row]:
    for size in notes:
        study = Study(size, 0.1, (0.8,) * 10, (0,) * 5 + (1,) * 5, None)
        with_runs = replace(study, runs=3, run_sd=spread_over_patients(study, reports))
        for one in (study, with_runs):
            share = np.mean([marked_as_worse(one, seed) for seed in range(reports)])
            yield Row(
                *("ten equal models, one is marked as worse", _described(one), float(share)),
                *("at most 0.065", reports, one.draws),
            )


def _true_difference(reports: int, notes: tuple[int, ...]) -> Iterator[Row]:
    for size in notes:
        study = Study(size, 0.1, (0.8, 0.83), (0, 0), 5, 0.004, draws=500)
        share = np.mean([found(study, seed) for seed in range(reports)])
        yield Row(
            "a true difference of .03 in a family of models is found, Holm over 15",
            *(_described(study), float(share), "at least 0.9", reports, study.draws),
        )


def _intervals(reports: int, notes: tuple[int, ...]) -> Iterator[Row]:
    for size in notes:
        for auroc in (0.75, 0.85):
            alone = Study(size, 0.1, (auroc,), (0,), 3)
            run_sd = spread_over_patients(alone, reports)
            for runs in (3, 5):
                study = replace(alone, runs=runs, run_sd=run_sd)
                values = np.array([first_interval(study, seed) for seed in range(reports)])
                covered = np.mean((values[:, 1] <= auroc) & (auroc <= values[:, 2]))
                known = 2 * norm.ppf(0.975) * values[:, 0].std(ddof=1)
                width = np.mean(values[:, 2] - values[:, 1]) / known
                case = f"AUROC {auroc}, {_described(study)}"
                about = (reports, study.draws)
                yield Row("interval covers", case, float(covered), "at least 0.93", *about)
                yield Row("width beside known variances", case, float(width), "at most 1.2", *about)


QUESTIONS: dict[str, tuple[Callable[[int, tuple[int, ...]], Iterator[Row]], tuple[int, ...]]] = {
    "equal": (_equal_models, (600, 3_000)),
    "difference": (_true_difference, (9_822,)),
    "intervals": (_intervals, (500, 3_000)),
}


def meets(row: Row) -> bool:
    """Whether a figure is what is demanded."""
    kind, _, limit = row.demanded.rpartition(" ")
    return row.figure <= float(limit) if kind == "at most" else row.figure >= float(limit)


def main() -> None:
    """Ask the questions, write the rows, and fail if a figure is not what is demanded."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--reports", type=int, default=1_000)
    parser.add_argument("--only", choices=QUESTIONS)
    parser.add_argument("--notes", type=int, nargs="+", help="other sizes of the test set")
    parser.add_argument("--output", type=Path, default=Path("bench/results/error_rates.csv"))
    options = parser.parse_args()
    rows = []
    for name, (ask, notes) in QUESTIONS.items():
        if options.only in (None, name):
            for row in ask(options.reports, tuple(options.notes or notes)):
                print(
                    f"{row.question} | {row.case} | {row.figure:.3f} | {row.demanded}", flush=True
                )
                rows.append(row)
    about = about_this_run()
    options.output.parent.mkdir(parents=True, exist_ok=True)
    with options.output.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow((*Row.__dataclass_fields__, *about))
        writer.writerows((*vars(row).values(), *about.values()) for row in rows)
    failed = [row.case for row in rows if not meets(row)]
    sys.exit(f"not as demanded: {failed}" if failed else 0)


if __name__ == "__main__":
    main()

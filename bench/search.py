"""Does a Gaussian process find better settings than random draws, in as many trials?

    python bench/search.py recipes/eicu.yaml --only tiny tune.share=0.25
    python bench/search.py recipes/eicu.yaml --only tiny name=other --questions icd9 --repeats 2

Searches step 1 and the task adapter of each task by both, once with every seed. A search writes its
rows at its end and is not made again where it has them, so what several processes did adds up, each
under a `name` and with questions of its own; until then its trials stay in the run folder. Keys
that change what is found need another `--results`.
"""

import argparse
import csv
import math
from collections import defaultdict
from itertools import product
from pathlib import Path
from statistics import median

from rows import Rows

from notetune import config
from notetune.cli import terminal
from notetune.metrics.results import SearchRow
from notetune.recipe.recipe import Recipe
from notetune.study import search
from notetune.study.run import work

RESULTS = Path(__file__).parent / "results" / "search.csv"
STEP_1, VARIANT = "step 1", "task-lora"
PROPOSERS = ("random", "gp")
COUNTS = (5, 10, 15, 20)


def overrides(question: str, proposer: str, seed: int) -> list[str]:
    """The keys that make a recipe search for one answer and nothing else."""
    tasks = [] if question == STEP_1 else [f"downstream.tasks=[{question}]"]
    space = {"pretrain": question == STEP_1, "downstream": question != STEP_1}
    return [
        *tasks,
        f"downstream.variants=[{VARIANT}]",
        "encoders.models={}",
        "evaluate.primary=null",
        "evaluate.hybrid=null",
        f"tune.proposer={proposer}",
        f"tune.seed={seed}",
        f"tune.trials={COUNTS[-1]}",
        *(f"tune.{section}={'default' if is_on else 'null'}" for section, is_on in space.items()),
    ]


def searched(options: argparse.Namespace, question: str, proposer: str, seed: int) -> SearchRow:
    """Run one search to its end."""
    changed = [*options.overrides, *overrides(question, proposer, seed)]
    if options.data:
        changed.append(f"data={options.data}")
    recipe = config.load(Recipe, options.recipe, changed)
    one = recipe.only(options.only) if options.only else recipe
    jobs = work(one, terminal.track, lambda job: job.stage == "search")
    (found,) = (job for job in jobs if job.stage == "search")
    return search.read(found)


def best_so_far(row: SearchRow, trials: int) -> float:
    """The best validation score among the first trials."""
    scores = [t.score for t in row.trials[:trials] if t.score is not None]
    best = min if row.objective == "perplexity" else max
    return best(scores, default=math.nan)


def write(rows: Rows, question: str, proposer: str, seed: int, found: SearchRow) -> None:
    """What a search had found after so many trials."""
    unit = found.objective if question == STEP_1 else f"validation {found.objective}"
    for count in COUNTS:
        best = best_so_far(found, count)
        rows.add(f"best of {count} trials, {question}", proposer, seed, [best], unit)


def written(path: Path) -> dict[tuple[str, str], dict[int, float]]:
    """The values of each seed, by question and proposer."""
    values: dict[tuple[str, str], dict[int, float]] = defaultdict(dict)
    if path.exists():
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                values[row["question"], row["variant"]][int(row["x"])] = float(row["p50"])
    return values


def main() -> None:
    """Search and write the rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe", type=Path)
    parser.add_argument("overrides", nargs="*", help="keys of the recipe, as in notetune study run")
    parser.add_argument("--only", help="the backbone, where the recipe has several")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--questions", nargs="+", default=[STEP_1, "length_of_stay", "icd9"])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_intermixed_args()
    rows = Rows(options.results)
    for seed, question, proposer in product(range(options.repeats), options.questions, PROPOSERS):
        last = (f"best of {COUNTS[-1]} trials, {question}", proposer)
        if seed not in written(options.results)[last]:
            write(rows, question, proposer, seed, searched(options, question, proposer, seed))
    for (question, proposer), values in sorted(written(options.results).items()):
        print(f"{question} | {proposer} | {median(values.values()):.4g}, median of {len(values)}")


if __name__ == "__main__":
    main()

"""Task adapters in the topmost layers, on kept states, beside cold runs of all layers.

    python bench/upper_layers.py recipes/codiesp.yaml --only smollm2 downstream.tasks=[diagnoses]

Both train through the product, on the same prepared notes. A cold run of all layers has a run
folder of its own, so it computes what its head starts from. The trials in the topmost layers share
a run folder: the first computes features and states for all, the others are further seeds. Of 20
of each a few are run, and the median stands for the others.
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, median

from rows import Rows, timed

from notetune import config
from notetune.cli import terminal
from notetune.metrics.ranking import macro_auroc
from notetune.metrics.scores import read_scores
from notetune.recipe.recipe import Recipe
from notetune.study.run import prepare_notes, work

RESULTS = Path(__file__).parent / "results" / "upper_layers.csv"
VARIANT = "task-lora"
COUNT = 20
ALONE = ("encoders.models={}", "evaluate.primary=null", "evaluate.hybrid=null")


def trained(
    options: argparse.Namespace, seed: int, keys: Sequence[str], layers: str = "null"
) -> tuple[float, float]:
    """Seconds of one training with all that it lacks, and its macro AUROC on the test notes."""
    within = f"backbones.{options.only}." if options.only else ""
    own = (
        f"downstream.variants=[{VARIANT}]",
        f"seeds={seed + 1}",
        f"downstream.adapter.layers={layers}",
    )
    changed = [*options.overrides, *ALONE, *keys, *(f"{within}{key}" for key in own)]
    recipe = config.load(Recipe, options.recipe, changed)
    one = recipe.only(options.only) if options.only else recipe
    seconds, jobs = timed(
        lambda: work(one, terminal.track, lambda job: job.stage == "model" and job.seed == seed)
    )
    (job,) = (job for job in jobs if job.stage == "model" and job.seed == seed)
    table = read_scores(job.folder / "test.parquet")
    is_judged_K = (table.targets_NK.sum(0) > 2) & ((1 - table.targets_NK).sum(0) > 2)
    return seconds, macro_auroc(table.targets_NK[:, is_judged_K], table.scores_NK[:, is_judged_K])


def write(
    rows: Rows,
    layers: str,
    name: str,
    whole: Sequence[tuple[float, float]],
    upper: Sequence[tuple[float, float]],
) -> None:
    """Seconds, their ratio and AUROCs of cold runs of all layers and of trials in the upper."""
    cold, (first, *further) = [seconds for seconds, _ in whole], [seconds for seconds, _ in upper]
    in_all = first + (COUNT - 1) * median(further)
    rows.add("a training with all it lacks", "all layers, cold", name, cold, "s")
    rows.add("a training with all it lacks", f"{layers}, first", name, [first], "s")
    rows.add("a training with all it lacks", f"{layers}, further", name, further, "s")
    ratio = COUNT * median(cold) / in_all
    question = f"{COUNT} cold runs of all layers by {COUNT} trials"
    rows.add(question, layers, name, [ratio], "times")
    for which, found in (("all layers", whole), (layers, upper)):
        rows.add("test AUROC", which, name, [fmean(auroc for _, auroc in found)], "macro AUROC")


def main() -> None:
    """Train, and write the rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe", type=Path)
    parser.add_argument("overrides", nargs="*", help="keys of the recipe, as in notetune study run")
    parser.add_argument("--only", help="the backbone, where the recipe has several")
    parser.add_argument("--layers", default="top quarter")
    parser.add_argument("--cold-runs", type=int, default=1)
    parser.add_argument("--trials", type=int, default=3, help="the first computes what all share")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_intermixed_args()
    if options.trials < 2 or options.cold_runs < 1:
        parser.error("a cold run and two trials are the fewest")
    with tempfile.TemporaryDirectory() as folder:
        recipe = config.load(Recipe, options.recipe, [*options.overrides, f"runs={folder}/notes"])
        one = recipe.only(options.only) if options.only else recipe
        if len(prepare_notes(one).prepared.tasks) != 1:
            parser.error("name one task: downstream.tasks=[TASK]")
        kept = f"prepared={one.folder.prepared}"
        whole = [
            trained(options, seed, [f"runs={folder}/cold-{seed}", kept])
            for seed in range(options.cold_runs)
        ]
        upper = [
            trained(options, seed, [f"runs={folder}/upper", kept], options.layers)
            for seed in range(options.trials)
        ]
    name = f"{options.recipe.stem} · {one.name}"
    write(Rows(options.results), options.layers, name, whole, upper)


if __name__ == "__main__":
    main()

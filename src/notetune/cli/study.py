"""The commands of whole studies."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from notetune import ownership, storage
from notetune.cli import dry_runs, load, terminal, terminal_tables
from notetune.cli.options import AsJson, DataFolder, DryRun, Only, Overrides, RayAddress, RecipePath
from notetune.cli.ray_cluster import work_on_cluster
from notetune.cli.workers import beside, slurm_script
from notetune.errors import ConfigError
from notetune.ownership import refuse_existing
from notetune.progress import in_one_step

if TYPE_CHECKING:
    from notetune.recipe.recipe import Recipe

app = typer.Typer(help="A whole study from one recipe.", no_args_is_help=True)
launch_app = typer.Typer(help="Scripts that put workers on a cluster.", no_args_is_help=True)
app.add_typer(launch_app, name="launch")


@app.command("run")
def study_run(
    recipe: RecipePath,
    overrides: Overrides = None,
    data: DataFolder = None,
    only: Only = None,
    dry_run: DryRun = False,
    show: Annotated[
        Literal["costs", "recipe"],
        typer.Option(help="With --dry-run: what it would cost, or all keys of the recipe as read."),
    ] = "costs",
    gpu: Annotated[
        str | None,
        typer.Option(
            "--gpu", help="With --dry-run: estimate for this GPU, such as h100, not the recipe's."
        ),
    ] = None,
    workers: Annotated[
        int, typer.Option(min=1, help="Processes on this machine, which divide its cores and GPUs.")
    ] = 1,
    ray: RayAddress = None,
    as_json: AsJson = False,
) -> None:
    """Run every stage of a recipe that is not done yet, and write the report."""
    loaded = load.study(recipe, overrides, data, only)
    if not dry_run and (gpu or show != "costs"):
        raise ConfigError("--gpu and --show go with --dry-run: they say what would be run.")
    if gpu and show != "costs":
        raise ConfigError("--gpu goes with the costs of a dry run; leave --show out.")
    if ray and workers > 1:
        raise ConfigError("--ray goes without --workers: as many run as the cluster has room for.")
    if dry_run and (ray or workers > 1):
        raise ConfigError("--ray and --workers go without --dry-run, which runs nothing.")
    if dry_run and show == "recipe":
        return terminal_tables.recipe(loaded, as_json=as_json)
    if dry_run:
        return dry_runs.show(loaded, gpu or loaded.gpu, as_json=as_json)
    command = load.worker_command(recipe, overrides, data, only)
    run_and_report(loaded, command, workers, ray, as_json=as_json)
    return None


@app.command("work")
def study_work(
    recipe: RecipePath,
    overrides: Overrides = None,
    data: DataFolder = None,
    only: Only = None,
) -> None:
    """Make what is not made of a study, beside any number of others that do; no report."""
    loaded = load.study(recipe, overrides, data, only)
    with terminal.busy():
        from notetune.study.run import work

    jobs = work(loaded, terminal.track)
    made = sum(job.is_made() for job in jobs)
    typer.echo(f"{loaded.folder.root}: {made} of {len(jobs)} jobs are made")


@launch_app.command("slurm")
def launch_slurm(
    recipe: RecipePath,
    overrides: Overrides = None,
    data: DataFolder = None,
    only: Only = None,
    tasks: Annotated[int, typer.Option(min=1, help="Workers.")] = 4,
    gpus: Annotated[int, typer.Option(min=0, help="GPUs of each worker.")] = 1,
    sbatch: Annotated[
        list[str] | None, typer.Option(help="An option of sbatch, such as --partition=gpu.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A new file; default: stdout.")
    ] = None,
) -> None:
    """Write a Slurm script whose tasks work on a study; submit it with `sbatch`."""
    loaded = load.study(recipe, overrides, data, only)
    if output:
        refuse_existing(output)
    command = load.worker_command(recipe, overrides, data, only)
    script = slurm_script(loaded, command, tasks, gpus, sbatch or [])
    if output:
        storage.write_text(output, script, replaces=False)
    else:
        typer.echo(script, nl=False)


@app.command("status")
def study_status(
    recipe: RecipePath,
    overrides: Overrides = None,
    data: DataFolder = None,
    only: Only = None,
    as_json: AsJson = False,
) -> None:
    """Say what of a recipe is done, who works on what, what failed and why, and the time left."""
    loaded = load.study(recipe, overrides, data, only)
    with terminal.busy("looking at what is made"):
        from notetune.study.status import progress

        found = progress(loaded)
    terminal_tables.progress(found, as_json=as_json)


def run_and_report(
    recipe: "Recipe",
    command: Sequence[str] = (),
    workers: int = 1,
    ray: str | None = None,
    *,
    as_json: bool,
) -> None:
    """Run a study with so many workers on this machine, or on a cluster, and write its report."""
    with terminal.busy():
        from notetune.study.run import work

    refuse_unready(recipe)
    if ray:
        work_on_cluster(recipe, command, ray)
    with beside(recipe, command, workers):
        work(recipe, terminal.track)
    report(recipe, as_json=as_json)


def refuse_unready(recipe: "Recipe") -> None:
    """Refuse a study that no report could be written of, before anything is trained."""
    with terminal.busy():
        from notetune.study import evaluate

    ownership.refuse_foreign(recipe.folder.report)
    evaluate.refuse_unready(recipe)


def report(recipe: "Recipe", *, as_json: bool) -> None:
    """Estimate the scores of a study whose jobs are made, and write and show its report."""
    with terminal.busy():
        from notetune.report.page import write_report
        from notetune.study.run import evaluated

    results, folder = evaluated(recipe, terminal.track), recipe.folder.report
    in_one_step(terminal.track, "report", partial(write_report, results, folder))
    terminal_tables.results(results, folder, as_json=as_json)

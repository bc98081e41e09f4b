"""The commands. Heavy libraries load inside a command, so that `--help` is instant."""

import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from notetune import __version__, runs, storage
from notetune.cli import bundles, dry_runs, load, options, study, terminal, terminal_tables
from notetune.errors import ConfigError, NotetuneError, Stopped
from notetune.progress import silent

app = typer.Typer(
    help="Adapt a language model to clinical notes, and measure honestly what that brings.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(study.app, name="study")

_INTERRUPTED = 130  # what typer returns after Ctrl-C
_BY_SIGNAL = 128  # added to the number of a signal, as a shell does


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point: 0 when done, 2 to mend a fault, 130, 141, 143 by a signal, 1 for a bug."""
    runs.make_files_private()
    terminal.show_warnings()
    sys.exit(_run(arguments))


def _run(arguments: Sequence[str] | None) -> int:
    """Run a command to its exit code, and show its error if it has one."""
    try:
        with terminal.sigterm_raised():
            code = app(arguments, standalone_mode=False, prog_name="notetune") or 0
            terminal.finish()
    except (SystemExit, BrokenPipeError) as error:  # as typer and rich leave in `| head`
        if terminal.nobody_reads():
            return _BY_SIGNAL + signal.SIGPIPE
        terminal.report_bug(error)
        return 1
    except NotetuneError as error:
        terminal.fail(str(error))
        return 2
    except Stopped as error:
        terminal.fail(f"{error} The same command goes on from there.")
        return _BY_SIGNAL + error.signal
    except typer.TyperException as error:  # a wrong word on the command line
        said = error.format_message()
        terminal.fail(f"{said}{'' if said.endswith(('.', '?')) else '.'} See `notetune --help`.")
        return 2
    except Exception as error:  # noqa: BLE001 (its text could hold a note)
        if fault := storage.fault_of(error):
            terminal.fail(fault)
            return 2
        terminal.report_bug(error)
        return 1
    if code == _INTERRUPTED:
        terminal.fail("stopped. The same command run again goes on from what is saved.")
    return code


def _print_version(wanted: bool) -> None:  # noqa: FBT001 (typer calls it)
    if wanted:
        typer.echo(f"notetune {__version__}")
        raise typer.Exit


@app.callback()
def about(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print it."),
    ] = False,
) -> None:
    """Options of notetune itself."""


@app.command()
def demo(
    folder: Annotated[Path, typer.Option(help="Where the demo writes.")] = Path("runs/demo"),
    patients: Annotated[int, typer.Option(min=50, help="Patients of the hospital.")] = 600,
) -> None:
    """Make a synthetic hospital, run both steps on it, and write a report (about 5 minutes)."""
    from notetune.cli.demo import demo_recipe, introduction

    terminal.tell(introduction(patients))
    study.run_and_report(demo_recipe(folder, patients), as_json=False)
    terminal.tell("Look at the report, then try `notetune study run` on your own notes.")


@app.command()
def init(
    notes: Annotated[Path, typer.Argument(help="CSV, CSV.GZ, JSONL or Parquet, a row per note.")],
    text: Annotated[str | None, typer.Option(help="Column with the note text.")] = None,
    patient_id: Annotated[str | None, typer.Option(help="Column with the patient id.")] = None,
    note_id: Annotated[str | None, typer.Option(help="Column with the note id.")] = None,
    time: Annotated[str | None, typer.Option(help="Column with the time of the note.")] = None,
    stay_id: options.StayId = None,
    outcome: Annotated[
        list[str] | None,
        typer.Option(help="Column to predict, or COLUMN=binary, multiclass or multilabel."),
    ] = None,
    feature: Annotated[list[str] | None, typer.Option(help="Column beside the text.")] = None,
    codes: options.CodesTable = None,
    codes_id: options.CodesId = None,
    code_column: options.CodeColumn = None,
    codes_version: options.CodesVersion = None,
    backbone: Annotated[str, typer.Option(help="Folder of a model, or tiny.")] = "tiny",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A new recipe; default: NOTES.yaml here.")
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Look at a table of notes, show what its columns are, and write a recipe that runs."""
    from notetune.cli import start

    ids = {"patient_id": patient_id, "note_id": note_id, "stay_id": stay_id}
    columns = start.choices({**ids, "text": text, "time": time}, outcome or [], feature or [])
    with terminal.busy("reading the table"):
        beside = start.codes_beside(codes, codes_id, code_column, codes_version)
        seen, drafted, path = start.write_draft(notes, columns, backbone, output, beside)
    terminal_tables.drafted(seen, drafted, path, beside, as_json=as_json)


@app.command()
def recipes(
    name: Annotated[str, typer.Argument(help="One of them, to copy.")] = "",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A new file; default: stdout.")
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """List the recipes that come with notetune, or copy one."""
    from notetune.cli import start

    if not name:
        return terminal_tables.shipped(start.shipped(), as_json=as_json)
    copied = start.read_shipped(name)
    if as_json:
        raise ConfigError(f"--json goes with the list of recipes; {name} is YAML.")
    if output:
        storage.write_text(output, copied, replaces=False)
    else:
        typer.echo(copied, nl=False)
    return None


@app.command()
def prepare(
    recipe: options.RecipePath,
    overrides: options.Overrides = None,
    data: options.DataFolder = None,
    only: options.Only = None,
    check: Annotated[
        bool, typer.Option("--check", help="Show the counts beside the published ones.")
    ] = False,
    as_json: options.AsJson = False,
) -> None:
    """Notes to splits, labels and tokens."""
    loaded = load.one(recipe, overrides, data, only)
    with terminal.busy():
        from notetune.prepare.build import compare_with_published
        from notetune.study.run import prepare_notes

    notes = prepare_notes(loaded, terminal.track)
    both = [notes.prepared] if notes.corpus is notes.prepared else [notes.prepared, notes.corpus]
    found = [(one, compare_with_published(one) if check else ()) for one in both]
    terminal_tables.prepared(found, as_json=as_json)


@app.command()
def pretrain(
    recipe: options.RecipePath,
    overrides: options.Overrides = None,
    data: options.DataFolder = None,
    only: options.Only = None,
    as_json: options.AsJson = False,
) -> None:
    """Step 1: train a domain adapter on packed notes, and the methods to compare it with."""
    loaded = load.one(recipe, overrides, data, only)
    is_left_out = not loaded.has_step_1
    if is_left_out:
        always = loaded.pretrain.model_copy(update={"always": True})
        loaded = loaded.model_copy(update={"pretrain": always})
    with terminal.busy():
        from notetune.study.evaluate import methods, perplexities
        from notetune.study.run import is_of_step_1, work
        from notetune.train import processes

    with processes.joined():
        is_first = processes.is_first()
        jobs = work(loaded, terminal.track if is_first else silent, is_of_step_1)
    if is_first:
        rows = methods(jobs), perplexities(jobs)
        terminal_tables.pretrained(*rows, loaded.folder.domain(0), as_json=as_json)
    if is_first and is_left_out and not as_json:
        terminal.tell("No variant of the study stands on it; pretrain.always=true has it reported.")


@app.command()
def tune(
    recipe: options.RecipePath,
    overrides: options.Overrides = None,
    data: options.DataFolder = None,
    only: options.Only = None,
    as_json: options.AsJson = False,
) -> None:
    """Search for the settings that `tune` of the recipe leaves open, on validation notes alone."""
    loaded = load.study(recipe, overrides, data, only)
    if not any(one.tune.is_on for one in loaded.studies.values()):
        raise ConfigError(
            "the recipe has no `tune`; add one, such as `tune: {pretrain: default}`. `notetune "
            "keys tune` says more."
        )
    with terminal.busy():
        from notetune.study import search
        from notetune.study.run import is_of_searches, work

    jobs = work(loaded, terminal.track, is_of_searches)
    found = [search.read(job) for job in jobs if job.stage == "search"]
    if not found:
        raise ConfigError(
            "tune: nothing was searched, since nothing but heads trains in the step that it names; "
            "change downstream.variants, or name tune.pretrain."
        )
    terminal_tables.searches(found, as_json=as_json)


@app.command()
def downstream(
    recipe: options.RecipePath,
    overrides: options.Overrides = None,
    data: options.DataFolder = None,
    only: options.Only = None,
    as_json: options.AsJson = False,
) -> None:
    """Step 2: train task adapters and heads into bundles (step 1 first where it is missing)."""
    loaded = load.one(recipe, overrides, data, only)
    with terminal.busy():
        from notetune.study.run import work
        from notetune.study.status import progress

    work(loaded, terminal.track)
    terminal_tables.progress(progress(loaded), as_json=as_json)


@app.command()
def evaluate(
    recipe: options.RecipePath,
    overrides: options.Overrides = None,
    data: options.DataFolder = None,
    only: options.Only = None,
    as_json: options.AsJson = False,
) -> None:
    """Estimate the scores of everything that is trained, and write the report."""
    loaded = load.study(recipe, overrides, data, only)
    study.refuse_unready(loaded)
    study.report(loaded, as_json=as_json)


for _command in (bundles.predict, bundles.merge, bundles.convert):
    app.command()(_command)


@app.command()
def synthesize(
    folder: Annotated[
        Path, typer.Argument(help="Folder to write; an earlier hospital there is replaced.")
    ],
    patients: Annotated[int, typer.Option(min=10)] = 400,
    seed: Annotated[int, typer.Option()] = 0,
    signal: Annotated[float, typer.Option(help="How much the text tells; 0 is nothing.")] = 1.0,
) -> None:
    """Write a synthetic hospital in the shapes of MIMIC-III and MIMIC-IV, with its ground truth."""
    from notetune.config import parse
    from notetune.hospital.hospital import SyntheticConfig, write_hospital

    keys = {"patients": patients, "seed": seed, "signal": signal}
    hospital = parse(SyntheticConfig, keys, "synthesize")
    with terminal.busy("writing the hospital"):
        write_hospital(folder, hospital)
    typer.echo(f"{folder}: {patients} patients (mimic3/, mimic4/, truth/)")


@app.command()
def inspect(
    recipe: options.RecipePath,
    overrides: options.Overrides = None,
    data: options.DataFolder = None,
    only: options.Only = None,
    as_json: options.AsJson = False,
) -> None:
    """Parameters, memory and time of a million tokens, from the backbone's config.json alone."""
    loaded = load.one(recipe, overrides, data, only)
    with terminal.busy():
        from notetune.study.costs import costs_of_a_million

    dry_runs.tell(loaded, costs_of_a_million(loaded, terminal.track), as_json=as_json)


@app.command()
def keys(
    section: Annotated[str, typer.Argument(help="Those of one section, such as downstream.")] = "",
    as_json: options.AsJson = False,
) -> None:
    """List the keys of a recipe with their defaults and what they are for."""
    with terminal.busy("listing the keys"):
        from notetune.cli.keys import keys as keys_of
        from notetune.cli.keys import within
        from notetune.recipe.recipe import Recipe

        found = within(keys_of(Recipe), section)
    terminal_tables.keys(found, as_json=as_json)

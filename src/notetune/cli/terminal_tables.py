"""Results of the workflows as tables, or as JSON."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from notetune.cli import terminal
from notetune.config import as_yaml

if TYPE_CHECKING:
    from notetune.cli.keys import Key
    from notetune.metrics.results import MethodRow, PerplexityRow, Results, SearchRow
    from notetune.prepare.prepared import Prepared
    from notetune.recipe.draft import Draft
    from notetune.recipe.draft_codes import Codes
    from notetune.recipe.recipe import Recipe
    from notetune.sources.mimic.published import PublishedFigure
    from notetune.sources.tables.survey import Survey
    from notetune.study.status import Progress

_DIGITS_OF_A_HASH = 16
_KEYS_NAMED = 4


def drafted(
    seen: "Survey", draft: "Draft", path: Path, codes: "Codes | None", *, as_json: bool
) -> None:
    """What the columns of the tables hold and became, what to check, and what to do next."""
    if as_json:
        keys = {"recipe": path, "rows": seen.rows, "keys": draft.keys, "remarks": draft.remarks}
        return terminal.show_json(keys)
    _columns("The columns", seen, draft.uses)
    if codes:
        _columns(f"Those of {codes.path.name}", codes.seen, draft.beside)
    for remark in draft.remarks:
        terminal.tell(f"Check: {remark}")
    terminal.tell(
        f"Wrote {path}. Mend in it what was guessed wrong, then:\n"
        f"  notetune study run {path} --dry-run    # what it takes\n"
        f"  notetune study run {path}"
    )
    return None


def _columns(what: str, seen: "Survey", uses: Mapping[str, str]) -> None:
    rows = []
    for column in seen.columns:
        empty = 1 - column.filled / max(1, seen.rows)
        rows.append((column.name, column.holds, f"{empty:.0%}", uses.get(column.name, "not used")))
    title = f"{what} by the first {seen.rows:,} rows"
    terminal.show_table(title, ("column", "holds", "empty", "becomes"), rows, lefts=4)


def shipped(found: Mapping[str, str], *, as_json: bool) -> None:
    """The recipes that come with notetune, with what each is."""
    if as_json:
        return terminal.show_json(found)
    terminal.show_table("Recipes", ("name", "what it is"), list(found.items()), lefts=2)
    return None


def prepared(
    found: "Sequence[tuple[Prepared, Sequence[PublishedFigure]]]", *, as_json: bool
) -> None:
    """Rows read and kept per stage, the leak checks, and the published figures if asked for.

    Of the notes of the tasks, and then of those of step 1 where they are others.
    """
    if as_json:
        first, *others = (
            {"folder": p.folder, "flow": p.flow, "findings": p.findings, "published": comparisons}
            for p, comparisons in found
        )
        of_corpus = {"corpus": others[0]} if others else {}
        return terminal.show_json({**first, **of_corpus})
    for one, comparisons in found:
        _prepared(one, comparisons)
    return None


def _prepared(prepared: "Prepared", comparisons: "Sequence[PublishedFigure]") -> None:
    from notetune.report import tables

    terminal.show_report_table(tables.flow_table(prepared.flow))
    for notice in prepared.notices:
        terminal.tell(f"Note: {notice}")
    terminal.tell("Leak checks: " + "; ".join(f.sentence for f in prepared.findings))
    if comparisons:
        _published(comparisons)
    terminal.tell(f"{prepared.folder}: {len(prepared.store.ids):,} tokens")


def _published(comparisons: "Sequence[PublishedFigure]") -> None:
    """Our figures beside the published ones, and what usually explains each difference."""
    rows = [
        (row.what, _short(row.ours), _short(row.published), "agrees" if row.agrees else "differs")
        for row in comparisons
    ]
    title = "Beside the published figures"
    terminal.show_table(title, ("figure", "ours", "published", ""), rows)
    agreeing = sum(row.agrees for row in comparisons)
    terminal.tell(f"{agreeing} of {len(comparisons)} figures agree.")
    for explanation in dict.fromkeys(row.explanation for row in comparisons if not row.agrees):
        figures = [row.what for row in comparisons if row.explanation == explanation]
        terminal.tell(f"- {', '.join(figures)}: usually {explanation}.")


def pretrained(
    methods: Sequence["MethodRow"],
    perplexity: Sequence["PerplexityRow"],
    folder: Path,
    *,
    as_json: bool,
) -> None:
    """The methods of step 1 side by side, and perplexity by source."""
    if as_json:
        return terminal.show_json({"folder": folder, "methods": methods, "perplexity": perplexity})
    from notetune.report import adaptation

    terminal.show_report_table(adaptation.perplexity_table(perplexity))
    terminal.show_report_table(adaptation.methods_table(methods))
    terminal.tell(f"Domain adapter: {folder}")
    return None


def searches(found: Sequence["SearchRow"], *, as_json: bool) -> None:
    """What each search found."""
    if as_json:
        return terminal.show_json(found)
    from notetune.report.searches import searches_table

    terminal.show_report_table(searches_table(found))
    return None


def results(results: "Results", folder: Path, *, as_json: bool) -> None:
    """Step 1, AUROC of each model and task, the primary comparisons in words, and the report."""
    from notetune.report import adaptation, summary, tables

    if as_json:
        return terminal.show_json(results)
    if results.methods:
        terminal.show_report_table(adaptation.methods_table(results.methods))
    if results.tasks:
        terminal.show_report_table(tables.headline_table(results))
    for said in summary.summary(results):
        if said.about in summary.ASKED.values():
            terminal.tell("\n  ".join((said.about, *said.sentences)))
    for notice in results.notices:
        terminal.tell(f"Note: {notice}")
    terminal.tell(f"Report: {folder / 'report.html'}")
    return None


def recipe(recipe: "Recipe", *, as_json: bool) -> None:
    """All its keys with their values, as YAML that is a recipe again, or JSON."""
    keys = recipe.as_json()
    if recipe.backbones:
        del keys["backbone"]  # not in use, and only one of both may be given
    if as_json:
        return terminal.show_json(keys)
    typer.echo(as_yaml(keys), nl=False)
    return None


def progress(progress: "Progress", *, as_json: bool) -> None:
    """What is done, who works on what, what failed and why, and the time left."""
    if as_json:
        return terminal.show_json(progress)
    rows = [(job.name, job.state, job.detail) for job in progress.jobs]
    terminal.show_table("Jobs", ("job", "state", ""), rows, lefts=3)
    terminal.tell(f"Run folder: {progress.folder}\n{standing(progress)}")
    if keys := progress.other_keys:
        more = f" and {len(keys) - _KEYS_NAMED} more" if len(keys) > _KEYS_NAMED else ""
        terminal.tell(
            f"It was last worked on with another {', '.join(keys[:_KEYS_NAMED])}{more}; a study "
            "that was begun with keys on the command line is asked about with the same keys."
        )
    return None


def standing(progress: "Progress") -> str:
    """How many jobs are in which state, who is at work, and the time left."""
    states = Counter(job.state for job in progress.jobs)
    counts = ", ".join(f"{count} {state}" for state, count in states.items())
    return f"{counts}; {_left(progress)}"


def _left(progress: "Progress") -> str:
    workers = f"{progress.workers} at work" if progress.workers else "nobody at work"
    if all(job.state == "done" for job in progress.jobs):
        return workers
    if not progress.untimed:
        return f"{workers}; about {terminal.duration(progress.seconds_left or 0)} left at this rate"
    untimed = (
        f"for {progress.untimed} the time is known once one of their kind is made; "
        "`notetune study run RECIPE --dry-run` estimates it"
    )
    if not progress.seconds_left:
        return f"{workers}; {untimed}"
    return f"{workers}; about {terminal.duration(progress.seconds_left)} for the others; {untimed}"


def _short(value: int | str) -> str:
    """A figure as it is read, a sha256 by its first digits."""
    return f"{value:,}" if isinstance(value, int) else value[:_DIGITS_OF_A_HASH]


def keys(found: Sequence["Key"], *, as_json: bool) -> None:
    """Keys of a recipe."""
    if as_json:
        return terminal.show_json(found)
    rows = [(key.name, key.kind, key.default, key.about) for key in found]
    terminal.show_entries("Keys of a recipe", ("key", "of kind", "default", "what it is"), rows)
    return None

"""The report: one self-contained HTML page, its Markdown twin and its JSON value."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import jinja2
import markupsafe

from notetune import __version__, runs, storage
from notetune.metrics.results import Results, TaskResult
from notetune.report import adaptation, comparisons, deletions, figures, published, searches, tables
from notetune.report.figures import Figure
from notetune.report.numbers import count
from notetune.report.summary import Statement, summary
from notetune.report.table import Table, markdown, markdown_text

_NOTHING = ("Nothing recorded.",)


@dataclass(frozen=True)
class Statements:
    """The summary: what is said, by subject."""

    items: tuple[Statement, ...]
    kind: str = "statements"


@dataclass(frozen=True)
class CodeBlock:
    """Text to be shown as it is."""

    text: str
    kind: str = "code"


Block: TypeAlias = str | tuple[str, ...] | Statements | CodeBlock | Table | Figure
"""A text is a paragraph, several are a list."""


@dataclass(frozen=True)
class Section:
    """A heading, its anchor and what stands under it."""

    anchor: str
    title: str
    blocks: tuple[Block, ...]


def write_report(results: Results, folder: Path) -> None:
    """Write report.html, report.md and report.json into a folder of their own, in one step.

    The same results give the same bytes. The JSON file is the value itself; the other two show
    nothing that is not in it.

    Raises:
        RunError: If the folder is not an earlier report.
    """
    sections = report_sections(results)
    with runs.new_folder(folder, {"report": results.title, "created": results.created}) as new:
        (new / "report.html").write_text(_as_html(results, sections), encoding="utf-8")
        (new / "report.md").write_text(_as_markdown(results, sections), encoding="utf-8")
        storage.write_json(new / "report.json", results)


def report_sections(results: Results) -> tuple[Section, ...]:
    """Everything that the report shows, in order; what many studies lack only where it is."""
    recipe = CodeBlock(json.dumps(results.recipe, indent=2, ensure_ascii=False))
    sections = (
        Section("summary", "Summary", _summary(results)),
        Section("published", "The paper's tables", _published(results)),
        Section("cohort", "Cohort", _present(tables.flow_table(results.flow)) or _NOTHING),
        Section("splits", "Splits", _present(tables.splits_table(results)) or _NOTHING),
        Section("adaptation", "Domain adaptation", _adaptation(results)),
        Section("searches", "Search for settings", _searches(results)),
        *(
            Section(f"task-{number}", f"Task: {task.task}", _task(task))
            for number, task in enumerate(results.tasks, start=1)
        ),
        Section("deletions", "What the scores rest on", _deletions(results)),
        Section("listed-patients", "Listed patients only", _listed_patients(results)),
        Section("suspects", "Without suspect notes", _unsuspected(results)),
        Section("training", "Model choice", _present(tables.kept_table(results))),
        Section("costs", "Costs", _present(tables.costs_table(results)) or _NOTHING),
        Section("leakage", "Leakage", _present(tables.leakage_table(results)) or _NOTHING),
        Section("caveats", "Compatibility switches and notices", _caveats(results)),
        Section("provenance", "Provenance", _provenance(results)),
        Section("recipe", "Resolved recipe", (recipe,) if results.recipe else _NOTHING),
    )
    return tuple(section for section in sections if section.blocks)


def _summary(results: Results) -> tuple[Block, ...]:
    said = summary(results)
    further = (tables.headline_table(results), comparisons.primary_table(results))
    return (
        *((Statements(said),) if said else _NOTHING),
        *_present(*further, figures.headline_figure(results)),
    )


def _published(results: Results) -> tuple[Block, ...]:
    if results.published is None:
        return ()
    return (
        published.methods_table(results, results.published),
        published.models_table(results, results.published),
    )


def _adaptation(results: Results) -> tuple[Block, ...]:
    found = _present(
        adaptation.methods_table(results.methods),
        adaptation.perplexity_table(results.perplexity),
        figures.learning_figure(results),
    )
    return found if results.methods else ("No domain adapter was trained.", *found)


def _searches(results: Results) -> tuple[Block, ...]:
    trials = map(searches.trials_table, results.searches)
    return _present(searches.searches_table(results.searches, results), *trials)


def _deletions(results: Results) -> tuple[Block, ...]:
    return (deletions.deletions_table(results.deletions),) if results.deletions else ()


def _task(task: TaskResult) -> tuple[Block, ...]:
    labels = "labels" if task.labels_total > 1 else "label"
    intro = (
        f"A {task.kind} task, judged on the {task.split} split: {count(task.labels_evaluated)} of "
        f"{count(task.labels_total)} {labels} evaluated, {count(task.labels_skipped)} skipped"
    )
    intro += f" ({task.skipped_reason})." if task.skipped_reason else "."
    if task.why_not_judged:
        intro += (
            f" Which model is better cannot be judged: {task.why_not_judged} with the rarer value."
        )
    return _present(
        intro,
        tables.task_table(task),
        figures.auroc_figure(task),
        figures.differences_figure(task),
        comparisons.exploratory_table(task),
        figures.roc_figure(task) if task.roc else None,
        tables.calibration_table(task),
        figures.reliability_figure(task) if task.reliability else None,
        tables.labels_table(task) if task.kind != "binary" else None,
    )


def _listed_patients(results: Results) -> tuple[Block, ...]:
    if not results.listed_patients:
        return ()
    intro = (
        "The same scores on those test patients alone whom the recipe lists, such as patients that "
        "no corpus of step 1 can hold."
    )
    return (intro, *map(tables.task_table, results.listed_patients))


def _unsuspected(results: Results) -> tuple[Block, ...]:
    if not results.suspects:
        return ()
    found = [
        f"{task}: {', '.join(f'{count(n)} with {what}' for what, n in notes.items())}"
        for task, notes in results.suspects.items()
    ]
    intro = (
        "The same scores without the test notes that a leak check finds. Such words also stand in "
        f"innocent places, so this is a bound. Left out are {'; '.join(found)}."
    )
    return (intro, *map(tables.task_table, results.unsuspected))


def _caveats(results: Results) -> tuple[Block, ...]:
    blocks: list[Block] = ["No compatibility switch is in use."]
    if results.compat_switches:
        lead = "These settings repeat known behaviour of earlier work on purpose:"
        blocks = [lead, results.compat_switches]
    return (*blocks, *(("Notices:", results.notices) if results.notices else ()))


def _provenance(results: Results) -> tuple[Block, ...]:
    seeds = ", ".join(map(str, results.seeds)) or "none recorded"
    written = f"Written {results.created}. Seeds: {seeds}."
    return _present(written, tables.provenance_table(results))


def _present(*blocks: Block | None) -> tuple[Block, ...]:
    """Those that there are; a table without a row is none."""
    return tuple(b for b in blocks if b is not None and not (isinstance(b, Table) and not b.rows))


def _as_html(results: Results, sections: Iterable[Section]) -> str:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("notetune.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # The only text that is not escaped: SVG that this package drew and matplotlib escaped.
    environment.filters["svg"] = markupsafe.Markup
    template = environment.get_template("page.html.j2")
    return template.render(results=results, sections=tuple(sections), version=__version__) + "\n"


def _as_markdown(results: Results, sections: Iterable[Section]) -> str:
    parts = [
        f"# {markdown_text(results.title)}",
        f"Written {results.created} by notetune {__version__}.",
    ]
    for section in sections:
        parts.append(f"## {markdown_text(section.title)}")
        parts += [_block_as_markdown(block) for block in section.blocks]
    return "\n\n".join(parts) + "\n"


def _block_as_markdown(block: Block) -> str:
    match block:
        case str():
            return markdown_text(block)
        case tuple():
            return "\n".join(f"- {markdown_text(item)}" for item in block)
        case Statements(items=items):
            return "\n".join(
                f"- **{markdown_text(item.about)}**: {markdown_text(item.text)}" for item in items
            )
        case CodeBlock(text=text):
            return f"```json\n{text}\n```"
        case Table():
            return markdown(block)
        case Figure(caption=caption):
            return f"*Figure in report.html: {markdown_text(caption)}*"

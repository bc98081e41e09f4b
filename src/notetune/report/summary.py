"""The results in words: sentences that follow from the numbers and from nothing else."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from notetune.audit import CORPUS
from notetune.metrics.results import Comparison, HeadlineRow, ModelRow, Results, TaskResult
from notetune.report.numbers import count, number, p_text, signed, with_interval

ASKED = {
    "domain adapter": "Did adapting to the notes help?",
    "task adapter": "Did adapting to the task help?",
    "best validated": "Does a language model beat TF-IDF?",
    "hybrid": "Does the hybrid beat TF-IDF?",
    "": "Other declared comparisons",
}
_NAMES_SHOWN = 4
Row = TypeVar("Row", bound=ModelRow | HeadlineRow)


@dataclass(frozen=True)
class Statement:
    """What is said, and about what."""

    about: str
    sentences: tuple[str, ...]

    @property
    def text(self) -> str:
        """All of it on one line."""
        return " ".join(self.sentences)


def summary(results: Results) -> tuple[Statement, ...]:
    """What a reader must know first: who is best where, how sure that is, what stands in the way.

    A subject that the results say nothing about is left out.
    """
    found = [
        *((question, _answers(results, about)) for about, question in ASKED.items()),
        ("All tasks", _headline_sentences(results)),
        *((task.task, _task_sentences(task)) for task in results.tasks),
        ("Baselines", _baseline_sentences(results)),
        ("Perplexity", _perplexity_sentences(results)),
        ("Leakage", _leakage_sentences(results)),
        *(("Notice", [notice]) for notice in results.notices),
    ]
    return tuple(Statement(about, tuple(sentences)) for about, sentences in found if sentences)


def _headline_sentences(results: Results) -> list[str]:
    rows = [row for row in results.headline if row.auroc is not None]
    if not rows or len(rows[0].tasks) < 2:
        return []
    return [f"Averaged over {len(rows[0].tasks)} tasks, {_leader_in_words(rows)}"]


def _answers(results: Results, about: str) -> list[str]:
    """Per task: yes, no, or that it cannot be told and what could have been."""
    asked = [(task, item) for task in results.tasks for item in task.primary if item.about == about]
    pairs = dict.fromkeys(f"{item.model} against {item.against}" for _, item in asked)
    if len(pairs) == 1:
        return [*(f"{pair}:" for pair in pairs), *(f"{t.task} {_answer(i)}" for t, i in asked)]
    return [f"{t.task} ({i.model} against {i.against}) {_answer(i)}" for t, i in asked]


def _answer(item: Comparison) -> str:
    if item.difference is None:
        return f"cannot be told: {item.reason}."
    if item.is_same:
        return "no difference: both rank these patients alike."
    found = with_interval(item.difference, signed)
    if item.is_found:
        return f"yes, by {found}." if item.difference.value > 0 else f"no, it is worse: {found}."
    if item.p_value is None and item.difference.low * item.difference.high > 0:
        side = "better" if item.difference.value > 0 else "worse"
        return f"{side} on these patients, by {found}; not tested ({item.reason})."
    if item.p_value is None:
        return f"cannot be told ({item.reason}); on these patients the difference is {found}."
    if item.difference.low * item.difference.high > 0:
        p_values = f"p {p_text(item.p_value)}, corrected {p_text(item.p_holm)}"
        return f"cannot be told among {count(item.family)} comparisons ({p_values}): {found}."
    could = number(item.detectable)
    return f"cannot be told: {found}; this test set could have shown {could}."


def _task_sentences(task: TaskResult) -> list[str]:
    rows = [row for row in task.rows if row.auroc is not None]
    if not rows:
        return [f"No model can be judged: {task.why_not_judged or task.skipped_reason}."]
    judged = f"It cannot be judged which is better: {task.why_not_judged}."
    return [_leader_in_words(rows), *([judged] if task.why_not_judged else [])]


def _leader_in_words(rows: Sequence[ModelRow | HeadlineRow]) -> str:
    leader = _leader(rows)
    score = f"AUROC {with_interval(leader.auroc)}" if leader.auroc else "AUROC"
    if len(rows) == 1:
        return f"{leader.model}, the only model, reaches {score}."
    if leader.standing == "best":
        return f"{leader.model} is best: {score}; every other model is worse."
    rivals = [row.model for row in rows if row.standing == "tied" and row is not leader]
    if not rivals:
        return f"{leader.model} has the highest {score}."
    if len(rivals) > _NAMES_SHOWN:
        rivals = [*rivals[: _NAMES_SHOWN - 1], f"{len(rivals) - _NAMES_SHOWN + 1} others"]
    return f"{leader.model} has the highest {score}; {_and(rivals)} cannot be told from it."


def _leader(rows: Iterable[Row]) -> Row:
    return max(rows, key=lambda row: row.auroc.value if row.auroc else 0.0)


def _baseline_sentences(results: Results) -> list[str]:
    """Where a baseline is best, leads or is tied with the best; or that none is anywhere."""
    sentences, present, open_tasks = [], [], set[str]()
    tied_on: dict[str, list[str]] = {}
    leads = {task.task: _leader(task.rows).model for task in results.tasks if task.rows}
    for name in results.baselines:
        standing = {
            t.task: row.standing for t in results.tasks for row in t.rows if row.model == name
        }
        best = [task for task, place in standing.items() if place == "best"]
        ties = [task for task, place in standing.items() if place == "tied"]
        led = [task for task in ties if leads[task] == name]
        tied = [task for task in ties if leads[task] != name]
        if best:
            sentences.append(f"{name} is best on {_and(best)}: every other model is worse there.")
        if led:
            sentences.append(f"{name} has the highest AUROC on {_and(led)}.")
        if tied:
            tied_on.setdefault(_and(tied), []).append(name)
        if any(standing.values()):
            present.append(name)
            open_tasks |= {task for task, place in standing.items() if place is None}
    sentences += [
        f"{_and(names)} cannot be told from the best model on {tasks}."
        for tasks, names in tied_on.items()
    ]
    if present and not sentences:
        are = "is" if len(present) == 1 else "are"
        judged = "every task that can be judged" if open_tasks else "every task"
        return [f"On {judged} {_and(present)} {are} worse than the best model."]
    return sentences


def _perplexity_sentences(results: Results) -> list[str]:
    """What the domain adapter's training changed on test notes and on general text."""
    # The last row of a split is over all sources.
    alone = {(row.backbone, row.split): row for row in results.perplexity if row.method is None}
    adapted = {
        (row.backbone, row.split): row for row in results.perplexity if row.is_domain_adapter
    }
    sentences = []
    for (backbone, split), row in adapted.items():
        start = alone.get((backbone, split))
        if start is None or split not in ("test", "general"):
            continue
        before, after = number(start.perplexity), number(row.perplexity)
        verb = "fell" if row.perplexity < start.perplexity else "rose"
        of_backbone = f" of {backbone}" if backbone else ""
        texts = f"general text ({row.source})" if split == "general" else "test notes"
        sentences.append(
            f"Perplexity{of_backbone} on {texts} {'stayed' if before == after else verb}: "
            f"{before} before, {after} after."
        )
    return sentences


def _leakage_sentences(results: Results) -> list[str]:
    blocking = [
        f"{item.check} between {item.split_a} and {item.split_b} ({count(item.count)} notes)"
        for item in results.leakage
        if item.blocks
    ]
    if not results.leakage:
        return []
    found = "No leak check found anything that blocks training."
    if blocking:
        found = (
            f"A leak check found what blocks training unless it is overridden: {_and(blocking)}."
        )
    # What step 1 shares with the tasks either blocks or was left out.
    rest = [item for item in results.leakage if item.count and not item.blocks]
    others = [item.sentence for item in rest if CORPUS not in (item.split_a, item.split_b)]
    unseen = dict.fromkeys(f"{f.check} ({f.not_judged})" for f in results.leakage if f.not_judged)
    return [
        found,
        *([f"Found, though it does not block: {'; '.join(others)}."] if others else []),
        *([f"Not judged: {'; '.join(unseen)}."] if unseen else []),
    ]


def _and(items: Sequence[str]) -> str:
    *most, last = items
    return f"{', '.join(most)} and {last}" if most else last

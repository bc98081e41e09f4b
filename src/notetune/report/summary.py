"""The results in words: sentences that follow from the numbers and from nothing else."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from notetune.metrics.results import HeadlineRow, ModelRow, PerplexityRow, Results, TaskResult
from notetune.report.numbers import count, number, p_text, signed, with_interval

DOMAIN_ADAPTER = "Domain adapter"
_LEVEL = 0.05
_Row = TypeVar("_Row", ModelRow, HeadlineRow)


@dataclass(frozen=True)
class Statement:
    """What is said, and about what."""

    about: str
    text: str


def summary(results: Results) -> tuple[Statement, ...]:
    """What a reader must know first: who is best where, how sure that is, what stands in the way.

    A subject that the results say nothing about is left out.
    """
    found = [
        ("All tasks", _headline_sentences(results)),
        *((task.task, _task_sentences(task, results.baselines)) for task in results.tasks),
        ("Baselines", _baseline_sentences(results)),
        (DOMAIN_ADAPTER, _domain_sentences(results)),
        ("Perplexity", _perplexity_sentences(results)),
        ("Leakage", _leakage_sentences(results)),
        *(("Notice", [notice]) for notice in results.notices),
    ]
    return tuple(Statement(about, " ".join(sentences)) for about, sentences in found if sentences)


def _headline_sentences(results: Results) -> list[str]:
    rows = [row for row in results.headline if row.auroc is not None]
    if not rows or len(rows[0].tasks) < 2:
        return []
    return [f"Averaged over {len(rows[0].tasks)} tasks, {_leader_in_words(rows)}"]


def _task_sentences(task: TaskResult, baselines: Sequence[str]) -> list[str]:
    rows = [row for row in task.rows if row.auroc is not None]
    if not rows:
        return [f"No model can be judged: {task.skipped_reason}."]
    return [_leader_in_words(rows), *_against_baselines(task, baselines)]


def _leader_in_words(rows: Sequence[_Row]) -> str:
    leader = _leader(rows)
    score = f"AUROC {with_interval(leader.auroc)}" if leader.auroc else "AUROC"
    if len(rows) == 1:
        return f"{leader.model}, the only model, reaches {score}."
    if leader.is_best:
        return f"{leader.model} is best: {score}, distinguishable from every other model."
    rivals = [row.model for row in rows if row.ties_with_best and row.model != leader.model]
    if not rivals:
        return f"{leader.model} has the highest {score}."
    return (
        f"{leader.model} has the highest {score}, but it is not distinguishable from "
        f"{_and(rivals)}: their paired intervals contain 0."
    )


def _leader(rows: Sequence[_Row]) -> _Row:
    return max(rows, key=lambda row: row.auroc.value if row.auroc else 0.0)


def _baseline_sentences(results: Results) -> list[str]:
    """Where a baseline wins or ties; or that none does anywhere."""
    judged = [task for task in results.tasks if any(row.auroc for row in task.rows)]
    models = {row.model for task in judged for row in task.rows}
    baselines = [name for name in results.baselines if name in models]
    if not baselines or len(models) == len(baselines):
        return []
    found = [sentence for name in baselines for sentence in _standing_of_baseline(name, judged)]
    return found or [f"On every task the best model is distinguishable from {_and(baselines)}."]


def _standing_of_baseline(baseline: str, judged: Sequence[TaskResult]) -> list[str]:
    leads = [task for task in judged if _leader(task.rows).model == baseline]
    wins = [task.task for task in leads if _leader(task.rows).is_best]
    ties = [
        task.task
        for task in judged
        if task.task not in wins
        and any(
            row.model == baseline and (task in leads or row.ties_with_best) for row in task.rows
        )
    ]
    sentences = []
    if wins:
        sentences.append(
            f"{baseline} wins on {_and(wins)}: it is distinguishable from every other model there."
        )
    if ties:
        best = "best or not distinguishable from the best model"
        sentences.append(f"{baseline} is {best} on {_and(ties)}.")
    return sentences


def _against_baselines(task: TaskResult, baselines: Sequence[str]) -> list[str]:
    """The tested differences between the task's leading language model and a baseline."""
    models = [row for row in task.rows if row.auroc is not None and row.model not in baselines]
    leader = _leader(models).model if models else None
    return [
        f"The difference between {leader} and {item.against} is "
        f"{with_interval(item.difference, signed)}, Holm p {_p_in_words(item.p_holm)}."
        for item in task.comparisons
        if item.model == leader and item.against in baselines and item.difference
    ]


def _domain_sentences(results: Results) -> list[str]:
    """Which models of step 2 the domain adapter makes better or worse, task by task."""
    sentences = []
    for task in results.tasks:
        tested = [
            (item.model, item.difference.value, item.p_holm)
            for item in task.comparisons
            if (item.model, item.against) in results.domain_pairs and item.difference
        ]
        clear = [(model, value) for model, value, p in tested if p is not None and p < _LEVEL]
        for verb, models in (
            ("raises", [model for model, value in clear if value > 0]),
            ("lowers", [model for model, value in clear if value < 0]),
        ):
            if models:
                sentences.append(f"On {task.task} it {verb} the AUROC of {_and(models)}.")
        if tested and not clear:
            sentences.append(
                f"On {task.task} no model can be told from one that learns without it."
            )
    return [*sentences, f"(Paired tests, Holm p < {_LEVEL}.)"] if sentences else []


def _perplexity_sentences(results: Results) -> list[str]:
    """What the domain adapter's training changed on unseen notes and on general text."""
    by_state = {
        (*row.model.rpartition("/")[::2], row.split, row.source): row for row in results.perplexity
    }
    sentences = []
    for (backbone, state, split, source), row in by_state.items():
        start = by_state.get((backbone, "before", split, source))
        if state != "after" or split == "train" or start is None:
            continue
        verb = "fell" if row.perplexity < start.perplexity else "rose"
        before, after = number(start.perplexity), number(row.perplexity)
        sentences.append(
            f"Perplexity{f' of {backbone}' if backbone else ''} on {_texts(row)} "
            f"{'stayed' if before == after else verb}: {before} before, {after} {state}."
        )
    return sentences


def _texts(row: PerplexityRow) -> str:
    if row.split == "general":
        return f"general text ({row.source})"
    return f"{row.source} notes ({row.split} split)"


def _leakage_sentences(results: Results) -> list[str]:
    blocking = [finding for finding in results.leakage if finding.blocks]
    if blocking:
        found = _and(
            f"{item.check} between {item.split_a} and {item.split_b} ({count(item.count)} notes)"
            for item in blocking
        )
        return [f"A leak check found what blocks training unless it is overridden: {found}."]
    return ["No leak check found anything that blocks training."] if results.leakage else []


def _p_in_words(p_value: float | None) -> str:
    text = p_text(p_value)
    return text if text.startswith("<") else f"= {text}"


def _and(items: Iterable[str]) -> str:
    *most, last = items
    return f"{', '.join(most)} and {last}" if most else last

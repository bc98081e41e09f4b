"""Step 2 beside the stock way: long notes per second, and the search for a head.

B2 is the best that a stock user gets: transformers' Trainer with peft on the model for sequence
classification, ten notes at a time, grouped by length and padded to the longest of the ten. Both
sides have the same weights, the same LoRA, and a linear head on the last token of a note; before
anything is timed, they must give the same loss on the same notes. The search trains a head on a
frozen backbone with 20 seeds, through the product: with the features that a run folder keeps, and
as cold runs that compute them.

On a quiet machine: `python bench/step2.py`. On a GPU: `gpu_day.sh`, as README.md here says, without
the search, so that it needs nothing that reads notes.
"""

import argparse
import csv
import dataclasses
import gc
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from documents import TINY, Notes, report_texts, reports
from models import SHAPES, Setting, config_of, dtype_on, timed_on
from peft import get_peft_model, set_peft_model_state_dict
from rows import Rows, timed
from stock import BATCHES_PER_STEP, NOTES_PER_BATCH, be_quiet, padded_notes, trainer
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, Trainer

from notetune import infer
from notetune.model.adapters.peft_config import to_peft
from notetune.model.adapters.specs import LoRA
from notetune.model.attention import PACKED_ATTENTION
from notetune.model.batch import packed_batch
from notetune.model.heads import Head
from notetune.model.losses import outcome_loss
from notetune.model.stack import TASK, Layer, Stack, stack
from notetune.tokens.packing import Int64Array
from notetune.tokens.store import Reading
from notetune.train.batches import LabelledBatch, labelled_rows, shuffled_steps
from notetune.train.loop import train
from notetune.train.optim import adamw
from notetune.train.schedule import OptimConfig

SPEC = LoRA(rank=16, alpha=32)
LABELS = 10
TRIALS = 20
ROOT = Path(__file__).parents[1]


class LongNotes(Notes):
    """Documents in memory, each a whole note."""

    def reading(self, documents_N: Int64Array, most_pieces: int) -> Reading:
        """All of each note, in one piece."""
        ones_N = np.minimum(np.ones_like(documents_N), most_pieces)
        return Reading(self.lengths_D[documents_N], ones_N, ones_N == 0)

    def __str__(self) -> str:
        lengths_D = self.lengths_D
        return f"{len(lengths_D)} notes, mean {lengths_D.mean():.0f}, longest {lengths_D.max()}"

    @property
    def targets_NK(self) -> np.ndarray[Any, np.dtype[np.int8]]:
        """Labels by chance: speed does not depend on them."""
        rng = np.random.default_rng(1)
        return rng.integers(0, 2, (len(self.documents), LABELS)).astype(np.int8)


@dataclasses.dataclass(frozen=True)
class Bench(Setting):
    """What both sides have in common."""

    notes: LongNotes
    max_tokens: int

    def ours(self) -> tuple[Stack, Head]:
        """Our model of step 2."""
        layers = [Layer(TASK, SPEC, is_trained=True)]
        model = stack(self.backbone(self.model(PACKED_ATTENTION)), layers, predicts_tokens=False)
        generator = torch.Generator().manual_seed(0)
        weight_KH = torch.randn(LABELS, model.backbone.hidden_size, generator=generator)
        head = Head(0.02 * weight_KH, torch.zeros(LABELS))
        return model, head.to(self.device)

    def stock(self, head: Head) -> Any:
        """The same in transformers and peft."""
        causal = self.model("sdpa")
        config = causal.config
        config.update(
            {
                "num_labels": LABELS,
                "pad_token_id": 0,
                "problem_type": "multi_label_classification",
            }
        )
        with self.device:
            model = AutoModelForSequenceClassification.from_config(config)
        model.model = causal.model
        model.score.weight.data = head.linear.weight.detach().to(causal.dtype, copy=True)
        lora = to_peft(SPEC, self.backbone(causal))
        lora.task_type = "SEQ_CLS"
        return get_peft_model(model, lora).eval()

    def backbone(self, model: Any) -> Any:
        """A model as we handle it."""
        return dataclasses.replace(super().backbone(model), max_positions=self.max_tokens)


def check_losses(bench: Bench) -> None:
    """Stop unless both ways give the same loss on the same notes with the adapter at work."""
    ours, head = bench.ours()
    torch.manual_seed(1)
    for parameter in ours.parameters_by_name().values():
        parameter.data += 0.02 * torch.randn_like(parameter)
    stock = bench.stock(head)
    score = {"base_model.model.score.weight": head.linear.weight}
    set_peft_model_state_dict(stock, {**ours.tensors(TASK), **score})
    notes = bench.notes.documents[:NOTES_PER_BATCH]
    targets_NK = bench.notes.targets_NK[: len(notes)]
    batch = packed_batch(notes, range(len(notes)), bench.device)
    padded = collate(_examples(notes, targets_NK))
    with torch.inference_mode():
        logits_NK = head(ours.features(batch, "last"))
        targets = torch.from_numpy(targets_NK).to(bench.device)
        mine = outcome_loss("multilabel", logits_NK, targets).item() / len(notes)
        inputs = {key: value.to(bench.device) for key, value in padded.items()}
        theirs = stock(**inputs).loss.item()
    exact = 1e-4 if bench.dtype == "float32" else 1e-2
    if abs(mine - theirs) > exact * theirs:
        raise SystemExit(f"the losses differ, so nothing is timed: ours {mine}, B2 {theirs}")


def train_ours(bench: Bench) -> float:
    """Seconds of one epoch in packed rows."""
    model, head = bench.ours()
    model.train_mode()
    notes, optim = bench.notes, OptimConfig()
    everything = np.arange(len(notes.documents))
    per_step = NOTES_PER_BATCH * BATCHES_PER_STEP
    count = -(-len(everything) // per_step)
    batches = labelled_rows(
        notes.store,
        everything,
        notes.targets_NK,
        shuffled_steps(len(everything), per_step, seed=0),
        tokens_per_row=bench.tokens_per_row,
        device=bench.device,
    )

    def summed_loss(batch: LabelledBatch) -> torch.Tensor:
        return outcome_loss(
            "multilabel", head(model.features(batch.inputs, "last")), batch.targets_NK
        )

    parameters = [*model.parameters_by_name().values(), *head.parameters()]
    steps = train(
        batches,
        summed_loss,
        adamw(optim, (parameters, optim.peak_lr)),
        lambda number: optim.schedule(number, count),
        step_count=count,
        max_grad_norm=optim.max_grad_norm,
        seed=0,
    )
    return timed_on(bench.device, lambda: list(steps))


def predict_ours(bench: Bench) -> float:
    """Seconds to score all notes."""
    model, head = bench.ours()
    everything = np.arange(len(bench.notes.documents))

    def score() -> None:
        infer.outputs_per_note(
            model,
            lambda batch: head(model.features(batch, "last")),
            bench.notes.store,
            everything,
            bench.tokens_per_row,
        )

    return timed_on(bench.device, score)


def train_stock(bench: Bench) -> float:
    """Seconds of one epoch of the Trainer."""
    with tempfile.TemporaryDirectory() as folder:
        return timed_on(bench.device, _trainer(bench, folder).train)


def predict_stock(bench: Bench) -> float:
    """Seconds of the Trainer to score all notes, which are sorted by length for it."""
    notes = bench.notes
    order = np.argsort(-notes.lengths_D)
    documents = [notes.documents[number] for number in order]
    examples = _examples(documents, notes.targets_NK[order])
    with tempfile.TemporaryDirectory() as folder:
        stock = _trainer(bench, folder)
        return timed_on(bench.device, lambda: stock.predict(examples))


def _trainer(bench: Bench, folder: str) -> Trainer:
    _, head = bench.ours()
    examples = _examples(bench.notes.documents, bench.notes.targets_NK)
    return trainer(bench.stock(head), examples, collate, folder, bench.device)


def _examples(documents: Any, targets_NK: Any) -> list[dict[str, Any]]:
    return [
        {"input_ids": ids, "length": len(ids), "labels": targets}
        for ids, targets in zip(documents, targets_NK, strict=True)
    ]


def collate(examples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """Notes padded on the right to the longest of them, with their labels."""
    padded = padded_notes(examples, 0)
    labels = torch.from_numpy(np.stack([example["labels"] for example in examples]))
    return {**padded, "labels": labels.float()}


def measure(bench: Bench, repeats: int, rows: Rows) -> None:
    """Time both ways in turn, and write speeds and ratios."""
    works: dict[str, dict[str, Callable[[Bench], float]]] = {
        "training": {"B2": train_stock, "ours": train_ours},
        "prediction": {"B2": predict_stock, "ours": predict_ours},
    }
    count = len(bench.notes.documents)
    for work, variants in works.items():
        speeds: dict[str, list[float]] = {variant: [] for variant in variants}
        for _ in range(repeats):
            for variant, run in variants.items():
                gc.collect()
                speeds[variant].append(count / run(bench))
        question = f"step 2, {work}, long notes, {bench.shape}, {bench.dtype}"
        for variant, values in speeds.items():
            rows.add(question, variant, bench.notes, values, "notes/s")
        ratios = [a / b for a, b in zip(speeds["ours"], speeds["B2"], strict=True)]
        rows.add(question, "ours / B2", bench.notes, ratios, "times as fast")


def measure_search(texts: list[str], shape: str, device: str, cold_runs: int, rows: Rows) -> None:
    """Time trainings of a head with the kept features, and without any."""
    # What reads notes may not be there on a GPU machine.
    import shutil

    from notetune.study.listing import jobs_of
    from notetune.study.run import prepare_notes
    from notetune.study.step2 import train_model
    from notetune.study.wanted import facts_of

    with tempfile.TemporaryDirectory() as folder:
        recipe = _search_recipe(Path(folder), texts, shape, device)
        notes = prepare_notes(recipe)
        jobs = jobs_of(recipe, "", facts_of(recipe, notes))
        (head,) = (job for job in jobs if job.model and job.model.variant == "head-only")

        def run() -> float:
            return timed(lambda: train_model(head, notes))[0]

        cold = []
        for _ in range(cold_runs):
            shutil.rmtree(recipe.folder.features, ignore_errors=True)
            cold.append(run())
        kept = [run() for _ in range(TRIALS)]
    question, x = f"step 2, a head alone, {shape}", f"{len(texts)} notes, {TRIALS} trials"
    rows.add(question, "a cold run", x, cold, "s")
    rows.add(question, "a run on kept features", x, kept, "s")
    ratio = TRIALS * float(np.mean(cold)) / sum(kept)
    rows.add(question, f"{TRIALS} cold runs / {TRIALS} on kept features", x, [ratio], "times")


def _search_recipe(folder: Path, texts: list[str], shape: str, device: str) -> Any:
    from notetune.recipe.recipe import Recipe

    backbone = str(TINY) if shape == "tiny" else _random_backbone(folder / "backbone", shape)
    labels = np.random.default_rng(0).integers(0, 2, len(texts))
    with (folder / "notes.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["note", "patient", "text", "label"])
        writer.writerows((n, n, text, labels[n]) for n, text in enumerate(texts))
    columns = {"text": "text", "note_id": "note", "patient_id": "patient"}
    task = {"name": "label", "kind": "binary", "column": "label"}
    source = {
        "kind": "table",
        "path": folder / "notes.csv",
        "columns": columns,
        "tasks": [task],
    }
    return Recipe.model_validate(
        {
            "name": "search",
            "runs": folder,
            "backbone": backbone,
            "device": device,
            "prepare": {"source": source, "workers": 1},
        }
    )


def _random_backbone(folder: Path, shape: str) -> str:
    """A backbone of a shape with random weights, in the tokens of the shipped one."""
    import shutil

    torch.manual_seed(0)
    config = config_of(shape)
    shipped = config_of("tiny")
    config.update({n: getattr(shipped, n) for n in ("bos_token_id", "eos_token_id", "vocab_size")})
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    shutil.copyfile(TINY / "tokenizer.json", folder / "tokenizer.json")
    return str(folder)


def long_notes(sources: Iterator[Any], count: int, max_tokens: int) -> LongNotes:
    """The first documents that are longer than half of the limit, cut at it."""
    documents = []
    for ids in sources:
        if len(ids) > max_tokens // 2:
            documents.append(ids[:max_tokens])
        if len(documents) == count:
            break
    return LongNotes(tuple(documents))


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a toy run that shows all works")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--shape", choices=SHAPES, default="llama-18m")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), help="default: by device")
    parser.add_argument("--notes", type=int, default=80)
    parser.add_argument("--search-notes", type=int, default=1000)
    parser.add_argument("--no-search", action="store_true")
    parser.add_argument("--cold-runs", type=int, default=3)
    parser.add_argument("--max-tokens", type=int, default=1024)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--tokens-per-row", type=int, default=4096)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared/data")
    parser.add_argument("--output", type=Path, default=ROOT / "bench/results/step2.csv")
    given = parser.parse_args()
    be_quiet()
    if given.quick:
        toy = {"shape": "quick", "notes": 20, "search_notes": 60, "cold_runs": 1, "repeats": 1}
        vars(given).update(toy, max_tokens=64, tokens_per_row=128)
    device = torch.device(given.device)
    bench = Bench(
        given.shape,
        long_notes(_sources(given), given.notes, given.max_tokens),
        device,
        dtype_on(device, given.dtype),
        given.tokens_per_row,
        given.max_tokens,
    )
    rows = Rows(given.output, torch.cuda.get_device_name() if device.type == "cuda" else "")
    check_losses(bench)
    measure(bench, given.repeats, rows)
    if not given.no_search:
        texts = _toy_texts() if given.quick else report_texts(given.data)
        chosen = texts[: given.search_notes]
        measure_search(chosen, given.shape, given.device, given.cold_runs, rows)


def _sources(given: argparse.Namespace) -> Iterator[Any]:
    if given.quick or given.device == "cuda":
        vocabulary = SHAPES[given.shape].get("vocab_size", 32_000)
        rng = np.random.default_rng(0)
        while True:
            yield rng.integers(2, vocabulary, rng.integers(given.max_tokens // 2, given.max_tokens))
    else:
        yield from reports(given.data, given.shape)


def _toy_texts() -> list[str]:
    return [f"note {number} " * (1 + number % 9) for number in range(60)]


if __name__ == "__main__":
    main()

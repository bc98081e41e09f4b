"""Step 1 beside the stock way: one model, the same notes, tokens per second without padding.

B1 is the published way: transformers' Trainer with peft, ten notes at a time, padded to 512 tokens.
B2 is the best that a stock user gets: padded to the longest of the ten, notes grouped by length.
Before anything is timed, the three must give the same loss on the same notes.

On a quiet machine: `python bench/step1.py`. On a GPU: `gpu_day.sh`, as README.md here says.
"""

import argparse
import dataclasses
import functools
import gc
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from documents import MAX_TOKENS, profile_notes, random_ids, reports, whole_notes
from models import SHAPES, Setting, dtype_on, timed_on
from peft import PeftModel, get_peft_model
from rows import Rows
from stock import BATCHES_PER_STEP, NOTES_PER_BATCH, be_quiet, padded_notes, trainer

from notetune.model.adapters.files import save_adapter
from notetune.model.adapters.peft_config import to_peft
from notetune.model.adapters.specs import (
    AdaptationPrompt,
    AdapterSpec,
    Full,
    LoRA,
    Prefix,
    Prompt,
    PTuning,
    traits,
)
from notetune.model.attention import PACKED_ATTENTION
from notetune.model.batch import packed_batch
from notetune.model.compiled import compile_layers
from notetune.model.stack import DOMAIN, Layer, Stack, stack
from notetune.tokens.packing import steps_per_epoch
from notetune.train.batches import pretraining_steps
from notetune.train.loop import train
from notetune.train.optim import adamw
from notetune.train.schedule import OptimConfig
from notetune.train.step_cost import matrix_rate, step_cost
from notetune.train.training import peak_memory_mib, restart_peak_memory

ROOT = Path(__file__).parents[1]
# Those of the paper's Table 2, and full fine-tuning.
METHODS: dict[str, AdapterSpec] = {
    "lora": LoRA(rank=16, alpha=32),
    "adaptation-prompt": AdaptationPrompt(length=10),
    "prefix": Prefix(virtual_tokens=20),
    "prompt": Prompt(virtual_tokens=15),
    "p-tuning": PTuning(virtual_tokens=20),
    "full": Full(),
}


@dataclass(frozen=True)
class Way:
    """How our step runs."""

    is_compiled: bool = False

    def __str__(self) -> str:
        return "ours" + ", compiled" * self.is_compiled


OURS = Way()


@dataclass(frozen=True)
class Bench(Setting):
    """What all variants have in common."""

    def stack(self, spec: AdapterSpec) -> Stack:
        """Our model of a method."""
        backbone = self.backbone(self.model(PACKED_ATTENTION))
        return stack(backbone, [Layer(DOMAIN, spec, is_trained=True)])

    def flops_per_token(self, spec: AdapterSpec) -> float:
        """Operations of our step per token, on a row of the first notes."""
        outline = dataclasses.replace(self, device=torch.device("meta")).stack(spec)
        lengths = tuple(self.notes.lengths_D[:NOTES_PER_BATCH].tolist())
        cost = step_cost(outline, outline.summed_token_loss, lengths)
        return cost.flops / cost.tokens


def check_losses(bench: Bench, spec: AdapterSpec) -> None:
    """Stop unless the three ways give the same loss on the same notes with an adapter at work."""
    ours = _trained_a_little(bench.stack(spec))
    notes = bench.notes.documents[:NOTES_PER_BATCH]
    batch = packed_batch(notes, range(len(notes)), bench.device)
    losses = {}
    with torch.inference_mode():
        losses["ours"] = ours.summed_token_loss(batch).item() / batch.target_count
        plain = _same_in_plain_peft(bench, ours, spec)
        for name, pad_to in {"B1": MAX_TOKENS, "B2": 0}.items():
            padded = padded_notes([{"input_ids": ids} for ids in notes], pad_to)
            inputs = {key: value.to(bench.device) for key, value in padded.items()}
            losses[name] = plain(**inputs).loss.item()
    exact = 1e-4 if bench.dtype == "float32" else 1e-2
    if max(losses.values()) - min(losses.values()) > exact * max(losses.values()):
        sys.exit(f"the losses differ, so nothing is timed: {losses}")


def _trained_a_little(model: Stack) -> Stack:
    torch.manual_seed(1)
    for parameter in model.parameters_by_name().values():
        parameter.data += 0.02 * torch.randn_like(parameter)
    return model


def _same_in_plain_peft(bench: Bench, ours: Stack, spec: AdapterSpec) -> Any:
    plain = bench.model("sdpa")
    adapter = ours.adapters[DOMAIN]
    if traits(spec).is_backbone:
        plain.load_state_dict(adapter.tensors(), strict=False)
        return plain
    with tempfile.TemporaryDirectory() as folder:
        save_adapter(Path(folder), adapter, ours.backbone)
        return PeftModel.from_pretrained(plain, folder).eval()


def train_ours(bench: Bench, spec: AdapterSpec, way: Way) -> float:
    """Seconds of one epoch in packed rows; layers are compiled before, if they are."""
    model, notes = bench.stack(spec), bench.notes
    if way.is_compiled:
        compile_layers(model.backbone)
        batch = packed_batch(
            notes.documents[:NOTES_PER_BATCH], range(NOTES_PER_BATCH), bench.device
        )
        torch.autograd.backward(model.summed_token_loss(batch))
        for parameter in model.parameters_by_name().values():
            parameter.grad = None
    model.train_mode()
    per_step = notes.targets * NOTES_PER_BATCH * BATCHES_PER_STEP // len(notes.documents)
    sizes = {"tokens_per_row": bench.tokens_per_row, "targets_per_step": per_step}
    everything = np.arange(len(notes.documents))
    slots = model.reserved_per_document
    batches = pretraining_steps(
        notes.store, everything, **sizes, seed=0, reserved_per_document=slots, device=bench.device
    )
    count = steps_per_epoch(notes.lengths_D, **sizes, reserved_per_document=slots)
    optim = OptimConfig()
    steps = train(
        batches,
        model.summed_token_loss,
        adamw(optim, (model.parameters_by_name().values(), optim.peak_lr)),
        lambda number: optim.schedule(number, count),
        step_count=count,
        max_grad_norm=optim.max_grad_norm,
        seed=0,
    )
    return timed_on(bench.device, lambda: list(steps))


def train_stock(bench: Bench, spec: AdapterSpec, pad_to: int) -> float:
    """Seconds of one epoch of the Trainer; `pad_to` 0 pads to the longest of a group by length."""
    model = bench.model("sdpa")
    if isinstance(spec, Full):
        model.requires_grad_(requires_grad=True)
    else:
        config = to_peft(spec, bench.backbone(model))
        config.task_type = "CAUSAL_LM"
        model = get_peft_model(model, config)
    examples = [{"input_ids": ids, "length": len(ids)} for ids in bench.notes.documents]
    with tempfile.TemporaryDirectory() as folder:
        stock = trainer(
            model,
            examples,
            lambda batch: padded_notes(batch, pad_to),
            folder,
            bench.device,
            is_grouped=not pad_to,
        )
        return timed_on(bench.device, stock.train)


def measure(bench: Bench, name: str, repeats: int, rows: Rows, ways: Sequence[Way]) -> None:
    """Time the ways in turn, and write speeds, ratios and the highest memory."""
    spec = METHODS[name]
    variants: dict[str | Way, Callable[[], float]] = {
        "B1": lambda: train_stock(bench, spec, MAX_TOKENS),
        "B2": lambda: train_stock(bench, spec, 0),
        **{way: functools.partial(train_ours, bench, spec, way) for way in ways},
    }
    speeds: dict[str | Way, list[float]] = {variant: [] for variant in variants}
    peaks: dict[str | Way, list[float]] = {variant: [] for variant in variants}
    tokens = int(bench.notes.lengths_D.sum())
    for _ in range(repeats):
        for variant, run in variants.items():
            gc.collect()
            restart_peak_memory()
            speeds[variant].append(tokens / run())
            peaks[variant].append(peak_memory_mib())
    question = f"step 1, {name}, {bench.shape}, {bench.dtype}"
    for variant, values in speeds.items():
        rows.add(question, str(variant), bench.notes, values, "tokens/s")
        if isinstance(variant, Way):
            others: list[str | Way] = ["B1", "B2", *([OURS] if variant != OURS else [])]
            for against in others:
                ratios = [a / b for a, b in zip(values, speeds[against], strict=True)]
                pair = f"{variant} / {against}"
                rows.add(question, pair, bench.notes, ratios, "times as fast")
        # On a CPU an upper bound: the heap may keep what the run before freed.
        rows.add(question, str(variant), bench.notes, peaks[variant], "MiB at most")
    operations = bench.flops_per_token(spec)
    rate = matrix_rate(bench.device, bench.dtype)
    for way in ways:
        shares = [100 * speed * operations / rate for speed in speeds[way]]
        rows.add(question, str(way), bench.notes, shares, "% of the rate of a matrix product")


def main() -> None:
    """Measure what is asked for."""
    given = _arguments()
    be_quiet()
    shape = "quick" if given.quick else given.shape
    count, repeats = (20, 1) if given.quick else (given.notes, given.repeats)
    if given.quick or given.device == "cuda":
        sources = random_ids(SHAPES[shape].get("vocab_size", 32_000))
    else:
        sources = reports(given.data, shape)
    notes = whole_notes(sources, count) if given.whole else profile_notes(sources, count)
    device = torch.device(given.device)
    bench = Bench(shape, notes, device, dtype_on(device, given.dtype), given.tokens_per_row)
    name = torch.cuda.get_device_name() if device.type == "cuda" else ""
    rows = Rows(given.output, name)
    ways = [OURS, Way(is_compiled=True)] if given.compile else [OURS]
    for method in given.methods:
        check_losses(bench, METHODS[method])
        measure(bench, method, repeats, rows, ways)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a toy run that shows all works")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--shape", choices=SHAPES, default="llama-18m")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), help="default: by device")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--notes", type=int, default=80)
    parser.add_argument("--whole", action="store_true", help="reports as long as they are")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--compile", action="store_true", help="also with compiled layers")
    parser.add_argument("--tokens-per-row", type=int, default=1024)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared/data")
    parser.add_argument("--output", type=Path, default=ROOT / "bench/results/step1.csv")
    return parser.parse_args()


if __name__ == "__main__":
    main()

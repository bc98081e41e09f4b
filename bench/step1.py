"""Step 1 beside the stock way: one model, the same notes, tokens per second without padding.

B1 is the published way: transformers' Trainer with peft, ten notes at a time, padded to 512 tokens.
B2 is the best that a stock user gets: padded to the longest of the ten, notes grouped by length.
Before anything is timed, the three must give the same loss on the same notes.

On a quiet machine: `python bench/step1.py`. On a GPU that lacks pydantic, once
`make bench-wheels` has put its wheels into build/wheels:
`pip install --no-index --find-links build/wheels pydantic && PYTHONPATH=src \
python bench/step1.py --device cuda --shape llama-7b`.
"""

import argparse
import csv
import dataclasses
import functools
import gc
import gzip
import io
import itertools
import logging
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from peft import PeftModel, get_peft_model
from rows import Rows, timed
from tokenizers import Tokenizer
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    LlamaConfig,
    PrinterCallback,
    Trainer,
    TrainingArguments,
)
from transformers.utils import logging as transformers_logging

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
    needs_plain_weights,
)
from notetune.model.attention import PACKED_ATTENTION
from notetune.model.backbone import Backbone
from notetune.model.batch import packed_batch
from notetune.model.compiled import compile_layers
from notetune.model.float8 import quantise_layers
from notetune.model.stack import DOMAIN, Layer, Stack, stack
from notetune.tokens.packing import Int64Array
from notetune.train.batches import pretraining_steps, pretraining_steps_per_epoch
from notetune.train.cost import matrix_rate, step_cost
from notetune.train.loop import train
from notetune.train.optim import OptimConfig, adamw
from notetune.workflows.training import peak_memory_mib, restart_peak_memory

ROOT = Path(__file__).parents[1]
TINY = ROOT / "src/notetune/backbones/tiny"
MAX_TOKENS = 512
NOTES_PER_BATCH, BATCHES_PER_STEP = 10, 4
BOS = 1

SHAPES: dict[str, dict[str, Any]] = {
    "llama-18m": {
        "hidden_size": 320,
        "intermediate_size": 864,
        "num_hidden_layers": 6,
        "num_attention_heads": 5,
        "tie_word_embeddings": True,
    },
    "llama-7b": {
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
    },
    "tiny": {},
    "quick": {
        "vocab_size": 512,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    },
}
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
class Notes:
    """Documents in memory, as the batches of step 1 read them."""

    documents: tuple[npt.NDArray[np.int64], ...]

    @property
    def lengths_D(self) -> Int64Array:
        """`(D,)` tokens per document."""
        return np.array([len(ids) for ids in self.documents])

    @property
    def targets(self) -> int:
        """Tokens to predict."""
        return int(self.lengths_D.sum()) - len(self.documents)

    def document(self, number: int) -> npt.NDArray[np.int64]:
        """The token ids of one document."""
        return self.documents[number]

    def __str__(self) -> str:
        lengths = self.lengths_D
        share = (lengths == MAX_TOKENS).mean()
        return f"{len(lengths)} notes, mean {lengths.mean():.0f}, {share:.0%} of {MAX_TOKENS}"


@dataclass(frozen=True)
class Way:
    """How our step runs."""

    is_float8: bool = False
    is_compiled: bool = False

    def __str__(self) -> str:
        return "ours" + " float8" * self.is_float8 + ", compiled" * self.is_compiled


OURS = Way()


@dataclass(frozen=True)
class Bench:
    """What all variants have in common."""

    shape: str
    notes: Notes
    device: torch.device
    dtype: Literal["float32", "bfloat16"]
    tokens_per_row: int

    def model(self, attention: str) -> Any:
        """The model with its weights, the same at every call, frozen."""
        options = {"dtype": getattr(torch, self.dtype), "attn_implementation": attention}
        if self.shape == "tiny" and self.device.type != "meta":
            model = AutoModelForCausalLM.from_pretrained(TINY, **options).to(self.device)
        else:
            torch.manual_seed(0)
            with self.device:
                model = AutoModelForCausalLM.from_config(_config(self.shape), **options)
        return model.requires_grad_(requires_grad=False).eval()

    def stack(self, spec: AdapterSpec, way: Way = OURS) -> Stack:
        """Our model of a method."""
        backbone = self.backbone(self.model(PACKED_ATTENTION))
        if way.is_float8:
            quantise_layers(backbone.model.get_decoder(), self.device)
        return stack(backbone, [Layer(DOMAIN, spec, is_trained=True)])

    def flops_per_token(self, spec: AdapterSpec) -> float:
        """Operations of our step per token, on a row of the first notes."""
        outline = dataclasses.replace(self, device=torch.device("meta")).stack(spec)
        lengths = tuple(self.notes.lengths_D[:NOTES_PER_BATCH].tolist())
        cost = step_cost(outline, outline.summed_token_loss, lengths)
        return cost.flops / cost.tokens

    def backbone(self, model: Any) -> Backbone:
        """A model as we handle it."""
        return Backbone(model, self.shape, "bench", 2 * MAX_TOKENS)


def _config(shape: str) -> Any:
    if shape == "tiny":
        return AutoConfig.from_pretrained(TINY)
    values = {"vocab_size": 32_000, "max_position_embeddings": 2 * MAX_TOKENS, **SHAPES[shape]}
    return LlamaConfig(**values, initializer_range=0.02)


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
            padded = collate([{"input_ids": ids} for ids in notes], pad_to)
            inputs = {key: value.to(bench.device) for key, value in padded.items()}
            losses[name] = plain(**inputs).loss.item()
    exact = 1e-4 if bench.dtype == "float32" else 1e-2
    if max(losses.values()) - min(losses.values()) > exact * max(losses.values()):
        sys.exit(f"the losses differ, so nothing is timed: {losses}")


def check_float8(bench: Bench, spec: AdapterSpec) -> None:
    """Stop unless float8 layers give nearly the same loss."""
    notes = bench.notes.documents[:NOTES_PER_BATCH]
    batch = packed_batch(notes, range(len(notes)), bench.device)
    losses = {}
    for way in (OURS, Way(is_float8=True)):
        with torch.inference_mode():
            model = _trained_a_little(bench.stack(spec, way))
            losses[str(way)] = model.summed_token_loss(batch).item() / batch.target_count
    if max(losses.values()) - min(losses.values()) > 1e-2 * max(losses.values()):
        sys.exit(f"the loss of float8 is another, so nothing is timed: {losses}")


def _trained_a_little(model: Stack) -> Stack:
    torch.manual_seed(1)
    for parameter in model.parameters_by_name().values():
        parameter.data += 0.02 * torch.randn_like(parameter)
    return model


def _same_in_plain_peft(bench: Bench, ours: Stack, spec: AdapterSpec) -> Any:
    plain = bench.model("sdpa")
    adapter = ours.adapters[DOMAIN]
    if isinstance(spec, Full):
        plain.load_state_dict(adapter.tensors(), strict=False)
        return plain
    with tempfile.TemporaryDirectory() as folder:
        save_adapter(Path(folder), adapter, ours.backbone)
        return PeftModel.from_pretrained(plain, folder).eval()


def train_ours(bench: Bench, spec: AdapterSpec, way: Way) -> float:
    """Seconds of one epoch in packed rows; layers are compiled before, if they are."""
    model, notes = bench.stack(spec, way), bench.notes
    if way.is_compiled:
        compile_layers(model.backbone)
        batch = packed_batch(
            notes.documents[:NOTES_PER_BATCH], range(NOTES_PER_BATCH), bench.device
        )
        model.summed_token_loss(batch).backward()
        for parameter in model.parameters_by_name().values():
            parameter.grad = None
    model.train_mode()
    per_step = notes.targets * NOTES_PER_BATCH * BATCHES_PER_STEP // len(notes.documents)
    sizes = {"tokens_per_row": bench.tokens_per_row, "targets_per_step": per_step}
    everything = np.arange(len(notes.documents))
    slots = model.reserved_per_document
    batches = pretraining_steps(
        notes, everything, **sizes, seed=0, reserved_per_document=slots, device=bench.device
    )
    count = pretraining_steps_per_epoch(notes.lengths_D, *sizes.values(), slots)
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
    return _timed_on(bench.device, lambda: list(steps))


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
        arguments = TrainingArguments(
            output_dir=folder,
            num_train_epochs=1,
            per_device_train_batch_size=NOTES_PER_BATCH,
            gradient_accumulation_steps=BATCHES_PER_STEP,
            train_sampling_strategy="random" if pad_to else "group_by_length",
            learning_rate=3e-4,
            use_cpu=bench.device.type == "cpu",
            dataloader_pin_memory=bench.device.type != "cpu",
            remove_unused_columns=False,
            save_strategy="no",
            logging_strategy="no",
            report_to=[],
            disable_tqdm=True,
        )
        trainer = Trainer(
            model=model,
            args=arguments,
            train_dataset=examples,
            data_collator=lambda batch: collate(batch, pad_to),
        )
        trainer.remove_callback(PrinterCallback)
        return _timed_on(bench.device, trainer.train)


def collate(examples: list[dict[str, Any]], pad_to: int) -> dict[str, torch.Tensor]:
    """Notes padded on the right; the first token of a note is no target, as in packed rows."""
    width = pad_to or max(len(example["input_ids"]) for example in examples)
    ids = torch.zeros(len(examples), width, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, example in enumerate(examples):
        length = len(example["input_ids"])
        ids[row, :length] = torch.from_numpy(example["input_ids"])
        mask[row, :length] = 1
    labels = ids.masked_fill(mask == 0, -100)
    labels[:, 0] = -100
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


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
            for against in ("B1", "B2", *([OURS] if variant != OURS else [])):
                ratios = [a / b for a, b in zip(values, speeds[against], strict=True)]
                pair = f"{variant} / {against}"
                rows.add(question, pair, bench.notes, ratios, "times as fast")
        # On a CPU an upper bound: the heap may keep what the run before freed.
        rows.add(question, str(variant), bench.notes, peaks[variant], "MiB at most")
    operations = bench.flops_per_token(spec)
    for way in ways:
        rate = matrix_rate(bench.device, "float8" if way.is_float8 else bench.dtype)
        shares = [100 * speed * operations / rate for speed in speeds[way]]
        rows.add(question, str(way), bench.notes, shares, "% of the rate of a matrix product")


def _timed_on(device: torch.device, work: Callable[[], Any]) -> float:
    def run() -> None:
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()

    return timed(run)[0]


def profile_lengths(count: int) -> Iterator[int]:
    """Lengths of mean 183, one in ten at the limit: those that the targets are stated for."""
    rng = np.random.default_rng(0)
    for number in range(count):
        drawn = int(np.clip(rng.lognormal(np.log(128), 0.55), 12, MAX_TOKENS - 1))
        yield MAX_TOKENS if number % 10 == 0 else drawn


def profile_notes(sources: Iterator[npt.NDArray[np.int64]], count: int) -> Notes:
    """Documents cut to the lengths of the profile; one that is too short for its turn is left."""
    lengths = iter(profile_lengths(count))
    documents, length = [], next(lengths)
    for ids in sources:
        if len(ids) >= length:
            documents.append(ids[:length])
            length = next(lengths, 0)
            if not length:
                break
    return Notes(tuple(documents))


def whole_notes(sources: Iterator[npt.NDArray[np.int64]], count: int) -> Notes:
    """Documents as they are, up to the limit."""
    return Notes(tuple(ids[:MAX_TOKENS] for ids in itertools.islice(sources, count)))


def texts(data: Path) -> list[str]:
    """MTSamples reports, each once."""
    csv.field_size_limit(10_000_000)
    with gzip.open(data / "mtsamples/mtsamples.csv.gz") as file:
        table = csv.DictReader(io.TextIOWrapper(file, encoding="utf-8", newline=""))
        return list(dict.fromkeys(row["transcription"] for row in table if row["transcription"]))


def reports(data: Path, shape: str) -> Iterator[npt.NDArray[np.int64]]:
    """MTSamples reports, shuffled, in the model's tokens (LLaMA 2's for random weights)."""
    notes = texts(data)
    if shape == "tiny":
        tokenizer = Tokenizer.from_file(str(TINY / "tokenizer.json"))
    else:
        from notetune.model import llama2c

        pieces = llama2c._read_pieces(data / "llama/llama2_tokenizer.model")
        tokenizer = llama2c._to_tokenizer(pieces)
    for number in np.random.default_rng(0).permutation(len(notes)):
        ids = tokenizer.encode(notes[number], add_special_tokens=False).ids
        yield np.array([BOS, *ids])


def random_ids(vocabulary: int) -> Iterator[npt.NDArray[np.int64]]:
    """Documents of the largest length without any sense, for speed alone."""
    rng = np.random.default_rng(0)
    while True:
        yield rng.integers(2, vocabulary, MAX_TOKENS)


def main() -> None:
    """Measure what is asked for."""
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
    parser.add_argument("--float8", action="store_true", help="also in float8; always on a GPU")
    parser.add_argument("--tokens-per-row", type=int, default=1024)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared/data")
    parser.add_argument("--output", type=Path, default=ROOT / "bench/results/step1.csv")
    given = parser.parse_args()
    _be_quiet()
    shape = "quick" if given.quick else given.shape
    count, repeats = (20, 1) if given.quick else (given.notes, given.repeats)
    if given.quick or given.device == "cuda":
        sources = random_ids(SHAPES[shape].get("vocab_size", 32_000))
    else:
        sources = reports(given.data, shape)
    notes = whole_notes(sources, count) if given.whole else profile_notes(sources, count)
    dtype = given.dtype or ("float32" if given.device == "cpu" else "bfloat16")
    device = torch.device(given.device)
    bench = Bench(shape, notes, device, dtype, given.tokens_per_row)
    name = torch.cuda.get_device_name() if device.type == "cuda" else ""
    rows = Rows(given.output, name)
    float8s = (False, True) if given.float8 or device.type == "cuda" else (False,)
    for method in given.methods:
        spec = METHODS[method]
        check_losses(bench, spec)
        ways = [
            Way(is_float8, is_compiled)
            for is_float8 in (float8s if not needs_plain_weights(spec) else (False,))
            for is_compiled in ((False, True) if given.compile else (False,))
        ]
        if any(way.is_float8 for way in ways):
            check_float8(bench, spec)
        measure(bench, method, repeats, rows, ways)


def _be_quiet() -> None:
    warnings.simplefilter("ignore")
    logging.getLogger("accelerate").setLevel(logging.ERROR)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()


if __name__ == "__main__":
    main()

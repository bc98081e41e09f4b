"""How fast and in how much memory notes become a prepared folder, beside `datasets.map`.

Four questions (`--only` asks one): tokens from real texts on one core, against `datasets.map` with
the same fast tokenizer and identical ids; `prepare` of a csv.gz of made-up notes of real sentences,
with the memory of all its processes; the memory of joining shards, and the packing plan, for as
many notes as MIMIC-IV-Note has.

Needs `datasets` beside the development installation, and the open data (`--data`). On a quiet
machine: `python bench/prepare.py --notes 300000`.
"""

import argparse
import csv
import dataclasses
import functools
import gzip
import io
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ["TOKENIZERS_PARALLELISM"] = "false"  # per core, before anything reads it

import numpy as np
import polars as pl
from documents import llama2_tokenizer
from rows import Rows, timed

from notetune import config, storage
from notetune.notes.clean import clean_text
from notetune.prepare.assemble import assemble
from notetune.prepare.prepared import Intake
from notetune.prepare.shards import Shard
from notetune.recipe.recipe import Recipe
from notetune.sources.cohort import Finished
from notetune.tokens.edges import Edges
from notetune.tokens.encode import DOCUMENT_FIELDS, Documents, Encoder, LongNotes, load_encoder
from notetune.tokens.packing import pack_documents
from notetune.tokens.store import save_documents

ROOT = Path(__file__).parents[1]
MIMIC_RADIOLOGY, MIMIC_DISCHARGE = 2_321_355, 331_794
MIMIC_NOTES = MIMIC_RADIOLOGY + MIMIC_DISCHARGE
MAX_TOKENS = 512
NOTES_PER_SHARD = 2000
PATIENTS = 364_000
# An empty cache; every text seen before; every fourth text, after the others.
_STATES = ("cold", "warm", "new texts")


def bench_tokens(rows: Rows, data: Path, repeats: int) -> None:
    """Tokens of real texts on one core, against `datasets.map`."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        texts = real_texts(data)
        for name, encoder in encoders(data).items():
            for long_notes in ("pieces", "first"):
                _bench_encoder(rows, name, encoder, texts, long_notes, repeats)
    finally:
        os.sched_setaffinity(0, cores)


def _bench_encoder(
    rows: Rows, name: str, encoder: Encoder, texts: list[str], long_notes: LongNotes, repeats: int
) -> None:
    import datasets
    from transformers import PreTrainedTokenizerFast

    datasets.disable_progress_bars()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=encoder.tokenizer)
    options: dict[str, Any] = {"add_special_tokens": False}
    if long_notes == "first":
        options |= {"truncation": True, "max_length": MAX_TOKENS - 1}
    table = datasets.Dataset.from_dict({"text": texts})

    def stock() -> Any:
        return table.map(
            lambda batch: tokenizer(batch["text"], **options), batched=True, keep_in_memory=True
        )

    speeds: dict[str, list[float]] = {name: [] for name in ("datasets.map", *_STATES)}
    ids: Any = None
    for _ in range(repeats):
        seconds, ids = timed(stock)
        speeds["datasets.map"].append(len(texts) / seconds)
        fresh = dataclasses.replace(encoder)  # with an empty cache
        encode = functools.partial(fresh.documents, texts, MAX_TOKENS, long_notes)
        for state in ("cold", "warm"):
            seconds, documents = timed(encode)
            speeds[state].append(len(texts) / seconds)
        other = dataclasses.replace(encoder)
        other.documents([t for n, t in enumerate(texts) if n % 4], MAX_TOKENS, long_notes)
        new = texts[::4]
        seconds, _ = timed(functools.partial(other.documents, new, MAX_TOKENS, long_notes))
        speeds["new texts"].append(len(new) / seconds)
    _check_ids(ids["input_ids"], documents, encoder.edges.end_id, options.get("max_length"))
    question = f"tokens per core, {long_notes}"
    for state, values in speeds.items():
        rows.add(question, state, name, values, "notes/s")
    for state in _STATES:
        ratios = [a / b for a, b in zip(speeds[state], speeds["datasets.map"], strict=True)]
        rows.add(question, f"{state} / datasets.map", name, ratios, "times as fast")


def _check_ids(expected: Any, documents: Documents, eos_id: int, most: int | None) -> None:
    """Stop unless both ways gave the same tokens for every text."""
    begins_T = np.zeros(len(documents.ids), dtype=bool)
    lengths_D = documents.table_D["length"]
    begins_T[np.cumsum(lengths_D) - lengths_D] = True  # BOS, which the other way does not add
    found = documents.ids[~begins_T].tolist()
    if found != [token for ids in expected for token in [*ids, eos_id][:most]]:
        sys.exit("the ids differ from those of datasets.map")


def bench_packing(rows: Rows, repeats: int) -> None:
    """The plan for as many documents as MIMIC-IV-Note has notes, cut at 512 tokens."""
    rng = np.random.default_rng(0)
    sigma = 0.55
    radiology = rng.lognormal(np.log(250) - sigma**2 / 2, sigma, MIMIC_RADIOLOGY).astype(np.int64)
    lengths_D = np.concatenate([np.clip(radiology, 8, 512), np.full(MIMIC_DISCHARGE, 512)])
    rng.shuffle(lengths_D)
    seconds, fills = [], []
    for repeat in range(repeats):
        spent, plan = timed(functools.partial(pack_documents, lengths_D, 4096, (0, repeat)))
        seconds.append(spent)
        fills.append(100 * lengths_D.sum() / (plan.row_count * 4096))
    rows.add("packing plan", "rows of 4096 tokens", len(lengths_D), seconds, "s")
    rows.add("packing plan", "rows of 4096 tokens", len(lengths_D), fills, "% full")


def bench_prepare(rows: Rows, data: Path, notes: int, folder: Path) -> None:
    """`prepare` of two sizes with as many workers as cores, and what follows for MIMIC-IV-Note."""
    measured = []
    for size in (notes // 4, notes):
        path = folder / f"{size}.csv.gz"
        write_notes(path, real_texts(data), size)
        seconds, mebibytes = _prepared_in_a_process(path, folder / f"runs-{size}")
        measured.append((size, seconds, mebibytes))
        rows.add("prepare", "csv.gz", size, [size / seconds], "notes/s")
        rows.add("prepare", "csv.gz, all processes", size, [mebibytes], "MiB at most")
    (less, fast, _), (more, slow, _) = measured
    rest = (MIMIC_NOTES - more) / (more - less)
    minutes = (slow + (slow - fast) * rest) / 60
    rows.add("prepare", "extrapolated", MIMIC_NOTES, [minutes], "min")


def _source(path: Path) -> dict[str, Any]:
    columns = {"text": "text", "note_id": "note_id", "patient_id": "subject_id"}
    return {"kind": "table", "path": str(path), "columns": columns}


def _prepared_in_a_process(path: Path, runs_folder: Path) -> tuple[float, float]:
    """Seconds of `notetune prepare`, and the most that its processes held at a time, in MiB."""
    prepare = {"source": _source(path), "max_tokens": MAX_TOKENS}
    recipe = {"name": "bench", "runs": str(runs_folder), "prepare": prepare}
    recipe_path = path.with_suffix(".json")
    recipe_path.write_text(json.dumps(recipe))
    return _measured([sys.executable, "-m", "notetune", "prepare", str(recipe_path), "--json"])


def _measured(command: list[str]) -> tuple[float, float]:
    """Seconds of a command, and the most that its processes held at a time, in MiB."""
    started = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        peak = 0.0
        while process.poll() is None:
            peak = max(peak, sum(map(_resident_mib, _with_children(process.pid))))
            time.sleep(0.05)
    if process.returncode:
        sys.exit(f"{' '.join(command[1:])} failed")
    return time.perf_counter() - started, peak


def bench_joining(rows: Rows, folder: Path) -> None:
    """What follows the shards at the size of MIMIC-IV-Note: the one part that sees all notes."""
    command = [sys.executable, __file__, "--only-joining", str(folder / "joining")]
    _, mebibytes = _measured(command)
    rows.add("prepare", "joining made-up shards", MIMIC_NOTES, [mebibytes], "MiB at most")


def only_joining(folder: Path) -> None:
    """Make shards, and put them together."""
    recipe = config.parse(
        Recipe, {"name": "bench", "prepare": {"source": _source(folder)}}, "bench"
    )
    starts = range(0, MIMIC_NOTES, NOTES_PER_SHARD)
    shards = [
        made_shard(folder / f"shards/{start:08}", start, min(NOTES_PER_SHARD, MIMIC_NOTES - start))
        for start in starts
    ]
    (folder / "prepared").mkdir()
    is_made_up = Intake(Edges(0, 1), MAX_TOKENS)
    assemble(
        recipe.preparation,
        shards,
        Finished((), ()),
        folder / "prepared",
        lambda *_: is_made_up,
        "own",
    )


def made_shard(folder: Path, first: int, count: int) -> Shard:
    """A shard of notes without text: ten documents for a discharge summary, one for a report."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(first)
    numbers = np.arange(first, first + count)
    is_discharge = first < MIMIC_DISCHARGE
    notes = pl.DataFrame(
        {
            "note_id": [f"{10_000_000 + n % PATIENTS}-DS-{n}" for n in numbers],
            "patient_id": [f"{10_000_000 + n % PATIENTS}" for n in numbers],
            "source": ["discharge" if is_discharge else "radiology"] * count,
            "stay_id": [f"{n}" for n in numbers],
            "time": numbers.astype("datetime64[us]"),
        }
    )
    notes.select("note_id").with_columns(text=pl.lit("")).write_parquet(folder / "texts.parquet")
    hashes = pl.Series("text_hash", [rng.bytes(16) for _ in range(count)], pl.Binary)
    notes.with_columns(hashes).write_parquet(folder / "notes.parquet")
    pieces = 10 if is_discharge else 1
    table_D = np.zeros(count * pieces, DOCUMENT_FIELDS)
    table_D["note"] = np.repeat(np.arange(count), pieces)
    table_D["piece"] = np.tile(np.arange(pieces), count)
    table_D["length"] = 250
    ids = np.zeros(int(table_D["length"].sum()), np.uint16)
    shard = Shard(folder, count)
    shard.tokens.mkdir()
    save_documents(shard.tokens, Documents(ids, table_D))
    storage.write_array(
        folder / "signatures.npy", rng.integers(0, 256, (count, 120), dtype=np.uint8)
    )
    return shard


def real_texts(data: Path) -> list[str]:
    """The different texts of MTSamples."""
    path = data / "mtsamples/mtsamples.csv.gz"
    csv.field_size_limit(10_000_000)
    with gzip.open(path) as file:
        rows = csv.DictReader(io.TextIOWrapper(file, encoding="utf-8", newline=""))
        texts = dict.fromkeys(clean_text(row["transcription"] or "") for row in rows)
    return [text for text in texts if text]


def encoders(data: Path) -> dict[str, Encoder]:
    """The shipped tokenizer, and that of LLaMA 2."""
    tokenizer = llama2_tokenizer(data)
    tokenizer.encode_special_tokens = True
    return {
        "shipped, 2k pieces": load_encoder(ROOT / "src/notetune/backbones/tiny"),
        "LLaMA 2, 32k pieces": Encoder(tokenizer, Edges(1, 2), vocabulary_size=32_000),
    }


def write_notes(path: Path, texts: list[str], notes: int) -> None:
    """Made-up notes with the lengths of MIMIC-IV-Note's: real sentences, new names and numbers."""
    if path.exists():
        return
    rng = random.Random(0)
    sentences = [s for text in texts for s in text.replace("\n", " ").split(". ") if s]
    with gzip.open(path, "wt", compresslevel=1, newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["note_id", "subject_id", "text"])
        for number in range(notes):
            is_discharge = rng.random() < MIMIC_DISCHARGE / MIMIC_NOTES
            chars = 10_500 if is_discharge else rng.lognormvariate(6.75, 0.55)
            text = "".join(_note(rng, sentences, chars))
            writer.writerow([f"{number:08}", f"{rng.randrange(notes // 8 + 1):07}", text])


def _note(rng: random.Random, sentences: list[str], chars: float) -> Iterator[str]:
    yield f"Name:  {_surname(rng)}   Unit No:   {rng.randrange(10**7)}\n"
    length = 0
    while length < chars:
        sentence = f"{rng.choice(sentences)} {rng.randrange(1, 5000)}."
        length += len(sentence) + 1
        yield sentence
        yield rng.choice("\n    ")


def _surname(rng: random.Random) -> str:
    return "".join(rng.choices("aeioulnrstmdkb", k=rng.randint(4, 9))).capitalize()


def _with_children(process_id: int) -> Iterator[int]:
    yield process_id
    try:
        children = Path(f"/proc/{process_id}/task/{process_id}/children").read_text().split()
    except OSError:
        return
    for child in children:
        yield from _with_children(int(child))


def _resident_mib(process_id: int) -> float:
    try:
        lines = Path(f"/proc/{process_id}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS")), 0.0)


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--notes", type=int, default=300_000, help="notes of the csv.gz")
    parser.add_argument("--repeats", type=int, default=5, help="of tokens and packing")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared/data")
    parser.add_argument("--output", type=Path, default=ROOT / "bench/results/prepare.csv")
    parser.add_argument("--folder", type=Path, help="for notes and runs; a temporary one without")
    parser.add_argument("--only", choices=("packing", "tokens", "prepare", "joining"))
    parser.add_argument("--only-joining", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.only_joining:
        only_joining(given.only_joining)
        return
    rows = Rows(given.output)
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        questions = {
            "packing": lambda: bench_packing(rows, given.repeats),
            "tokens": lambda: bench_tokens(rows, given.data, given.repeats),
            "prepare": lambda: bench_prepare(rows, given.data, given.notes, folder),
            "joining": lambda: bench_joining(rows, folder),
        }
        for name in [given.only] if given.only else questions:
            questions[name]()


if __name__ == "__main__":
    main()

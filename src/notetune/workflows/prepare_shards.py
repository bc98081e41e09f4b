"""Notes to shards: some notes each, encoded, written whole or not at all, by several processes."""

import contextlib
import functools
import hashlib
import itertools
import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from notetune import runs
from notetune.notes import near_duplicates, overlap
from notetune.tokens.encode import Encoder, LongNotes, load_encoder
from notetune.tokens.store import save_documents

NOTES = "notes.parquet"
TEXT_HASH = "text_hash"
_TEXTS = "texts.parquet"
_SIGNATURES = "signatures.npy"
_NOTES_PER_SHARD = 2000  # 20 MB of discharge summaries: several fit into memory at once


@dataclass(frozen=True)
class Encoding:
    """How notes become tokens."""

    backbone: Path
    max_tokens: int
    long_notes: LongNotes


@dataclass(frozen=True)
class Shard:
    """A folder with consecutive notes.

    It holds their ids (`notes.parquet`), their texts (`texts.parquet`) and their documents.
    """

    folder: Path
    note_count: int


_Job = tuple[Shard, pl.DataFrame]


def write_shards(
    chunks: Iterable[pl.DataFrame], folder: Path, encoding: Encoding, workers: int
) -> list[Shard]:
    """Encode notes into shards; shards that an earlier run finished stay as they are.

    Args:
        chunks: Frames of `NOTES_SCHEMA`; never more than a few are in memory.
        folder: Where the shards go.
        encoding: How to encode.
        workers: Processes that encode. The shards do not depend on it.

    Returns:
        The shards, in the order of the notes.
    """
    frames = itertools.chain.from_iterable(chunk.iter_slices(_NOTES_PER_SHARD) for chunk in chunks)
    jobs: Iterator[_Job] = (
        (Shard(folder / f"{number:06}", frame.height), frame) for number, frame in enumerate(frames)
    )
    first = list(itertools.islice(jobs, 2))
    jobs = itertools.chain(first, jobs)
    if workers == 1 or len(first) < 2:  # a process takes a second to start
        encoder = load_encoder(encoding.backbone)
        return [_write_shard(job, encoder, encoding) for job in jobs]
    return list(_written_by_workers(jobs, encoding, workers))


def usable_cores() -> int:
    """Processor cores that this process may use."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _written_by_workers(jobs: Iterable[_Job], encoding: Encoding, workers: int) -> Iterator[Shard]:
    # A forked process would inherit the locks of polars' threads, so processes are started anew.
    pool = ProcessPoolExecutor(
        workers, multiprocessing.get_context("spawn"), initializer=_start_worker
    )
    with pool:
        waiting: deque[Future[Shard]] = deque()
        for job in jobs:
            waiting.append(pool.submit(_write_in_worker, job, encoding))
            if len(waiting) > workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that started it handles Ctrl-C
    runs.make_files_private()
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this process when the one that started it is killed, which tells nobody."""
    if (parent := multiprocessing.parent_process()) is not None:
        parent.join()
        os._exit(1)


_encoder_of_worker = functools.cache(load_encoder)


def _write_in_worker(job: _Job, encoding: Encoding) -> Shard:
    return _write_shard(job, _encoder_of_worker(encoding.backbone), encoding)


def _write_shard(job: _Job, encoder: Encoder, encoding: Encoding) -> Shard:
    shard, notes = job
    hashes = notes.hash_rows().to_numpy()
    depends_on = {"notes": hashlib.sha256(hashes.tobytes()).hexdigest()}
    if runs.is_finished(shard.folder, depends_on):
        return shard
    texts = notes["text"].to_list()
    hashes_of_texts = pl.Series(TEXT_HASH, overlap.text_hashes(texts), pl.Binary)
    with runs.new_folder(shard.folder, depends_on) as folder:
        notes.select("note_id", "text").write_parquet(folder / _TEXTS)
        notes.drop("text").with_columns(hashes_of_texts).write_parquet(folder / NOTES)
        documents = encoder.documents(texts, encoding.max_tokens, encoding.long_notes)
        save_documents(folder, documents)
        np.save(folder / _SIGNATURES, near_duplicates.signatures(texts))
    return shard


def text_signatures(shard: Shard) -> near_duplicates.Signatures:
    """The signatures of a shard's notes, for finding near-duplicates."""
    signatures: near_duplicates.Signatures = np.load(shard.folder / _SIGNATURES)
    return signatures


def slices(shards: Iterable[Shard], column: pl.Series) -> Iterator[tuple[Shard, pl.Series]]:
    """Each shard with its part of a column over the notes of all shards."""
    first = 0
    for shard in shards:
        yield shard, column[first : first + shard.note_count]
        first += shard.note_count


def texts_of(shards: Iterable[Shard], is_wanted: pl.Series) -> Iterator[str]:
    """The texts of some notes, one shard in memory at a time.

    Args:
        shards: All shards.
        is_wanted: Boolean, over the notes of all shards.
    """
    for shard, wanted in slices(shards, is_wanted):
        if wanted.any():
            yield from pl.read_parquet(shard.folder / _TEXTS, columns=["text"]).filter(wanted)[
                "text"
            ]


def take_texts(shards: Iterable[Shard], is_wanted: pl.Series, folder: Path) -> None:
    """Put the texts of some notes into a new folder, a Parquet file per shard.

    Args:
        shards: All shards.
        is_wanted: Boolean, over the notes of all shards.
        folder: A folder that does not exist yet, on the file system of the shards.
    """
    folder.mkdir()
    for shard, wanted in slices(shards, is_wanted):
        old, new = shard.folder / _TEXTS, folder / f"{shard.folder.name}.parquet"
        if not wanted.all():
            pl.read_parquet(old).filter(wanted).write_parquet(new)
            continue
        with contextlib.suppress(OSError):  # some file systems have no links
            new.hardlink_to(old)
            continue
        new.write_bytes(old.read_bytes())

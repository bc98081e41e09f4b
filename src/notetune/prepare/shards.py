"""Notes to shards: some notes each, written and then encoded, whole or not at all, by processes."""

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
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import TypeVar

import numpy as np
import polars as pl

from notetune import manifest, runs, storage
from notetune.errors import RunError
from notetune.notes import near_duplicates, overlap_text
from notetune.tokens.edges import Edges
from notetune.tokens.encode import LongNotes, load_encoder
from notetune.tokens.store import save_documents

NOTES = "notes.parquet"
TEXT_HASH = "text_hash"
SIGNATURES = "signatures.npy"
"""Of all texts, for finding equal and nearly equal ones in other notes."""
_TEXTS = "texts.parquet"
_NOTES_PER_SHARD = 2000  # 20 MB of discharge summaries: several fit into memory at once


@dataclass(frozen=True)
class Encoding:
    """How notes become tokens."""

    backbone: Path
    edges: Edges
    max_tokens: int
    long_notes: LongNotes


@dataclass(frozen=True)
class Shard:
    """A folder with the ids (`notes.parquet`) and texts (`texts.parquet`) of consecutive notes."""

    folder: Path
    note_count: int

    @property
    def tokens(self) -> Path:
        """The folder with their documents, once they are encoded."""
        return self.folder.with_name(f"{self.folder.name}-tokens")


_T = TypeVar("_T")


def write_shards(chunks: Iterable[pl.DataFrame], folder: Path, workers: int) -> list[Shard]:
    """Write notes as shards, in their order; those that an earlier run finished stay as they are.

    Chunks are frames of `NOTES_SCHEMA`, of which never more than a few are in memory. The shards do
    not depend on the number of processes that write them.
    """
    frames = itertools.chain.from_iterable(chunk.iter_slices(_NOTES_PER_SHARD) for chunk in chunks)
    jobs = (
        (Shard(folder / f"{number:06}", frame.height), frame) for number, frame in enumerate(frames)
    )
    return _shared_out(_write_shard, jobs, workers)


def encode_shards(shards: Iterable[Shard], encoding: Encoding, workers: int) -> None:
    """Encode the notes of shards; those that an earlier run encoded so stay as they are."""
    _shared_out(functools.partial(_encode_shard, encoding), shards, workers)


def usable_cores() -> int:
    """Processor cores that this process may use."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _shared_out(work: Callable[[_T], Shard], jobs: Iterable[_T], workers: int) -> list[Shard]:
    """What `work` makes of every job, in order, by several processes if there are several jobs."""
    jobs = iter(jobs)
    first = list(itertools.islice(jobs, 2))
    jobs = itertools.chain(first, jobs)
    if workers == 1 or len(first) < 2:  # a process takes a second to start
        return [work(job) for job in jobs]
    # A forked process would inherit the locks of polars' threads, so processes are started anew.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, initializer=_start_worker)
    done: list[Shard] = []
    waiting: deque[Future[Shard]] = deque()
    try:
        with pool:
            for job in jobs:
                with _main_module_left_out():
                    waiting.append(pool.submit(work, job))
                if len(waiting) > workers:
                    done.append(waiting.popleft().result())
            return [*done, *(future.result() for future in waiting)]
    except BrokenProcessPool:
        raise RunError(
            "a process that prepares notes was killed, perhaps for memory. The same command goes "
            "on; with a lower prepare.workers it needs less."
        ) from None


@contextlib.contextmanager
def _main_module_left_out() -> Iterator[None]:
    """Start processes that do not run the script again which called, as Python has them do.

    It would call us once more, and wait for itself.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that started it handles Ctrl-C
    runs.make_files_private()
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this process when the one that started it is killed, which tells nobody."""
    if (parent := multiprocessing.parent_process()) is not None:
        parent.join()
        os._exit(1)


_encoder = functools.lru_cache(maxsize=1)(load_encoder)


def _write_shard(job: tuple[Shard, pl.DataFrame]) -> Shard:
    shard, notes = job
    hashes = notes.hash_rows().to_numpy()
    depends_on = {"notes": hashlib.sha256(hashes.tobytes()).hexdigest()}
    if manifest.is_finished(shard.folder, depends_on):
        return shard
    texts = notes["text"].to_list()
    hashes_of_texts = pl.Series(TEXT_HASH, overlap_text.text_hashes(texts), pl.Binary)
    with runs.new_folder(shard.folder, depends_on) as folder:
        notes.select("note_id", "text").write_parquet(folder / _TEXTS)
        notes.drop("text").with_columns(hashes_of_texts).write_parquet(folder / NOTES)
        storage.write_array(folder / SIGNATURES, near_duplicates.signatures(texts))
    return shard


def _encode_shard(encoding: Encoding, shard: Shard) -> Shard:
    notes = storage.read_json(shard.folder / manifest.MANIFEST)["inputs"]
    depends_on = {"notes": notes, "encoding": asdict(encoding)}
    if manifest.is_finished(shard.tokens, depends_on):
        return shard
    encoder = _encoder(encoding.backbone, encoding.edges)
    texts = pl.read_parquet(shard.folder / _TEXTS, columns=["text"], glob=False)["text"].to_list()
    with runs.new_folder(shard.tokens, depends_on) as folder:
        documents = encoder.documents(texts, encoding.max_tokens, encoding.long_notes)
        save_documents(folder, documents)
    return shard


def slices(shards: Iterable[Shard], column: pl.Series) -> Iterator[tuple[Shard, pl.Series]]:
    """Each shard with its part of a column over the notes of all shards."""
    first = 0
    for shard in shards:
        yield shard, column[first : first + shard.note_count]
        first += shard.note_count


def signatures_of(shards: Sequence[Shard], is_wanted: pl.Series) -> near_duplicates.Signatures:
    """The signatures of some notes, for finding near-duplicates, without a copy of all of them."""
    like, end = np.load(shards[0].folder / SIGNATURES, mmap_mode="r"), 0
    found: near_duplicates.Signatures = np.empty((is_wanted.sum(), *like.shape[1:]), like.dtype)
    for shard, wanted in slices(shards, is_wanted.fill_null(value=False)):
        block = np.load(shard.folder / SIGNATURES)[wanted.to_numpy()]
        found[end : end + len(block)] = block
        end += len(block)
    return found


def texts_of(shards: Iterable[Shard], is_wanted: pl.Series) -> Iterator[str]:
    """The texts of some notes of all shards, one shard in memory at a time."""
    for shard, wanted in slices(shards, is_wanted):
        if wanted.any():
            texts = pl.read_parquet(shard.folder / _TEXTS, columns=["text"], glob=False)["text"]
            yield from texts.filter(wanted)


def take_texts(shards: Iterable[Shard], is_wanted: pl.Series, folder: Path) -> None:
    """Put the texts of some notes into a new folder, a Parquet file per shard.

    The folder must not exist yet, and be on the file system of the shards.
    """
    folder.mkdir()
    for shard, wanted in slices(shards, is_wanted):
        old, new = shard.folder / _TEXTS, folder / f"{shard.folder.name}.parquet"
        if not wanted.all():
            pl.read_parquet(old, glob=False).filter(wanted).write_parquet(new)
            continue
        with contextlib.suppress(OSError):  # some file systems have no links
            new.hardlink_to(old)
            continue
        new.write_bytes(old.read_bytes())

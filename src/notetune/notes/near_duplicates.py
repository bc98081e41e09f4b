"""Notes that are nearly the same: MinHash signatures, compared in bands.

A signature takes 120 bytes, whatever the length of the note, and says nothing about who wrote or
whom it is about. What comes out are counts and the ids to keep, never which note is like which.
"""

import functools
import hashlib
import operator
from collections.abc import Iterable
from typing import Final

import numpy as np
import numpy.typing as npt

from notetune.notes.overlap_text import normalised_text

SIMILARITY: Final = 0.8
"""Notes are near-duplicates if they share this part of their runs of words (Jaccard)."""
_WORDS_PER_RUN: Final = 5
_PERMUTATIONS: Final = 120
_ROWS_PER_BAND: Final = 6
"""20 bands of 6: a pair with Jaccard 0.8 is compared with probability 0.998, one with 0.5 with
0.27, one with 0.3 with 0.01. Source: 1 - (1 - s^6)^20 (Leskovec, Rajaraman, Ullman, chapter 3)."""
_MOST_COMPARED: Final = 200
"""Candidates tried per note and band; more only happens where hundreds of different notes share a
long opening, and these are then compared in the other bands."""

Signatures = npt.NDArray[np.uint8]
"""`(N, 120)`, one byte per permutation; N notes."""


def signatures(texts: Iterable[str]) -> Signatures:
    """A signature per text, equal when only letter case, white space or marks differ.

    Each is made of the sets of five words that follow each other, and keeps the lowest byte of
    every minimum, which is enough to compare and makes millions of notes fit in memory.

    Source:
        Broder 1997 (resemblance by minimal hashes); Li and Koenig 2010 (b-bit minwise hashing).
    """
    import datasketch  # type: ignore[import-untyped]  # with all of scipy.integrate

    # The runs are hashed already: `operator.index` gives each number back.
    empty = datasketch.MinHash(num_perm=_PERMUTATIONS, seed=1, hashfunc=operator.index)
    rows = []
    for text in texts:
        sketch = empty.copy()
        sketch.update_batch(_run_hashes(normalised_text(text)).tolist())
        rows.append(sketch.hashvalues.astype(np.uint8))
    return np.array(rows, dtype=np.uint8).reshape(len(rows), _PERMUTATIONS)


def are_matched(signatures_A: Signatures, signatures_B: Signatures) -> npt.NDArray[np.bool_]:
    """Which notes of B have a near-duplicate in A: `(B,)`.

    Similarity is estimated, with a standard error of 0.04 at the threshold; a pair below the
    threshold can so be counted, and one above it missed.
    """
    found_B = np.zeros(len(signatures_B), dtype=np.bool_)
    if not len(signatures_A):
        return found_B
    for keys_A, keys_B in zip(_bands(signatures_A), _bands(signatures_B), strict=True):
        order_A = np.argsort(keys_A, kind="stable")
        first_B = np.searchsorted(keys_A[order_A], keys_B, side="left")
        last_B = np.searchsorted(keys_A[order_A], keys_B, side="right")
        for step in range(_MOST_COMPARED):
            rows = np.flatnonzero(~found_B & (first_B + step < last_B))
            if not rows.size:
                break
            theirs = signatures_A[order_A[first_B[rows] + step]]
            found_B[rows] = _similarity(theirs, signatures_B[rows]) >= SIMILARITY
    return found_B


def have_earlier_match(signatures_N: Signatures) -> npt.NDArray[np.bool_]:
    """Which notes have a near-duplicate before them: `(N,)`, as `are_matched`.

    Each note is compared with the first of those that share a band with it and with the last one
    before it, so that time grows with N log N however often a template is repeated.
    """
    found_N = np.zeros(len(signatures_N), dtype=np.bool_)
    for keys_N in _bands(signatures_N):
        order_N = np.argsort(keys_N, kind="stable")
        is_new = np.r_[True, keys_N[order_N][1:] != keys_N[order_N][:-1]]
        start_N = np.maximum.accumulate(np.where(is_new, np.arange(len(keys_N)), 0))
        for position_N in (start_N, np.arange(len(keys_N)) - 1):
            later = np.flatnonzero(~is_new & ~found_N[order_N])
            ours, theirs = order_N[later], order_N[position_N[later]]
            found_N[ours] = _similarity(signatures_N[ours], signatures_N[theirs]) >= SIMILARITY
    return found_N


def _bands(signatures_N: Signatures) -> Iterable[npt.NDArray[np.uint64]]:
    """The keys of each band, `(N,)`: notes with an equal key are worth comparing."""
    for start in range(0, _PERMUTATIONS, _ROWS_PER_BAND):
        keys = np.zeros((len(signatures_N), 8), dtype=np.uint8)
        keys[:, :_ROWS_PER_BAND] = signatures_N[:, start : start + _ROWS_PER_BAND]
        yield keys.view(np.uint64)[:, 0]


def _similarity(ours_P: Signatures, theirs_P: Signatures) -> npt.NDArray[np.float64]:
    """Estimated Jaccard similarity of P pairs; one byte in 256 is equal by chance."""
    equal_P = np.mean(ours_P == theirs_P, axis=1)
    return np.asarray((equal_P - 1 / 256) / (1 - 1 / 256), dtype=np.float64)


def _run_hashes(text: str) -> npt.NDArray[np.uint32]:
    """A hash per run of five words; one of the whole text, where it is shorter."""
    words = np.array([_word_hash(word) for word in text.split()] or [0], dtype=np.uint64)
    runs = max(len(words) - _WORDS_PER_RUN + 1, 1)
    mixed = np.zeros(runs, dtype=np.uint64)
    for place in range(min(_WORDS_PER_RUN, len(words))):
        # An odd factor of its own, so that the same words in another order mix to another value.
        factor = np.uint64(pow(0x9E3779B97F4A7C15, place + 1, 2**64))
        mixed += words[place : place + runs] * factor
    return (mixed >> np.uint64(32)).astype(np.uint32)


@functools.lru_cache(maxsize=1 << 18)
def _word_hash(word: str) -> int:
    digest = hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little")

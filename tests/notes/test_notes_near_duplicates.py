"""MinHash against exact Jaccard, and the bands against the LSH index of datasketch."""

import random

import datasketch
import numpy as np

from notetune.notes.near_duplicates import (
    SIMILARITY,
    are_matched,
    have_earlier_match,
    signatures,
)
from notetune.notes.overlap_text import normalised_text

WORDS = [f"word{i}" for i in range(3_000)]


def random_text(rng, words=200):
    return " ".join(rng.choices(WORDS, k=words))


def edited(text, edits, rng):
    words = text.split()
    for _ in range(edits):
        words[rng.randrange(len(words))] = rng.choice(WORDS)
    return " ".join(words)


def runs_of(text):
    words = normalised_text(text).split()
    return {tuple(words[i : i + 5]) for i in range(max(len(words) - 4, 1))}


def jaccard(one, other):
    ours, theirs = runs_of(one), runs_of(other)
    return len(ours & theirs) / len(ours | theirs)


def family(seed=0):
    """Pairs of an original and its edited copy, from nearly equal to hardly alike."""
    rng = random.Random(seed)
    originals = [random_text(rng) for _ in range(300)]
    return originals, [edited(text, i % 15, rng) for i, text in enumerate(originals)]


def test_the_share_of_equal_bytes_estimates_the_jaccard_similarity():
    originals, copies = family()
    exact = np.array([jaccard(a, b) for a, b in zip(originals, copies, strict=True)])
    equal = (signatures(originals) == signatures(copies)).mean(axis=1)
    errors = (equal - 1 / 256) / (1 - 1 / 256) - exact
    assert exact.min() < 0.55 < 0.95 < exact.max()
    assert abs(errors.mean()) < 0.01
    assert errors.std() < 0.05


def test_case_space_and_marks_do_not_change_a_signature():
    same = ["Seen by Dr. [**Last Name 7**] today at noon", "seen  by dr. ___ TODAY\nat noon"]
    first, second = signatures(same)
    assert (first == second).all()
    assert signatures([]).shape == (0, 120)
    assert signatures(["", "one two"]).shape == (2, 120)
    rng = random.Random(1)
    text = random_text(rng)
    assert (signatures([text])[0] == signatures([random_text(rng), text])[1]).all()


def test_near_duplicates_are_found_and_others_are_not():
    originals, copies = family()
    exact = np.array([jaccard(a, b) for a, b in zip(originals, copies, strict=True)])
    found = are_matched(signatures(originals), signatures(copies))
    clear = exact >= SIMILARITY + 0.1
    assert clear.sum() > 50
    assert found[clear].mean() >= 0.99
    different = exact <= SIMILARITY - 0.15
    assert different.sum() > 50
    assert found[different].mean() <= 0.01
    assert not are_matched(signatures(originals[:100]), signatures(originals[100:])).any()


def test_the_bands_choose_the_pairs_that_the_index_of_datasketch_chooses():
    originals, copies = family(seed=3)

    def sketch(text):
        made = datasketch.MinHash(num_perm=120)
        made.update_batch([" ".join(run).encode() for run in runs_of(text)])
        return made

    index = datasketch.MinHashLSH(num_perm=120, params=(20, 6))
    sketches = [sketch(text) for text in originals]
    for number, made in enumerate(sketches):
        index.insert(number, made)
    by_index = []
    for text in copies:
        made = sketch(text)
        alike = [sketches[number].jaccard(made) for number in index.query(made)]
        by_index.append(max(alike, default=0.0) >= SIMILARITY)
    by_bands = are_matched(signatures(originals), signatures(copies))
    # The two hash differently, so that pairs near the threshold may fall on either side.
    assert sum(by_index) > 50
    assert (by_bands != np.array(by_index)).mean() < 0.08


def test_a_match_is_found_behind_many_candidates_of_the_same_band():
    rng = np.random.default_rng(0)
    ours = rng.integers(0, 256, (1, 120), dtype=np.uint8)
    crowd = rng.integers(0, 256, (150, 120), dtype=np.uint8)
    crowd[:, :6] = ours[0, :6]
    assert not are_matched(crowd, ours).any()
    near = ours.copy()
    near[0, 6::6] += 1  # one byte of every other band, so that only the crowded one can tell
    assert are_matched(np.concatenate([crowd, near]), ours).all()
    assert are_matched(np.concatenate([near, crowd]), ours).all()
    assert not are_matched(crowd[:0], ours).any()
    assert are_matched(ours, crowd[:0]).shape == (0,)


def test_only_the_first_of_a_family_has_no_earlier_match():
    rng = random.Random(5)
    families = [random_text(rng) for _ in range(40)]
    texts = [edited(families[i % 40], min(i // 40, 2), rng) for i in range(400)]
    found = have_earlier_match(signatures(texts))
    assert not found[:40].any()
    assert found[40:].mean() > 0.99


def test_the_earlier_matches_are_those_of_comparing_all_pairs():
    originals, copies = family(seed=7)
    texts = [text for pair in zip(originals, copies, strict=True) for text in pair]
    made = signatures(texts)
    equal = (made[:, None] == made[None]).mean(axis=2)
    alike = np.tril((equal - 1 / 256) / (1 - 1 / 256) >= SIMILARITY, k=-1).any(axis=1)
    found = have_earlier_match(made)
    assert alike.sum() > 80
    assert not (found & ~alike).any()
    assert (alike & ~found).sum() <= 2


def test_the_first_of_each_family_has_no_earlier_match():
    rng = random.Random(9)
    first = [random_text(rng) for _ in range(30)]
    texts = first + [edited(text, 1, rng) for text in first[:20]] + [first[0]]
    assert have_earlier_match(signatures(texts)).tolist() == [False] * 30 + [True] * 21
    assert have_earlier_match(signatures([])).tolist() == []

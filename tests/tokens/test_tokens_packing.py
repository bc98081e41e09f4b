import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from notetune.errors import DataError
from notetune.tokens.packing import pack_documents

lengths_lists = st.lists(st.integers(1, 50), min_size=1, max_size=200)


@given(lengths_lists, st.integers(50, 120), st.integers(0, 5))
def test_every_document_is_in_one_row_and_no_row_exceeds_the_budget(lengths, budget, seed):
    lengths_D = np.array(lengths)
    plan = pack_documents(lengths_D, budget, seed)
    assert sorted(plan.order_D.tolist()) == list(range(len(lengths)))
    rows = [plan.row(number) for number in range(plan.row_count)]
    assert sum(map(len, rows)) == len(lengths)
    for row in rows:
        assert 0 < lengths_D[row].sum() <= budget
        assert (np.diff(lengths_D[row]) <= 0).all()


@given(lengths_lists, st.integers(50, 120))
def test_rows_are_within_the_proven_bound_of_the_fewest_possible(lengths, budget):
    rows = pack_documents(np.array(lengths), budget).row_count
    fewest = -(-sum(lengths) // budget)
    assert fewest <= rows <= 11 / 9 * max(fewest, sum(n > budget / 2 for n in lengths)) * 1.5 + 4


def test_a_row_is_the_fullest_that_still_has_room():
    plan = pack_documents(np.array([6, 5, 3, 2]), 8)
    assert [set(plan.row(r).tolist()) for r in range(plan.row_count)] == [{0, 3}, {1, 2}]


def test_the_seed_mixes_documents_of_one_length_but_never_the_number_of_rows():
    lengths = np.full(100, 10)
    first, second = pack_documents(lengths, 40, 1), pack_documents(lengths, 40, 2)
    assert first.row_count == second.row_count == 25
    assert first.order_D.tolist() != second.order_D.tolist()
    assert first.order_D.tolist() == pack_documents(lengths, 40, 1).order_D.tolist()


def test_rows_of_note_like_lengths_are_more_than_99_percent_full():
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.lognormal(5, 0.6, 20_000).astype(np.int64), 1, 512)
    assert lengths.sum() / (pack_documents(lengths, 4096).row_count * 4096) > 0.99


def best_fit_one_by_one(lengths, budget):
    """The number of rows of best-fit decreasing, by its definition."""
    rooms = []
    for length in sorted(lengths, reverse=True):
        fitting = [room for room in rooms if room >= length]
        if fitting:
            rooms[rooms.index(min(fitting))] -= length
        else:
            rooms.append(budget - length)
    return sorted(rooms)


@given(lengths_lists, st.integers(50, 120))
def test_rows_placed_together_are_as_full_as_those_of_documents_placed_one_by_one(lengths, budget):
    lengths_D = np.array(lengths)
    plan = pack_documents(lengths_D, budget)
    rows = [plan.row(number) for number in range(plan.row_count)]
    rooms = sorted(budget - int(lengths_D[row].sum()) for row in rows)
    assert rooms == best_fit_one_by_one(lengths, budget)


def test_the_seed_moves_documents_between_rows_of_every_length():
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 20, 2000)
    first, second = (pack_documents(lengths, 64, seed) for seed in (1, 2))
    assert first.starts_R.tolist() == second.starts_R.tolist()
    assert lengths[first.order_D].tolist() == lengths[second.order_D].tolist()
    moved = first.order_D != second.order_D
    assert [moved[lengths[first.order_D] == n].any() for n in range(1, 20)] == [True] * 19


@pytest.mark.parametrize(
    ("lengths", "message"),
    [([], "no document to pack"), ([3, 0], "document 1 has 0 tokens"), ([9, 3], "holds 1..8")],
)
def test_empty_and_too_long_documents_are_refused(lengths, message):
    with pytest.raises(DataError, match=message):
        pack_documents(np.array(lengths, dtype=np.int64), 8)

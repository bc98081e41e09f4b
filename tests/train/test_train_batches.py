from itertools import islice

import numpy as np
import pytest
import torch
from builders import random_batch, random_llama, small_store

from notetune.tokens.packing import steps_per_epoch
from notetune.train.batches import (
    LabelledBatch,
    labelled_rows,
    pretraining_steps,
    rows_in_order,
    shuffled_steps,
)

ROW = np.arange(3)
TEXTS = ["word " * n for n in (1, 3, 30, 8, 12, 2, 25, 5, 9, 4)]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("store")
    backbone = random_llama(folder / "backbone")
    return small_store(folder / "store", backbone, TEXTS, splits=["train"] * 10, max_tokens=40)


def step_documents(step):
    return [int(d) for row in step for d in row.documents_D]


def test_an_epoch_of_pretraining_reads_every_document_once(store):
    documents = store.documents_of("train")
    lengths = store.lengths_D[documents]
    per_epoch = steps_per_epoch(lengths, 64, 100)
    assert per_epoch > 2
    stream = pretraining_steps(store, documents, tokens_per_row=64, targets_per_step=100, seed=3)
    for _ in range(3):
        epoch = list(islice(stream, per_epoch))
        read = [d for step in epoch for d in step_documents(step)]
        assert sorted(read) == documents.tolist()


def test_the_order_depends_on_seed_and_epoch_only(store):
    def order(seed):
        stream = pretraining_steps(
            store, store.documents_of("train"), tokens_per_row=64, targets_per_step=100, seed=seed
        )
        return [step_documents(step) for step in islice(stream, 12)]

    first = order(1)
    assert first == order(1)
    assert first != order(2)
    assert first[:6] != first[6:]


def test_a_row_holds_the_tokens_of_its_documents(store):
    documents = store.documents_of("train")
    seen = 0
    for batch in rows_in_order(store, documents, 64, 0, "cpu"):
        parts = torch.split(batch.ids_T, list(batch.lengths_D))
        for number, part in zip(batch.documents_D, parts, strict=True):
            assert part.tolist() == store.document(int(number)).tolist()
            seen += 1
    assert seen == len(documents)


def test_labels_stay_with_their_notes_through_shuffling_and_packing(store):
    note_ids = [f"note-{i}" for i in range(10)]
    documents = store.first_documents(note_ids)
    targets = np.eye(10, dtype=np.int8)  # note i has label i
    steps = islice(shuffled_steps(10, 4, seed=0), 3)
    seen = []
    for step in labelled_rows(store, documents, targets, steps, tokens_per_row=64):
        for batch in step:
            assert batch.target_count == len(batch.inputs.lengths_D)
            notes = store.note_number_D[batch.inputs.documents_D]
            assert batch.targets_NK.argmax(1).tolist() == notes.tolist()
            seen += notes.tolist()
    assert sorted(seen) == list(range(10))


@pytest.mark.parametrize("max_pieces", [1, 2, 3])
def test_all_pieces_of_a_note_share_a_row_that_has_room_for_them(store, max_pieces):
    documents = store.first_documents([f"note-{i}" for i in range(10)])
    targets = np.eye(10, dtype=np.int8)
    room = {"tokens_per_row": 44 * max_pieces, "reserved_per_document": 4}
    steps = islice(shuffled_steps(10, 5, seed=0), 2)
    notes, longest = [], 0
    for step in labelled_rows(store, documents, targets, steps, **room, max_pieces=max_pieces):
        for batch in step:
            row = batch.inputs
            assert sum(row.lengths_D) + 4 * len(row.lengths_D) <= room["tokens_per_row"]
            of_row = batch.targets_NK.argmax(1).tolist()
            expected = [np.flatnonzero(store.note_number_D == n)[:max_pieces] for n in of_row]
            assert row.documents_D.tolist() == np.concatenate(expected).tolist()
            assert list(row.pieces_N) == [len(pieces) for pieces in expected]
            assert batch.documents_D.tolist() == [pieces[0] for pieces in expected]
            notes += of_row
            longest = max(longest, *row.pieces_N)
    assert sorted(notes) == list(range(10))
    assert longest == max_pieces


def test_a_stream_that_starts_at_a_later_step_reads_what_the_whole_one_reads_there(store):
    documents = store.documents_of("train")
    options = {"tokens_per_row": 64, "targets_per_step": 100, "seed": 3}
    whole = list(islice(pretraining_steps(store, documents, **options), 20))
    of_notes = [part.tolist() for part in islice(shuffled_steps(10, 4, seed=1), 20)]
    for first in range(18):
        stream = pretraining_steps(store, documents, **options, first_step=first)
        later = [step_documents(step) for step in islice(stream, 2)]
        assert later == [step_documents(step) for step in whole[first : first + 2]]
        notes = islice(shuffled_steps(10, 4, seed=1, first_step=first), 2)
        assert [part.tolist() for part in notes] == of_notes[first : first + 2]


def test_what_lies_before_the_first_step_is_not_read(store, monkeypatch):
    read = []
    monkeypatch.setattr(type(store), "document", lambda self, number: read.append(number) or ROW)
    stream = pretraining_steps(
        store,
        store.documents_of("train"),
        tokens_per_row=64,
        targets_per_step=100,
        seed=3,
        first_step=1000,
    )
    assert len(step_documents(next(stream))) == len(read) < 10


def test_a_row_of_one_note_has_no_halves():
    labelled = LabelledBatch(random_batch([5]), torch.ones(1, 2))
    assert labelled.halves() == (labelled,)


def test_labels_stay_with_their_notes_when_a_batch_is_halved():
    halves = LabelledBatch(random_batch([20, 9, 5, 4, 3]), torch.eye(5)).halves()
    assert [half.target_count for half in halves] == [1, 4]
    assert torch.equal(torch.cat([half.targets_NK for half in halves]), torch.eye(5))
    assert [half.documents_D.tolist() for half in halves] == [[0], [1, 2, 3, 4]]

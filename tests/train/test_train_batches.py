from itertools import islice

import numpy as np
import pytest
import torch
from builders import random_llama, small_store

from notetune.train.batches import (
    labelled_rows,
    pretraining_steps,
    pretraining_steps_per_epoch,
    rows_in_order,
    shuffled_steps,
)

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
    per_epoch = pretraining_steps_per_epoch(lengths, 64, 100)
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

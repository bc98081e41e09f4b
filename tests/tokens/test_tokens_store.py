import dataclasses
import weakref
from mmap import mmap

import numpy as np
import polars as pl
import pytest
from builders import random_llama, small_store
from byte_encoder import ENCODER, TEXTS

from notetune.errors import RunError
from notetune.tokens.encode import load_encoder
from notetune.tokens.store import (
    encode_notes,
    join_documents,
    open_store,
    read_documents,
    save_documents,
)


@pytest.fixture
def store(tmp_path):
    backbone = random_llama(tmp_path / "backbone")
    splits = ["train", "test", "train", "validation"]
    return small_store(tmp_path / "store", backbone, TEXTS, splits=splits, max_tokens=32)


def test_a_store_gives_back_every_note(store):
    decode = ENCODER.tokenizer.decode
    for number, text in enumerate(TEXTS):
        documents = np.flatnonzero(store.note_number_D == number)
        assert len(documents) >= 1
        tokens = [t for d in documents for t in store.document(int(d))[1:].tolist()]
        assert decode(tokens) == text
        assert store.text_bytes_D[documents].sum() == len(text.encode())
    assert store.lengths_D.sum() == len(store.ids)


def test_documents_are_found_by_split_and_source(store):
    notes = store.note_number_D[store.documents_of("train")]
    assert sorted(set(notes.tolist())) == [0, 2]
    assert len(store.documents_of("train", ["radiology"])) == 0
    assert len(store.documents_of("validation", ["note"])) == 1


def test_first_documents_are_the_beginnings_in_the_order_asked_for(store):
    documents = store.first_documents(["note-3", "note-1", "note-0"])
    assert store.note_number_D[documents].tolist() == [3, 1, 0]
    assert store.piece_D[documents].tolist() == [0, 0, 0]
    assert store.reading(documents, 1).truncated_N.tolist() == [False, True, False]
    with pytest.raises(RunError, match="note nobody is not in the token store"):
        store.first_documents(["note-1", "nobody"])


def test_a_store_on_disk_equals_one_in_memory(store, tmp_path):
    memory = encode_notes(load_encoder(tmp_path / "backbone"), 32, TEXTS)
    numbers = [str(number) for number in range(len(TEXTS))]
    named = ("note_ids", "patient_ids", "source_N", "split_N")
    compared = 0
    for name, value in vars(memory).items():
        expected = numbers if name in named else getattr(store, name)
        assert np.array_equal(value, expected), name
        compared += 1
    assert compared == 13


def test_a_store_joined_from_shards_equals_one_written_at_once(store, tmp_path):
    names = [f"note-{number}" for number in range(len(TEXTS))]
    columns = {
        "note_ids": names,
        "patient_ids": pl.Series([f"patient-{number}" for number in range(len(TEXTS))]),
        "source_N": ["note"] * len(TEXTS),
        "split_N": store.split_N.tolist(),
    }
    shards = [tmp_path / f"shard-{number}" for number in range(2)]
    for shard, texts in zip(shards, (TEXTS[:3], TEXTS[3:]), strict=True):
        shard.mkdir()
        save_documents(shard, ENCODER.documents(texts, 32))
    joined = tmp_path / "joined"
    joined.mkdir()
    join_documents(joined, map(read_documents, shards), columns, store.edges, 32)
    files = sorted(path.name for path in joined.iterdir())
    assert len(files) == 12
    for name in files:
        assert (joined / name).read_bytes() == (tmp_path / "store" / name).read_bytes(), name


def test_an_opened_store_stays_on_disk(store):
    arrays = [value for value in vars(store).values() if isinstance(value, np.ndarray)]
    mapped = [value for value in arrays if isinstance(value.base, np.memmap | mmap)]
    assert len(mapped) == 11


def test_a_store_with_a_missing_file_or_a_newer_format_is_refused(store, tmp_path):
    folder = tmp_path / "store"
    (folder / "piece_D.npy").unlink()
    with pytest.raises(RunError, match="not a whole token store"):
        open_store(folder)
    (folder / "store.json").write_text('{"format": 99, "dtype": "uint16"}')
    with pytest.raises(RunError, match="format 99"):
        open_store(folder)


def test_joining_holds_the_ids_of_one_part_at_a_time(tmp_path):
    alive = []

    def parts():
        for number in range(5):
            documents = ENCODER.documents([f"note {number} " * 40], 32)
            documents = dataclasses.replace(documents, ids=documents.ids.copy())
            assert sum(reference() is not None for reference in alive) <= 1
            alive.append(weakref.ref(documents.ids))
            yield documents
            del documents

    names = [f"n{number}" for number in range(5)]
    columns = dict.fromkeys(("note_ids", "patient_ids", "source_N", "split_N"), names)
    join_documents(tmp_path, parts(), columns, ENCODER.edges, 32)
    assert len(alive) == 5
    assert len(open_store(tmp_path).note_ids) == 5


@pytest.mark.parametrize("most", [1, 2, 3, 50])
def test_a_reading_counts_the_first_pieces_of_each_note(store, most):
    documents = store.first_documents(["note-3", "note-1", "note-0", "note-2"])
    reading = store.reading(documents, most)
    pieces = [np.flatnonzero(store.note_number_D == number) for number in (3, 1, 0, 2)]
    assert max(len(all_of_them) for all_of_them in pieces) > 2
    assert reading.pieces_N.tolist() == [min(most, len(all_of_them)) for all_of_them in pieces]
    read = [sum(len(store.document(d)) for d in all_of_them[:most]) for all_of_them in pieces]
    assert reading.tokens_N.tolist() == read
    assert reading.truncated_N.tolist() == [len(all_of_them) > most for all_of_them in pieces]

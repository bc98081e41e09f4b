import numpy as np
import pytest
from builders import byte_tokenizer, random_llama, small_store
from hypothesis import given
from hypothesis import strategies as st

from notetune.errors import BackboneError, RunError
from notetune.tokens.encode import Encoder, load_encoder
from notetune.tokens.store import encode_notes, open_store

ENCODER = Encoder(byte_tokenizer(), bos_id=0, eos_id=1, vocabulary_size=260)
TEXTS = ["short", "a much longer note that needs several pieces " * 4, "é—ü " * 9, "x"]


@given(st.text(max_size=200), st.integers(8, 64))
def test_the_pieces_of_a_note_decode_to_its_whole_text(text, max_tokens):
    (pieces,) = ENCODER.documents([text], max_tokens)
    body = [token for piece in pieces for token in piece.ids[1:]]
    assert body[-1] == ENCODER.eos_id
    assert ENCODER.tokenizer.decode(body) == text
    assert [piece.piece for piece in pieces] == list(range(len(pieces)))
    assert all(piece.ids[0] == ENCODER.bos_id for piece in pieces)
    assert all(len(piece.ids) == max_tokens for piece in pieces[:-1])
    assert 1 < len(pieces[-1].ids) <= max_tokens


@given(st.text(alphabet=st.characters(codec="ascii"), max_size=150), st.integers(8, 64))
def test_the_spans_of_the_pieces_join_to_the_text(text, max_tokens):
    (pieces,) = ENCODER.documents([text], max_tokens)
    assert "".join(text[piece.start : piece.end] for piece in pieces) == text
    for piece in pieces:
        assert ENCODER.decode(piece) == text[piece.start : piece.end]


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
    assert store.is_truncated(documents).tolist() == [False, True, False]
    with pytest.raises(RunError, match="note nobody is not in the token store"):
        store.first_documents(["note-1", "nobody"])


def test_a_store_on_disk_equals_one_in_memory(store, tmp_path):
    columns = {
        "note_ids": store.note_ids.tolist(),
        "patient_ids": store.patient_ids.tolist(),
        "source_N": store.source_N.tolist(),
        "split_N": store.split_N.tolist(),
    }
    memory = encode_notes(load_encoder(tmp_path / "backbone"), 32, TEXTS, columns)
    compared = 0
    for name, value in vars(memory).items():
        assert np.array_equal(value, getattr(store, name)), name
        compared += 1
    assert compared == 9


def test_a_store_with_a_missing_file_or_a_newer_format_is_refused(store, tmp_path):
    folder = tmp_path / "store"
    (folder / "piece_D.npy").unlink()
    with pytest.raises(RunError, match="not a whole token store"):
        open_store(folder)
    (folder / "store.json").write_text('{"format": 99, "dtype": "uint16"}')
    with pytest.raises(RunError, match="format 99"):
        open_store(folder)


def test_a_backbone_without_a_fitting_tokenizer_is_refused(tmp_path):
    folder = random_llama(tmp_path)
    config = (folder / "config.json").read_text()
    (folder / "config.json").write_text(config.replace('"vocab_size": 260', '"vocab_size": 100'))
    with pytest.raises(BackboneError, match="258 tokens but the backbone embeds 100"):
        load_encoder(folder)
    (folder / "config.json").write_text(config.replace('"eos_token_id": 1', '"eos_token_id": null'))
    with pytest.raises(BackboneError, match="declares no eos_token_id"):
        load_encoder(folder)
    (folder / "tokenizer.json").write_text("not a tokenizer")
    with pytest.raises(BackboneError, match="is not a tokenizer file"):
        load_encoder(folder)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(BackboneError, match=r"has no tokenizer\.json"):
        load_encoder(folder)


def test_a_special_token_written_in_a_note_is_text(tmp_path):
    encoder = load_encoder(random_llama(tmp_path))
    (pieces,) = encoder.documents(["a</s>b"], 64)
    assert len(pieces[0].ids) == 1 + len("a</s>b") + 1
    assert pieces[0].ids.count(encoder.eos_id) == 1

"""Notes become documents of token ids, whose pieces decode to their text."""

import dataclasses
from itertools import pairwise

import numpy as np
import pytest
from builders import random_encoder, random_llama
from byte_encoder import ENCODER, TEXTS
from hypothesis import example, given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from notetune.errors import BackboneError
from notetune.tokens.encode import load_encoder


def pieces_of(documents):
    """The ids of every document, and their text without BOS and EOS."""
    bounds = np.cumsum([0, *documents.table_D["length"]])
    ids = [documents.ids[a:b].tolist() for a, b in pairwise(bounds)]
    return ids, [ENCODER.tokenizer.decode(piece, skip_special_tokens=True) for piece in ids]


@given(st.text(max_size=200), st.integers(8, 64))
@example("<s> and </s>", 8)
def test_the_pieces_of_a_note_decode_to_its_whole_text(text, max_tokens):
    documents = ENCODER.documents([text], max_tokens)
    pieces, _ = pieces_of(documents)
    body = [token for piece in pieces for token in piece[1:]]
    fills_its_pieces = bool(text) and len(text.encode()) % (max_tokens - 1) == 0
    assert (body[-1] == ENCODER.edges.end_id) != fills_its_pieces
    assert ENCODER.tokenizer.decode(body) == text
    assert documents.table_D["piece"].tolist() == list(range(len(pieces)))
    assert documents.table_D["is_cut"].tolist() == [True] * (len(pieces) - 1) + [False]
    assert all(piece[0] == ENCODER.edges.opener_id for piece in pieces)
    assert all(len(piece) == max_tokens for piece in pieces[:-1])
    assert 1 < len(pieces[-1]) <= max_tokens


JOINED = dataclasses.replace(ENCODER, edges=dataclasses.replace(ENCODER.edges, join="by time"))


@given(st.text(max_size=200), st.integers(8, 64))
def test_pieces_of_joined_notes_are_full_from_the_end_on_and_the_newest_is_the_first(
    text, max_tokens
):
    documents = JOINED.documents([text], max_tokens)
    pieces, _ = pieces_of(documents)
    body = [token for piece in reversed(pieces) for token in piece[1:]]
    forwards, _ = pieces_of(ENCODER.documents([text], max_tokens))
    assert body == [token for piece in forwards for token in piece[1:]]
    assert all(len(piece) == max_tokens for piece in pieces[:-1])
    assert documents.table_D["piece"].tolist() == list(range(len(pieces)))
    assert documents.table_D["is_cut"].tolist() == [True] * (len(pieces) - 1) + [False]
    (newest,), _ = pieces_of(JOINED.documents([text], max_tokens, "first"))
    assert newest == pieces[0]


def test_the_newest_tokens_are_read_where_the_limit_cuts():
    text = "old note\n\nthe newest note"
    documents = JOINED.documents([text], 10)
    pieces, texts = pieces_of(documents)
    tokens = ENCODER.tokenizer.encode(text, add_special_tokens=False).ids  # one a byte
    assert pieces == [[0, *tokens[-8:], 1], [0, *tokens[-17:-8]], [0, *tokens[:-17]]]
    assert texts == ["est note", "\n\nthe new", "old note"]
    assert documents.table_D["text_bytes"].tolist() == [8, 9, 8]


@pytest.mark.parametrize("long_notes", ["first", "pieces"])
@pytest.mark.parametrize("text", ["1234567", "12345678901234"])
def test_a_note_that_fills_its_pieces_has_no_piece_for_the_end_alone(text, long_notes):
    documents = ENCODER.documents([text], 8, long_notes)
    pieces = 1 if long_notes == "first" else len(text) // 7
    assert documents.table_D["length"].tolist() == [8] * pieces
    assert documents.table_D["text_bytes"].tolist() == [7] * pieces
    assert documents.table_D["is_cut"][-1] == (len(text) > 7 * pieces)
    assert ENCODER.edges.end_id not in documents.ids


@pytest.mark.parametrize("long_notes", ["first", "pieces"])
def test_an_encoder_reads_what_its_own_tokenizer_makes_of_each_piece(tmp_path, long_notes):
    folder = random_encoder(tmp_path)
    encoder = load_encoder(folder, frames_pieces=True)
    texts = ["Fever, coughing; ☃ pain", "pain " * 30, "", "cough pain fever 10 mg"]
    documents = encoder.documents(texts, 12, long_notes)
    bounds = np.cumsum([0, *documents.table_D["length"]])
    pieces = [documents.ids[a:b].tolist() for a, b in pairwise(bounds)]
    whole = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    first = [pieces[n] for n in np.flatnonzero(documents.table_D["piece"] == 0)]
    assert first == [whole.encode(text, truncation=True, max_length=12) for text in texts]
    assert all((piece[0], piece[-1]) == (2, 3) and len(piece) <= 12 for piece in pieces)
    longest = whole.encode(texts[1], add_special_tokens=False)
    of_note = [p for p, row in zip(pieces, documents.table_D, strict=True) if row["note"] == 1]
    joined = [token for piece in of_note for token in piece[1:-1]]
    assert joined == (longest[:10] if long_notes == "first" else longest)
    assert documents.table_D["is_cut"].any()
    assert not documents.table_D["is_cut"][-1]
    assert 2 not in encoder.documents(["[CLS]"], 12).ids[1:]


@given(st.text(alphabet=st.characters(codec="ascii"), max_size=150), st.integers(8, 64))
def test_the_bytes_of_the_pieces_are_those_of_their_text(text, max_tokens):
    documents = ENCODER.documents([text], max_tokens)
    _, texts = pieces_of(documents)
    assert "".join(texts) == text
    assert documents.table_D["text_bytes"].tolist() == [len(piece) for piece in texts]


@given(st.lists(st.text(max_size=60), min_size=1, max_size=8), st.data())
def test_the_documents_of_some_notes_are_those_of_encoding_them_alone(texts, data):
    wanted = np.array(data.draw(st.lists(st.booleans(), min_size=len(texts), max_size=len(texts))))
    some = ENCODER.documents(texts, 16).of_notes(wanted)
    alone = ENCODER.documents(
        [text for text, is_in in zip(texts, wanted, strict=True) if is_in], 16
    )
    assert some.ids.tolist() == alone.ids.tolist()
    assert some.table_D.tolist() == alone.table_D.tolist()
    assert some.note_count == alone.note_count == wanted.sum()


def test_the_first_pieces_alone_are_cut_where_the_note_goes_on(tmp_path):
    first = ENCODER.documents(TEXTS, 32, "first")
    whole = ENCODER.documents(TEXTS, 32)
    assert first.table_D.tolist() == whole.table_D[whole.table_D["piece"] == 0].tolist()
    assert first.table_D["is_cut"].tolist() == [False, True, True, False]


def test_a_backbone_without_a_fitting_tokenizer_is_refused(tmp_path):
    folder = random_llama(tmp_path)
    config = (folder / "config.json").read_text()
    (folder / "config.json").write_text(config.replace('"vocab_size": 260', '"vocab_size": 100'))
    with pytest.raises(BackboneError, match="ids up to 257 but the backbone embeds 100"):
        load_encoder(folder)
    (folder / "config.json").write_text(config.replace('"eos_token_id": 1', '"eos_token_id": 260'))
    with pytest.raises(BackboneError, match="eos_token_id 260 is outside its vocabulary of 260"):
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
    ids = encoder.documents(["a</s>b"], 64).ids.tolist()
    assert len(ids) == 1 + len("a</s>b") + 1
    assert ids.count(encoder.edges.end_id) == 1

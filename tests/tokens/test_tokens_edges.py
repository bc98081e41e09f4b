"""What opens a document and what ends a note, from what a backbone's folder declares."""

import json
from itertools import pairwise

import numpy as np
import pytest
from builders import byte_tokenizer, random_encoder, random_llama
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models, processors

from notetune.errors import BackboneError
from notetune.tokens.edges import Edges, read_declared
from notetune.tokens.encode import Encoder, load_encoder

TOKENIZER = byte_tokenizer()
OPENERS = {
    "none": Edges(None, 1, "nothing"),
    "bos": Edges(0, 1, "<s>"),
    "separator": Edges(1, 1, "</s>"),
}


@pytest.fixture
def folder(tmp_path):
    """A LLaMA folder whose tokenizer puts nothing in front of a text."""
    random_llama(tmp_path)
    byte_tokenizer().save(str(tmp_path / "tokenizer.json"))
    return tmp_path


def change_config(folder, **changes):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


@pytest.mark.parametrize("opener", OPENERS)
def test_each_opener_is_the_declared_token(folder, opener):
    declared = read_declared(folder)
    assert declared.edges(opener) == OPENERS[opener]
    assert declared.name_of(OPENERS[opener]) == opener
    assert declared.own_edges is None
    assert declared.candidates == tuple(OPENERS.values())


def test_a_chat_turn_is_no_separator_where_another_token_is_named_so(folder):
    names = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokenizer = Tokenizer(models.WordLevel({name: n for n, name in enumerate(names)}, "?"))
    tokenizer.add_special_tokens(names)
    tokenizer.save(str(folder / "tokenizer.json"))
    change_config(folder, bos_token_id=1, eos_token_id=2)
    assert read_declared(folder).candidates == (
        Edges(None, 2, "nothing"),
        Edges(1, 2, "<|im_start|>"),
        Edges(0, 0, "<|endoftext|>"),
    )


def test_what_is_both_bos_and_separator_is_tried_once(folder):
    change_config(folder, bos_token_id=1)
    assert [edges.opener_id for edges in read_declared(folder).candidates] == [None, 1]
    change_config(folder, bos_token_id=None)
    assert [edges.opener_id for edges in read_declared(folder).candidates] == [None, 1]
    with pytest.raises(BackboneError, match="declares no bos_token_id"):
        read_declared(folder).edges("bos")


@pytest.mark.parametrize(
    ("template", "adds_bos", "opener_id"),
    [
        ("<s> $A", None, 0),
        ("</s> $A </s>", None, 1),
        ("$A </s>", None, None),
        ("</s> <s> $A", None, None),
        ("<s> $A", False, None),
        ("$A", True, 0),
    ],
)
def test_the_tokenizer_says_itself_what_it_puts_in_front(folder, template, adds_bos, opener_id):
    tokenizer = byte_tokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=template, special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    if adds_bos is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps({"add_bos_token": adds_bos}))
    own = read_declared(folder).own_edges
    assert (own and own.opener_id) == opener_id
    assert own is None or own.end_id == 1


@pytest.mark.parametrize("opener", OPENERS)
@given(st.text(max_size=100), st.integers(8, 40))
def test_the_pieces_hold_the_text_behind_any_opener(opener, text, max_tokens):
    edges = OPENERS[opener]
    documents = Encoder(TOKENIZER, edges, 260).documents([text], max_tokens)
    bounds = np.cumsum([0, *documents.table_D["length"]])
    pieces = [documents.ids[a:b].tolist() for a, b in pairwise(bounds)]
    front = [] if edges.opener_id is None else [edges.opener_id]
    assert all(piece[: len(front)] == front for piece in pieces)
    assert all(len(piece) == max_tokens for piece in pieces[:-1])
    assert len(front) < len(pieces[-1]) <= max_tokens
    bodies = [token for piece in pieces for token in piece[len(front) :]]
    expected = TOKENIZER.encode(text, add_special_tokens=False).ids
    fills_its_pieces = bool(expected) and len(expected) % (max_tokens - len(front)) == 0
    assert bodies == [*expected, *([] if fills_its_pieces else [edges.end_id])]


def test_an_encoder_is_framed_by_what_its_tokenizer_puts_round_a_text(tmp_path):
    folder = random_encoder(tmp_path)
    framed = Edges(2, 3, "[CLS]", ends_every_piece=True)
    assert read_declared(folder).framed_edges == framed
    assert load_encoder(folder, frames_pieces=True).edges == framed
    assert load_encoder(folder, Edges(2, 3), frames_pieces=True).edges == Edges(2, 3)


def test_roberta_documents_stand_between_its_own_edges(tmp_path):
    tiny = byte_tokenizer()
    tiny.post_processor = processors.RobertaProcessing(("</s>", 1), ("<s>", 0))
    random_llama(tmp_path)
    tiny.save(str(tmp_path / "tokenizer.json"))
    encoder = load_encoder(tmp_path, frames_pieces=True)
    assert encoder.edges == Edges(0, 1, "<s>", ends_every_piece=True)
    own = Tokenizer.from_file(str(tmp_path / "tokenizer.json")).encode("pain").ids
    assert encoder.documents(["pain"], 16).ids.tolist() == own


def with_added(folder, token):
    """A token with an id one beyond what the backbone embeds."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    before = load_encoder(folder).documents(["pain <image>"], 32).ids.tolist()
    tokenizer.add_tokens([f"<{n}>" for n in range(260 - tokenizer.get_vocab_size())])
    tokenizer.add_tokens([token])
    assert tokenizer.token_to_id("<image>") == 260
    tokenizer.save(str(folder / "tokenizer.json"))
    return before


def test_a_special_id_beyond_the_vocabulary_is_one_that_no_text_becomes(folder):
    before = with_added(folder, AddedToken("<image>", special=True))
    assert load_encoder(folder).documents(["pain <image>"], 32).ids.tolist() == before


def test_an_id_beyond_the_vocabulary_that_a_text_can_become_is_refused(folder):
    with_added(folder, AddedToken("<image>", special=False))
    with pytest.raises(BackboneError, match="ids up to 260 but the backbone embeds 260"):
        read_declared(folder)


def test_what_a_folder_with_images_says_of_its_text_model_counts(folder):
    config = json.loads((folder / "config.json").read_text())
    whole = {"model_type": "gemma3", "text_config": config, "eos_token_id": [5, 6]}
    (folder / "config.json").write_text(json.dumps(whole))
    assert read_declared(folder).vocabulary_size == 260
    assert read_declared(folder).edges("bos") == OPENERS["bos"]
    del whole["text_config"]["vocab_size"], whole["text_config"]["bos_token_id"]
    (folder / "config.json").write_text(json.dumps(whole))
    settings = {"bos_token": {"content": "<s>"}}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    assert read_declared(folder).vocabulary_size == 258
    assert read_declared(folder).edges("bos") == OPENERS["bos"]


@pytest.mark.parametrize(("lowers", "cased", "loses"), [(1, 1, 1), (1, 0, 0), (0, 1, 0)])
def test_a_cased_vocabulary_whose_tokenizer_makes_letters_small_is_noticed(
    tmp_path, lowers, cased, loses
):
    random_encoder(tmp_path)
    spec = json.loads((tmp_path / "tokenizer.json").read_text())
    spec["normalizer"]["lowercase"] = bool(lowers)
    if cased:
        spec["model"]["vocab"]["Fever"] = len(spec["model"]["vocab"])
    (tmp_path / "tokenizer.json").write_text(json.dumps(spec))
    assert read_declared(tmp_path).loses_case == bool(loses)

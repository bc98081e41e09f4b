import csv
import gzip
import io
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from llama2c import read_pieces
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from notetune.model.piece_tokenizer import to_tokenizer
from notetune.notes.clean import clean_text
from notetune.tokens import words
from notetune.tokens.edges import Edges
from notetune.tokens.encode import Encoder, load_encoder
from notetune.tokens.words import word_cache

ROOT = Path(__file__).parents[2]
TINY = ROOT / "src/notetune/backbones/tiny"
FRAGMENTS = [
    *(" ", "  ", "   ", "\n", "\n\n", "\n\n\n", " \n", "\t", "\t ", " \t", "\r\n", "\x0b", "\x1c"),
    *("\xa0", "\u2003 ", "\u3000", "\x00", "\x01", "\x02", "▁", "▁▁", "</s>", "<s>", "<unk>", "<"),
    *(
        "Pt",
        "denies",
        "BP 120/80,",
        "12345",
        "q.d.",
        "...",
        "'s",
        "é",
        "e\u0301",
        "☃",
        "漢字",
        "👩‍⚕️",
    ),
]
note_texts = st.lists(st.sampled_from(FRAGMENTS) | st.text(max_size=4), max_size=30).map("".join)


def trained(pre_tokenizer: pre_tokenizers.PreTokenizer) -> Tokenizer:
    """A byte-level tokenizer whose pieces were learned from this project's documents."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=700,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = [path.read_text() for path in sorted((ROOT / "docs").rglob("*.md"))]
    assert len(texts) >= 5
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def split_and_bytes(pattern: str) -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def encoder_of(tokenizer: Tokenizer) -> Encoder:
    tokenizer.encode_special_tokens = True
    return Encoder(tokenizer, Edges(0, 1), tokenizer.get_vocab_size())


def mini_llama(*, extra: tuple[str, ...] = (), metaspace: bool = False, **model) -> Tokenizer:
    """A SentencePiece-like tokenizer of few pieces, made by the conversion of llama2.c models."""
    characters = [*"▁abcdPt.,0123", *extra]
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{n:02X}>" for n in range(256)), *characters]
    pieces += ["▁▁", "▁a", "ab", "▁ab", "▁P", "▁Pt", "▁▁▁▁", *model.pop("pieces", ())]
    scores = [(piece, -float(number)) for number, piece in enumerate(pieces)]
    tokenizer = to_tokenizer(scores)
    if metaspace:
        tokenizer.normalizer = None
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace("▁", prepend_scheme="first", split=False)
    spec = json.loads(tokenizer.to_str())
    spec["model"].update(model)
    return Tokenizer.from_str(json.dumps(spec))


def shipped() -> Tokenizer:
    return load_encoder(TINY).tokenizer


LINES, LLAMA3 = words._CUTS_LINES
KNOWN = {
    "shipped": shipped(),
    "gpt2": trained(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)),
    "llama3": trained(split_and_bytes(LLAMA3)),
    "llama2": mini_llama(),
    "llama2, new format": mini_llama(metaspace=True),
    "llama2, no byte pieces": mini_llama(byte_fallback=False),
    "llama2, a piece with a line break": mini_llama(extra=("\n",), pieces=("a\n", "\nab")),
}
ENCODERS = {name: encoder_of(tokenizer) for name, tokenizer in KNOWN.items()}
DATA_MODELS = ("llama2_tokenizer", "tok512", "tok361", "tok105")


def pieces_by_definition(encoder, text, max_tokens):
    """Ids, UTF-8 bytes and cut of every piece, from one encoding of the whole text."""
    encoding = encoder.tokenizer.encode(text, add_special_tokens=False)
    has_room = not encoding.ids or len(encoding.ids) % (max_tokens - 1) != 0
    tokens = [*encoding.ids, *([encoder.edges.end_id] if has_room else [])]
    starts = [*(start for start, _ in encoding.offsets), len(text), len(text)]
    pieces = []
    for first in range(0, len(tokens), max_tokens - 1):
        last = min(first + max_tokens - 1, len(tokens))
        begin = starts[first] if first else 0
        end = starts[last] if last < len(tokens) else len(text)
        size = len(text[begin:end].encode())
        pieces.append(([encoder.edges.opener_id, *tokens[first:last]], size, last < len(tokens)))
    return pieces


def pieces_of(documents):
    bounds = np.cumsum([0, *documents.table_D["length"]])
    return [
        (documents.ids[a:b].tolist(), int(row["text_bytes"]), bool(row["is_cut"]))
        for a, b, row in zip(bounds, bounds[1:], documents.table_D, strict=False)
    ]


def check(encoder, text, max_tokens):
    expected = pieces_by_definition(encoder, text, max_tokens)
    assert pieces_of(encoder.documents([text], max_tokens)) == expected
    assert pieces_of(encoder.documents([text], max_tokens, "first")) == expected[:1]
    return len(expected)


@pytest.mark.parametrize("name", ENCODERS)
@given(text=note_texts, max_tokens=st.integers(8, 40))
def test_words_give_the_ids_and_spans_of_the_whole_text(name, text, max_tokens):
    assert ENCODERS[name].words is not None
    check(ENCODERS[name], text, max_tokens)


LONG_TOKENS = ["government", "American", "following", "important", "children", "of", "was", "zzz"]


@given(st.lists(st.sampled_from(LONG_TOKENS), min_size=20, max_size=60), st.integers(8, 40))
def test_the_first_piece_is_right_where_a_token_has_about_as_many_characters_as_expected(
    found, max_tokens
):
    check(ENCODERS["shipped"], " ".join(found), max_tokens)


@pytest.mark.parametrize("name", ENCODERS)
def test_every_kind_of_white_space_and_control_character_is_safe_beside_a_space(name):
    encoder, odd = ENCODERS[name], 0
    for character in map(chr, [*range(0x3100), *range(0xFE00, 0xFF00)]):
        if character.isspace() or not character.isprintable():
            odd += 1
            text = "".join(
                f"ab{a}{character}{b}Pt." for a in ("", " ", "\n") for b in ("", " ", "\n")
            )
            check(encoder, text, 16)
    assert odd > 200


def test_most_words_of_a_text_are_looked_up():
    text = "Pt denies chest pain.\nNo fever,  no chills.\n" * 50
    encoder = encoder_of(shipped())
    encoder.documents([text], 512)
    assert 8 <= len(encoder.words) <= 12


def test_a_full_cache_starts_anew_and_long_words_are_not_kept(monkeypatch):
    monkeypatch.setattr(words, "_MAX_WORDS", 5)
    encoder = encoder_of(shipped())
    text = " ".join(f"word{number} {'x' * number}" for number in range(100))
    check(encoder, text, 50)
    assert 1 <= len(encoder.words) <= 5
    assert max(map(len, encoder.words)) <= words._MAX_WORD_CHARS


def with_added_token() -> Tokenizer:
    tokenizer = shipped()
    tokenizer.add_tokens(["pain"])
    return tokenizer


def with_dropout() -> Tokenizer:
    tokenizer = shipped()
    tokenizer.model.dropout = 0.5
    return tokenizer


UNKNOWN = {
    "a piece goes on beyond a word": lambda: mini_llama(pieces=("b▁", "b▁P")),
    "whole words skip the merges": lambda: mini_llama(ignore_merges=True),
    "no piece for a space": lambda: mini_llama(vocab={"<unk>": 0, "a": 1}, merges=[]),
    "a token that is text": with_added_token,
    "random merges": with_dropout,
    "an unknown regular expression": lambda: trained(split_and_bytes(r"\s?\S+")),
    "no pre-tokenizer": lambda: Tokenizer(models.BPE(vocab={"a": 0, "b": 1}, merges=[])),
    "not byte-pair encoding": lambda: Tokenizer(models.WordLevel({"a": 0, "?": 1}, unk_token="?")),
}


@pytest.mark.parametrize("reason", UNKNOWN)
def test_a_tokenizer_that_must_see_the_whole_text_does(reason):
    encoder = encoder_of(UNKNOWN[reason]())
    assert encoder.words is None
    if reason != "random merges":
        assert check(encoder, "ab Pt  ab, pain.\nPt ab." * 20, 16) >= 1


def test_special_tokens_that_count_in_a_text_are_left_to_the_whole_text():
    tokenizer = shipped()
    tokenizer.encode_special_tokens = False
    assert word_cache(tokenizer, np.uint16) is None


def test_a_library_that_encodes_words_otherwise_is_noticed(monkeypatch):
    class Other(words.WordCache):
        def encode(self, word):
            return super().encode(word + "!")

    monkeypatch.setattr(words, "WordCache", Other)
    assert word_cache(shipped(), np.uint16) is None


@pytest.fixture(scope="module")
def real_texts(open_data):
    path = open_data / "mtsamples/mtsamples.csv.gz"
    with gzip.open(path) as file:
        rows = csv.DictReader(io.TextIOWrapper(file, encoding="utf-8", newline=""))
        notes = list({clean_text(row["transcription"] or ""): None for row in rows})[:150]
    general = (open_data / "general/wikitext2.valid.txt").read_text(encoding="utf-8")
    return [*notes, *(general[n : n + 5000] for n in range(0, 150_000, 5000))]


@pytest.mark.data
@pytest.mark.parametrize("name", ["shipped", "gpt2", "llama3", *DATA_MODELS])
def test_words_give_the_ids_and_spans_of_real_texts(name, real_texts, open_data):
    if name in ENCODERS:
        encoder = ENCODERS[name]
    else:
        pieces = read_pieces(open_data / f"llama/{name}.model")
        encoder = encoder_of(to_tokenizer(pieces))
    assert encoder.words is not None
    found = [check(encoder, text, 256) for text in real_texts]
    assert len(found) >= 180
    assert sum(found) > 400

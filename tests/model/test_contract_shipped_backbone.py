"""The shipped backbone is a language model, not only a file of the right shape."""

import re
from collections import Counter
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from builders import small_store

from notetune import infer
from notetune.model.backbone import load_backbone
from notetune.model.backbone_folder import resolve_backbone
from notetune.model.stack import stack
from notetune.tokens.encode import load_encoder
from notetune.tokens.store import encode_notes

LARGEST_MIB = 5


@pytest.fixture(scope="module")
def folder() -> Path:
    return resolve_backbone("tiny")


def test_it_fits_into_the_wheel_with_a_card_that_names_corpora_licences_and_perplexity(folder):
    size = sum(path.stat().st_size for path in folder.iterdir())
    assert size < LARGEST_MIB * 2**20
    card = (folder / "README.md").read_text()
    for fact in ("TinyStories", "CC BY-SA", "public domain", "steps", "unigram perplexity"):
        assert fact in card


@pytest.mark.data
def test_its_perplexity_is_far_below_that_of_the_unigrams_of_the_same_text(
    folder, open_data, tmp_path
):
    stories = (open_data / "general/tinystories_sample.txt").read_text(encoding="utf-8")
    texts = [text.strip() for text in re.split(r"<\|endoftext\|>", stories)[:200:20]]
    store = small_store(
        tmp_path / "store", folder, texts, splits=["test"] * len(texts), max_tokens=512
    )
    documents = store.documents_of("test")
    got = infer.perplexity(
        store,
        documents,
        infer.document_losses(stack(load_backbone("tiny")), store, documents, 4096),
    )
    ids = np.concatenate([store.document(int(d))[1:] for d in documents])
    shares = np.array(list(Counter(ids.tolist()).values())) / len(ids)
    best_unigram = float(np.exp(-(shares * np.log(shares)).sum()))  # fitted on the text itself
    assert got.targets == len(ids) > 1000
    assert got.perplexity < best_unigram / 5


def test_the_shipped_general_text_is_what_the_card_says_was_held_out(folder):
    text = Path(str(files("notetune") / "general/shakespeare.txt")).read_text(encoding="utf-8")
    passages = text.strip().split("\n\n\n")
    store = encode_notes(load_encoder(folder), 512, passages)
    documents = np.arange(len(store.lengths_D))
    got = infer.perplexity(
        store,
        documents,
        infer.document_losses(stack(load_backbone("tiny")), store, documents, 4096),
    )
    card = (folder / "README.md").read_text()
    row = re.search(r"\| tinyshakespeare.txt \| ([\d.]+) \| ([\d.]+) \| ([\d,]+) \|", card)
    assert f"{got.perplexity:.2f}" == row[1]
    assert f"{got.bits_per_byte:.3f}" == row[2]
    assert f"{got.targets:,}" == row[3]

"""Small models and stores that the tests share."""

from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM

from notetune.model.batch import PackedBatch, packed_batch
from notetune.tokens.encode import load_encoder
from notetune.tokens.store import TokenStore, open_store, write_store

VOCABULARY = 260


def random_llama(folder: Path, *, kv_heads: int = 2, seed: int = 0) -> Path:
    """A LLaMA folder with random weights and a byte tokenizer."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=kv_heads,
        max_position_embeddings=128,
        bos_token_id=0,
        eos_token_id=1,
        initializer_range=0.2,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    byte_tokenizer().save(str(folder / "tokenizer.json"))
    return folder


def byte_tokenizer() -> Tokenizer:
    """One token per byte after the two special tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate(["<s>", "</s>", *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<s>", "</s>"])
    return tokenizer


def random_documents(lengths: list[int], seed: int = 0) -> list[np.ndarray]:
    """Random token ids, one array per length."""
    rng = np.random.default_rng(seed)
    return [rng.integers(2, VOCABULARY, length) for length in lengths]


def random_batch(lengths: list[int], seed: int = 0) -> PackedBatch:
    """Random documents of the given lengths as one packed row."""
    return packed_batch(random_documents(lengths, seed), range(len(lengths)))


def small_store(
    folder: Path, backbone: Path, texts: list[str], *, splits: list[str], max_tokens: int = 64
) -> TokenStore:
    """Texts as a token store; note i is `note-i` of `patient-i`."""
    folder.mkdir(parents=True, exist_ok=True)
    numbers = range(len(texts))
    columns = {
        "note_ids": [f"note-{i}" for i in numbers],
        "patient_ids": [f"patient-{i}" for i in numbers],
        "source_N": ["note"] * len(texts),
        "split_N": splits,
    }
    write_store(folder, load_encoder(backbone), max_tokens, texts, columns)
    return open_store(folder)

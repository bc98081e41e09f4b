"""Small models and stores that the tests share."""

from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import (
    AutoModelForMaskedLM,
    BertConfig,
    LlamaConfig,
    LlamaForCausalLM,
    ModernBertConfig,
    PreTrainedConfig,
)

from notetune.model.adapters.specs import AdapterSpec
from notetune.model.backbone import load_backbone
from notetune.model.batch import PackedBatch, packed_batch
from notetune.model.stack import DOMAIN, Layer, Stack, stack
from notetune.tokens.encode import load_encoder
from notetune.tokens.store import TokenStore, join_documents, open_store

VOCABULARY = 260


def random_llama(
    folder: Path, *, kv_heads: int = 2, seed: int = 0, tied: bool = False, layers: int = 2
) -> Path:
    """A LLaMA folder with random weights and a byte tokenizer."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=kv_heads,
        max_position_embeddings=128,
        bos_token_id=0,
        eos_token_id=1,
        initializer_range=0.2,
        tie_word_embeddings=tied,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer = byte_tokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 0)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
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


_SMALL_ENCODER = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "initializer_range": 0.2,
    "pad_token_id": 0,
}
ENCODERS: dict[str, PreTrainedConfig] = {
    "BERT": BertConfig(**_SMALL_ENCODER, num_hidden_layers=2),
    "ModernBERT, window of 4 to either side": ModernBertConfig(
        **_SMALL_ENCODER,
        num_hidden_layers=4,
        global_attn_every_n_layers=2,
        local_attention=8,
        bos_token_id=2,
        eos_token_id=3,
        cls_token_id=2,
        sep_token_id=3,
    ),
}


def random_encoder(
    folder: Path, config: PreTrainedConfig = ENCODERS["BERT"], seed: int = 0
) -> Path:
    """An encoder folder with random weights and a word-piece tokenizer."""
    torch.manual_seed(seed)
    model = AutoModelForMaskedLM.from_config(config)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):  # transformers begins with zeros, which would test nothing
            torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(folder)
    word_piece_tokenizer().save(str(folder / "tokenizer.json"))
    return folder


def word_piece_tokenizer() -> Tokenizer:
    """A BERT tokenizer of letters and digits, and a few whole words."""
    letters = [chr(code) for code in (*range(97, 123), *range(48, 58))]
    words = ["fever", "cough", "##ing", "pain"]
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    pieces = [*special, *words, *letters, *(f"##{letter}" for letter in letters)]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens(special)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return tokenizer


def in_float64(model: Stack) -> Stack:
    """The model in float64, where a sum that cancels is the same in any order.

    Only the norms of transformers still round to float32, on both sides of a comparison; where the
    last bit of their inputs tips that, a state moves by 6e-8 of itself.
    """
    model.backbone.model.double()
    for adapter in model.adapters.values():
        for _, parameter in adapter.named_parameters():
            parameter.data = parameter.data.double()
    return model


def put(folder: Path, spec: AdapterSpec) -> Stack:
    """A backbone with one adapter, which trains."""
    return stack(load_backbone(str(folder)), [Layer(DOMAIN, spec, is_trained=True)])


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
    encoder = load_encoder(backbone)
    parts = [encoder.documents(texts, max_tokens)]
    join_documents(folder, parts, columns, encoder.edges, max_tokens)
    return open_store(folder)

"""Train the shipped tiny LLaMA from scratch on general English.

Usage: python scripts/train_backbone.py CORPUS_FOLDER OUTPUT_FOLDER [--epochs 6]

CORPUS_FOLDER holds tinystories_sample.txt, tinyshakespeare.txt and wikitext2.{valid,test}.txt.
"""

import argparse
import math
import re
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM

from notetune import infer, storage
from notetune.model.attention import PACKED_ATTENTION
from notetune.model.backbone import Backbone
from notetune.model.stack import stack
from notetune.tokens.encode import load_encoder
from notetune.tokens.packing import steps_per_epoch
from notetune.tokens.store import TokenStore, encode_notes
from notetune.train.batches import pretraining_steps
from notetune.train.loop import train
from notetune.train.optim import adamw
from notetune.train.schedule import OptimConfig

VOCABULARY = 2048
MAX_TOKENS = 512
TOKENS_PER_ROW = 2048
HELD_OUT_EVERY = 20  # every 20th text is held out

CORPORA = {
    "tinystories_sample.txt": "TinyStories sample (CDLA-Sharing-1.0)",
    "tinyshakespeare.txt": "tiny Shakespeare (public domain)",
    "wikitext2.valid.txt": "WikiText-2 validation part (CC BY-SA)",
    "wikitext2.test.txt": "WikiText-2 test part (CC BY-SA)",
}
# One token never crosses a line, a number has one digit per token, a word owns the space before it.
WORDS = r"\n|\d| ?[^\s\d\p{P}\p{S}]+| ?[\p{P}\p{S}]+|[^\S\n]+"


def read_texts(folder: Path) -> dict[str, list[str]]:
    """General-English texts per corpus file."""
    texts = {name: (folder / name).read_text(encoding="utf-8") for name in CORPORA}
    stories = re.split(r"<\|endoftext\|>|\n{2,}", texts["tinystories_sample.txt"])
    speeches = texts["tinyshakespeare.txt"].split("\n\n")
    scenes = ["\n\n".join(speeches[i : i + 12]) for i in range(0, len(speeches), 12)]
    split = {"tinystories_sample.txt": stories, "tinyshakespeare.txt": scenes}
    for name in ("wikitext2.valid.txt", "wikitext2.test.txt"):
        articles = re.split(r"\n(?= = [^=])", natural_spacing(texts[name]))
        split[name] = [part for article in articles for part in re.split(r"\n(?= = =)", article)]
    return {
        name: [t.strip() for t in parts if len(t.strip()) > 100] for name, parts in split.items()
    }


def natural_spacing(text: str) -> str:
    """WikiText with its word-level marks undone and its unknown-word marks left out."""
    text = re.sub(r" @([-.,])@ ", r"\1", text.replace("<unk>", ""))
    text = re.sub(r" ([.,;:!?)\]'%])", r"\1", text)
    text = re.sub(r"([(\[$]) ", r"\1", text)
    return re.sub(r" {2,}", " ", text)


def train_tokenizer(texts: list[str]) -> Tokenizer:
    """A byte-level BPE tokenizer: any text can be encoded and comes back exactly."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def new_model() -> LlamaForCausalLM:
    """A 1.5 M parameter LLaMA."""
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=128,
        intermediate_size=352,
        num_hidden_layers=6,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=None,
    )
    config._attn_implementation = PACKED_ATTENTION
    torch.manual_seed(0)
    return LlamaForCausalLM(config)


def unigram_perplexity(store: TokenStore) -> float:
    """Held-out perplexity of add-one smoothed training token frequencies."""
    counts = Counter(dict.fromkeys(range(VOCABULARY), 1))
    for document in store.documents_of("train"):
        counts.update(store.document(int(document))[1:].tolist())
    total = sum(counts.values())
    held_out = [store.document(int(d))[1:] for d in store.documents_of("validation")]
    ids = np.concatenate(held_out)
    return math.exp(-np.mean([math.log(counts[i] / total) for i in ids.tolist()]))


def main() -> None:
    """Train, measure, and write the backbone folder with its card."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--epochs", type=float, default=6)
    arguments = parser.parse_args()
    output: Path = arguments.output
    output.mkdir(parents=True, exist_ok=True)

    per_corpus = read_texts(arguments.corpus)
    texts = [text for parts in per_corpus.values() for text in parts]
    sources = [name for name, parts in per_corpus.items() for _ in parts]
    is_held_out = [number % HELD_OUT_EVERY == 0 for number in range(len(texts))]
    train_tokenizer([text for text, held in zip(texts, is_held_out, strict=True) if not held]).save(
        str(output / "tokenizer.json")
    )
    model = new_model()
    model.config.save_pretrained(output)
    columns = {
        "note_ids": [f"text-{number}" for number in range(len(texts))],
        "patient_ids": [f"text-{number}" for number in range(len(texts))],
        "source_N": sources,
        "split_N": ["validation" if held else "train" for held in is_held_out],
    }
    store = encode_notes(load_encoder(output), MAX_TOKENS, texts, columns)
    facts = fit(model, store, arguments.epochs)
    held_out = store.documents_of("validation")
    model.to(torch.bfloat16).to(torch.float32)  # measured as it is shipped
    backbone = Backbone(model.eval(), "tiny", "", MAX_TOKENS)
    rows = [
        (
            name,
            infer.perplexity(
                stack(backbone), store, store.documents_of("validation", [name]), 4096
            ),
        )
        for name in CORPORA
    ]
    rows.append(("all", infer.perplexity(stack(backbone), store, held_out, 4096)))
    facts["unigram perplexity, all held-out texts"] = f"{unigram_perplexity(store):.1f}"
    model.to(torch.bfloat16).save_pretrained(output, safe_serialization=True)
    write_card(output, facts, rows)


def fit(model: LlamaForCausalLM, store: TokenStore, epochs: float) -> dict[str, str]:
    """Train all weights; returns the facts for the card."""
    optim = OptimConfig(peak_lr=2e-3, warmup_fraction=0.03, weight_decay=0.1, targets_per_step=8192)
    documents = store.documents_of("train")
    lengths = store.lengths_D[documents]
    per_epoch = steps_per_epoch(lengths, TOKENS_PER_ROW, optim.targets_per_step)
    step_count = round(epochs * per_epoch)
    backbone = Backbone(model.train(), "tiny", "", MAX_TOKENS)
    batches = pretraining_steps(
        store,
        documents,
        tokens_per_row=TOKENS_PER_ROW,
        targets_per_step=optim.targets_per_step,
        seed=0,
    )
    seconds, tokens = 0.0, 0
    for step in train(
        batches,
        stack(backbone).summed_token_loss,
        adamw(optim, (model.parameters(), optim.peak_lr)),
        lambda number: optim.schedule(number, step_count),
        step_count=step_count,
        max_grad_norm=optim.max_grad_norm,
        seed=0,
    ):
        seconds, tokens = seconds + step.seconds, tokens + step.targets
        if step.number % 20 == 0:
            rate = tokens / seconds
            print(f"{step.number}/{step_count} loss {step.loss:.3f} {rate:.0f} tok/s", flush=True)
    return {
        "parameters": f"{sum(p.numel() for p in model.parameters()):,}",
        "training texts": f"{int((store.split_N == 'train').sum()):,}",
        "training tokens seen": f"{tokens:,}",
        "steps": f"{step_count:,} of about {optim.targets_per_step:,} tokens",
        "optimizer": f"AdamW, peak {optim.peak_lr}, warm-up fraction {optim.warmup_fraction}",
        "held-out texts": f"{int((store.split_N == 'validation').sum()):,} (every 20th)",
    }


def write_card(
    output: Path, facts: dict[str, str], rows: list[tuple[str, infer.Perplexity]]
) -> None:
    """The README of the folder: corpus, licences, training and perplexity."""
    lines = [
        "# tiny: a small LLaMA for the demo and the tests",
        "",
        "Trained from scratch on general English by `scripts/train_backbone.py`; it has read no",
        "clinical text. It is a real language model, but a very small one: use it to try the",
        "software, not for results that matter.",
        "",
        "Corpora and their licences: " + "; ".join(CORPORA.values()) + ".",
        "The weights are released under the licence of this project.",
        "",
        "| fact | value |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in facts.items()),
        "",
        "| held-out texts of | perplexity | bits per byte | tokens |",
        "|---|---|---|---|",
        *(
            f"| {name} | {row.perplexity:.2f} | {row.bits_per_byte:.3f} | {row.targets:,} |"
            for name, row in rows
        ),
    ]
    storage.write_text(output / "README.md", "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()

"""The oracle is llama2.c's own arithmetic, written out in numpy: rotary pairs are neighbours."""

import struct

import numpy as np
import pytest
import sentencepiece
import torch
from llama2c import convert, read_weights, to_huggingface
from transformers import AutoModelForCausalLM

from notetune.errors import BackboneError
from notetune.tokens.encode import load_encoder

SMALL = (16, 24, 2, 4, 2, 40, 32)  # hidden, feed forward, layers, heads, kv heads, tokens, context


def small_checkpoint(path, *, own_output=False):
    rng = np.random.default_rng(0)
    hidden, feed_forward, layers, heads, kv_heads, tokens, context = SMALL
    head, kv = hidden // heads, kv_heads * hidden // heads
    sizes = [
        tokens * hidden,
        layers * hidden,
        layers * hidden * hidden,
        layers * kv * hidden,
        layers * kv * hidden,
        layers * hidden * hidden,
        layers * hidden,
        layers * feed_forward * hidden,
        layers * feed_forward * hidden,
        layers * feed_forward * hidden,
        hidden,
        context * head // 2,
        context * head // 2,
    ]
    sizes += [tokens * hidden] if own_output else []
    header = struct.pack("<7i", *SMALL[:5], -tokens if own_output else tokens, context)
    values = rng.normal(0, 0.4, sum(sizes)).astype(np.float32)
    path.write_bytes(header + values.tobytes())
    return path


def normed(x, weight):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5) * weight


def rotated(x, heads):
    """Each neighbouring pair of a head turns by its own frequency."""
    tokens, width = x.shape
    head = width // heads
    angles = np.arange(tokens)[:, None] / 10000 ** (np.arange(0, head, 2) / head)
    pairs = x.reshape(tokens, heads, head // 2, 2)
    cosine, sine = np.cos(angles)[:, None], np.sin(angles)[:, None]
    first = pairs[..., 0] * cosine - pairs[..., 1] * sine
    second = pairs[..., 0] * sine + pairs[..., 1] * cosine
    return np.stack([first, second], -1).reshape(tokens, heads, head)


def llama2c_logits(path, ids):
    shape, blocks = read_weights(path)
    w = {name: block.astype(np.float64) for name, block in blocks.items()}
    x = w["embedding"][ids]
    mask = np.triu(np.full((len(ids), len(ids)), -np.inf), 1)
    for layer in range(shape.layers):
        h = normed(x, w["attention_norm"][layer])
        q = rotated(h @ w["q"][layer].T, shape.heads)
        k = rotated(h @ w["k"][layer].T, shape.kv_heads)
        v = (h @ w["v"][layer].T).reshape(len(ids), shape.kv_heads, shape.head_size)
        parts = []
        for head in range(shape.heads):
            group = head // (shape.heads // shape.kv_heads)
            scores = q[:, head] @ k[:, group].T / np.sqrt(shape.head_size) + mask
            weights = np.exp(scores - scores.max(-1, keepdims=True))
            parts.append(weights / weights.sum(-1, keepdims=True) @ v[:, group])
        x = x + np.concatenate(parts, -1) @ w["o"][layer].T
        h = normed(x, w["feed_forward_norm"][layer])
        gate = h @ w["gate"][layer].T
        x = x + (gate / (1 + np.exp(-gate)) * (h @ w["up"][layer].T)) @ w["down"][layer].T
    return normed(x, w["norm"]) @ w.get("output", w["embedding"]).T


def with_config(tmp_path, checkpoint):
    """The converted weights as a folder, without a tokenizer."""
    import json

    from llama2c import _config
    from safetensors.torch import save_file

    shape, blocks = read_weights(checkpoint)
    save_file(to_huggingface(shape, blocks), tmp_path / "model.safetensors", {"format": "pt"})
    (tmp_path / "config.json").write_text(json.dumps(_config(shape)))
    return AutoModelForCausalLM.from_pretrained(tmp_path).eval()


@pytest.mark.parametrize("own_output", [False, True])
def test_converted_logits_equal_llama2c_arithmetic(tmp_path, own_output):
    checkpoint = small_checkpoint(tmp_path / "small.bin", own_output=own_output)
    ids = np.random.default_rng(1).integers(0, 40, 20)
    with torch.inference_mode():
        got = with_config(tmp_path, checkpoint)(torch.from_numpy(ids)[None]).logits[0].numpy()
    assert np.abs(got - llama2c_logits(checkpoint, ids)).max() < 1e-4


@pytest.mark.data
def test_stories260k_converts_and_continues_as_its_own_arithmetic_does(open_data, tmp_path):
    weights, model = open_data / "llama/stories260K.bin", open_data / "llama/tok512.model"
    shape = convert(weights, model, tmp_path / "stories")
    assert (shape.heads, shape.kv_heads, shape.positions) == (8, 4, 512)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "stories").eval()
    encoder = load_encoder(tmp_path / "stories")
    text = "Once upon a time, there was a"
    ids = [encoder.edges.opener_id, *encoder.tokenizer.encode(text, add_special_tokens=False).ids]
    start = len(ids)
    for _ in range(20):
        ids.append(int(llama2c_logits(weights, ids)[-1].argmax()))
    with torch.inference_mode():
        prompt = torch.tensor([ids[:start]])
        got = plain.generate(
            prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=20, do_sample=False
        )
    assert got[0].tolist() == ids
    assert "little girl" in encoder.tokenizer.decode(ids)


@pytest.mark.data
@pytest.mark.parametrize(
    ("weights", "model"),
    [
        ("stories260K.bin", "tok512.model"),
        ("babyllama_tok105.bin", "tok105.model"),
        ("babyllama_tok361.bin", "tok361.model"),
    ],
)
def test_converted_tokenizers_give_sentencepiece_ids(open_data, tmp_path, weights, model):
    folder = tmp_path / "converted"
    convert(open_data / "llama" / weights, open_data / "llama" / model, folder)
    encoder = load_encoder(folder)
    oracle = sentencepiece.SentencePieceProcessor(str(open_data / "llama" / model))
    stories = (open_data / "general/tinystories_sample.txt").read_text(encoding="utf-8")
    lines = [line for line in stories[:30_000].split("\n") if line.strip() == line != ""]
    assert len(lines) > 100
    for line in lines:
        assert encoder.tokenizer.encode(line, add_special_tokens=False).ids == oracle.encode(line)


def test_files_of_another_format_are_refused_and_nothing_is_left(tmp_path):
    tokenizer = tmp_path / "t.model"
    tokenizer.write_text("not a model")
    good = small_checkpoint(tmp_path / "good.bin")
    broken = {
        "short.bin": good.read_bytes()[:-4],
        "versioned.bin": b"24ka" + good.read_bytes(),
        "text.bin": b"hello, this is not a model at all",
        "empty.bin": b"",
    }
    for name, content in broken.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(BackboneError, match=name):
            convert(tmp_path / name, tokenizer, tmp_path / "out")
    with pytest.raises(BackboneError, match="not a SentencePiece model"):
        convert(good, tokenizer, tmp_path / "out")
    with pytest.raises(BackboneError, match=r"missing\.bin is not a file"):
        convert(tmp_path / "missing.bin", tokenizer, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.data
def test_a_tokenizer_of_another_model_is_refused(open_data, tmp_path):
    with pytest.raises(BackboneError, match=r"105 pieces but .* embeds 512 tokens"):
        convert(
            open_data / "llama/stories260K.bin", open_data / "llama/tok105.model", tmp_path / "out"
        )

"""Files are written by the gguf package; weights are held against what went into them."""

import struct

import gguf
import numpy as np
import pytest
import sentencepiece
import torch
from gguf import GGMLQuantizationType as Type
from model.gguf_files import CONTROL, TOKENS, WHOLE, weights, write_gguf
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from notetune.errors import BackboneError
from notetune.model.backbone import load_backbone
from notetune.model.backbone_folder import licence_of, resolve_backbone
from notetune.model.gguf_file import convert
from notetune.tokens.edges import read_declared
from notetune.tokens.encode import load_encoder


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gguf")
    convert(write_gguf(folder / "tiny.gguf"), folder / "tiny")
    return folder / "tiny"


def test_weights_are_those_that_went_into_the_file(converted):
    got = load_file(converted / "model.safetensors")
    expected = weights()
    assert got.keys() == expected.keys()
    assert len(got) == 20
    for name, (_, kind, _, rows) in expected.items():
        kept = gguf.dequantize(gguf.quantize(rows, kind), kind)  # row by row, in any order
        assert np.array_equal(got[name].numpy(), kept), name


def test_weights_and_logits_are_bit_equal_to_the_reading_of_transformers(converted):
    plain = AutoModelForCausalLM.from_pretrained(converted.parent, gguf_file="tiny.gguf").eval()
    ours = AutoModelForCausalLM.from_pretrained(converted).eval()
    expected, got = plain.state_dict(), ours.state_dict()
    assert expected.keys() == got.keys()
    assert len(got) == 21  # the output layer is the embedding
    assert all(torch.equal(got[name], expected[name]) for name in got)
    ids = torch.arange(20)[None]
    with torch.inference_mode():
        assert torch.equal(ours(ids).logits, plain(ids).logits)


def test_the_configuration_is_the_files(converted):
    config = AutoModelForCausalLM.from_pretrained(converted).config
    assert config.rope_parameters["rope_theta"] == 100_000.0
    assert (config.bos_token_id, config.eos_token_id, config.pad_token_id) == (1, 2, None)
    assert (config.vocab_size, config.max_position_embeddings) == (len(TOKENS), 128)
    assert not hasattr(config, "quantization_config")
    bos = read_declared(converted).edges("bos")
    assert (bos.opener_id, bos.end_id) == (1, 2)
    assert "tiny.gguf" in (converted / "README.md").read_text()
    assert licence_of(converted).name == "apache-2.0"
    assert load_backbone(str(converted)).heads.kv_heads == 2


@pytest.mark.parametrize(
    ("pre", "text", "pieces"),
    [
        ("smollm", "a1234", ["a", "1", "2", "3", "4"]),
        ("qwen2", "a1234", ["a", "1", "2", "3", "4"]),
        ("gpt-2", "a1234", ["a", "123", "4"]),
        ("llama-bpe", "a1234", ["a", "123", "4"]),
        ("gpt-2", "5123", ["5", "123"]),
        ("llama-bpe", "5123", ["5", "12", "3"]),  # 512 is cut off before bytes merge
        ("gpt-2", WHOLE, ["q", "x", "z"]),
        ("llama-bpe", WHOLE, [WHOLE]),
        ("smollm", " ab<|endoftext|>\n\n", ["\u0120", "ab", "<|endoftext|>", "\u010a\u010a"]),
        ("smollm", "<think>é", ["<think>", "Ã", "©"]),
    ],
)
def test_a_text_is_cut_as_the_file_declares(tmp_path, pre, text, pieces):
    convert(write_gguf(tmp_path / "a.gguf", pre=pre), tmp_path / "a")
    plain = AutoTokenizer.from_pretrained(tmp_path / "a")
    opener = ["<|im_start|>"] if pre == "llama-bpe" else []  # what the file leaves open
    assert plain.convert_ids_to_tokens(plain(text)["input_ids"]) == opener + pieces
    tokenizer = load_encoder(tmp_path / "a").tokenizer
    tokenizer.encode_special_tokens = False
    assert tokenizer.encode(text, add_special_tokens=False).tokens == pieces
    assert tokenizer.decode(tokenizer.encode(text).ids, skip_special_tokens=False)[-2:] == text[-2:]


def test_what_stands_round_a_text_is_as_the_file_says(tmp_path):
    def both(writer):
        writer.add_add_bos_token(True)
        writer.add_add_eos_token(True)

    convert(write_gguf(tmp_path / "a.gguf", edit=both), tmp_path / "a")
    ids = AutoTokenizer.from_pretrained(tmp_path / "a")("1")["input_ids"]
    assert ids == [1, TOKENS.index("1"), 2]


@pytest.mark.data
def test_a_sentencepiece_vocabulary_gives_the_ids_of_sentencepiece(open_data, tmp_path):
    oracle = sentencepiece.SentencePieceProcessor(str(open_data / "llama/tok512.model"))
    numbers = range(oracle.GetPieceSize())

    def pieces(writer):
        kinds = [6 if oracle.IsByte(n) else CONTROL if oracle.IsControl(n) else 1 for n in numbers]
        kinds[0] = int(gguf.TokenType.UNKNOWN)
        writer.kv_data[0] = {
            key: value
            for key, value in writer.kv_data[0].items()
            if key.split(".")[-1] not in {"model", "pre", "tokens", "token_type", "merges"}
        }
        writer.add_tokenizer_model("llama")
        writer.add_tokenizer_pre("default")
        writer.add_token_list([oracle.IdToPiece(n) for n in numbers])
        writer.add_token_scores([oracle.GetScore(n) for n in numbers])
        writer.add_token_types(kinds)

    embedding = (Type.F32, np.zeros((512, 64), np.float32))
    path = tmp_path / "a.gguf"
    convert(write_gguf(path, tensors={"token_embd.weight": embedding}, edit=pieces), tmp_path / "a")
    stories = (open_data / "general/tinystories_sample.txt").read_text(encoding="utf-8")
    lines = [line for line in stories[:20_000].split("\n") if line.strip() == line != ""]
    lines += ["5 mg, é — ☃", "two  spaces"]
    assert len(lines) > 60
    plain = AutoTokenizer.from_pretrained(tmp_path / "a")
    for line in lines:
        assert plain(line)["input_ids"] == [1, *oracle.encode(line)]


def setting(**values):
    """An edit that sets metadata by GGUF key, dots written as `__`; None takes a key away."""

    def edit(writer):
        for name, value in values.items():
            key = name.replace("__", ".")
            writer.kv_data[0].pop(key, None)
            if isinstance(value, str):
                writer.add_string(key, value)
            elif value is not None:
                writer.add_uint32(key, value)

    return edit


def array(**values):
    """An edit that replaces arrays of the tokenizer."""

    def edit(writer):
        for name, value in values.items():
            writer.kv_data[0].pop(f"tokenizer.ggml.{name}")
            writer.add_array(f"tokenizer.ggml.{name}", value)

    return edit


def other_special_names(writer):
    """A SentencePiece vocabulary without <s>: adding it would name ids that have no embedding."""
    array(tokens=["<pad>", "<eos>", "<bos>", *(chr(0x100 + n) for n in range(len(TOKENS) - 3))])(
        writer
    )
    setting(tokenizer__ggml__model="llama", tokenizer__ggml__pre="default")(writer)
    writer.add_token_scores([0.0] * len(TOKENS))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": "quokka"}, "quokka"),
        ({"architecture": "t5"}, "architecture t5, which transformers does not read as a decoder"),
        ({"pre": "poro-chat"}, "gpt2 with the pre-tokenizer poro-chat, which is not known here"),
        ({"pre": None}, "gpt2 with the pre-tokenizer default, which is not known here"),
        ({"edit": setting(tokenizer__ggml__model="bert")}, "the tokenizer bert"),
        ({"edit": setting(tokenizer__ggml__eos_token_id="two")}, "yet names id two"),
        ({"edit": setting(tokenizer__ggml__merges=None)}, r"lacks tokenizer\.ggml\.merges"),
        ({"edit": setting(tokenizer__ggml__token_type=None)}, r"lacks tokenizer\.ggml\.token_type"),
        ({"edit": setting(tokenizer__ggml__model=None)}, r"lacks tokenizer\.ggml\.model"),
        ({"edit": setting(general__architecture=None)}, r"lacks general\.architecture"),
        ({"edit": setting(llama__attention__head_count=0)}, r"\(ZeroDivisionError\)"),
        ({"edit": array(merges=["a b", "a zzz", "nothing"])}, "holds 2 merges of no tokens"),
        ({"edit": array(tokens=[*TOKENS[:-1], "a"])}, "some are twice there"),
        ({"edit": other_special_names}, "its special ones are not known here"),
        ({"edit": setting(tokenizer__ggml__eos_token_id=5000)}, "names id 5000"),
        (
            {"edit": setting(llama__attention__head_count=None)},
            r"lacks llama\.attention\.head_count",
        ),
        ({"edit": setting(llama__rope__scaling__type="yarn")}, r"scales its positions \(yarn\)"),
        (
            {"tensors": {"output_norm.weight": (Type.F32, np.full(64, np.nan, np.float32))}},
            r"a\.gguf: model\.norm\.weight holds numbers that are not finite",
        ),
        ({"tensors": {"blk.1.ffn_up.weight": None}}, r"1 tensors, model\.layers\.1\.mlp\.up_proj"),
        (
            {"tensors": {"blk.1.ffn_up.weight": (Type.F32, np.zeros((96, 32), np.float32))}},
            r"lacks or misshapes 1 tensors, model\.layers\.1\.mlp\.up_proj",
        ),
        (
            {"tensors": {"rope_freqs.weight": (Type.F32, np.ones(8, np.float32))}},
            r"1 tensors, rope_freqs\.weight first, which transformers leaves out of a llama model",
        ),
        (
            {"tensors": {"blk.0.ffn_up.weight": (Type.Q8_K, np.zeros((24, 292), np.uint8))}},
            r"tensor blk\.0\.ffn_up\.weight has type Q8_K, which the gguf package cannot",
        ),
    ],
)
def test_what_would_not_be_read_exactly_is_refused_by_name(tmp_path, changes, message):
    path = write_gguf(tmp_path / "a.gguf", **changes)
    with pytest.raises(BackboneError, match=message) as refusal:
        convert(path, tmp_path / "out")
    assert "a.gguf" in str(refusal.value)
    assert list(tmp_path.iterdir()) == [path]


def test_a_tensor_type_that_is_not_known_is_refused(tmp_path):
    path = write_gguf(tmp_path / "a.gguf")
    data = bytearray(path.read_bytes())
    name = b"blk.1.attn_v.weight"
    at = data.index(name) + len(name) + 4 + 2 * 8  # after the number of dimensions and both
    assert data[at : at + 4] == struct.pack("<I", Type.F32)
    data[at : at + 4] = struct.pack("<I", 99)
    path.write_bytes(data)
    with pytest.raises(
        BackboneError, match="a tensor of type 99, which the gguf package does not know"
    ):
        convert(path, tmp_path / "out")
    assert list(tmp_path.iterdir()) == [path]


def test_a_text_in_the_metadata_that_is_no_text_is_damage(tmp_path):
    path = write_gguf(tmp_path / "a.gguf")
    for word in (b"apache-2.0", b"<|im_start|>"):
        data = path.read_bytes()
        assert data.count(word) == 1
        (tmp_path / "b.gguf").write_bytes(data.replace(word, b"\xff" + word[1:]))
        with pytest.raises(BackboneError, match=r"b\.gguf is cut short or damaged"):
            convert(tmp_path / "b.gguf", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_file_cut_short_anywhere_is_refused_and_nothing_is_left(tmp_path):
    whole = write_gguf(tmp_path / "a.gguf").read_bytes()
    path = tmp_path / "a.gguf"
    lengths = [4, 10, 30, 500, 5_000, 9_000, len(whole) // 2, len(whole) - 65]
    assert lengths == sorted(lengths)
    for length in lengths:
        path.write_bytes(whole[:length])
        with pytest.raises(BackboneError, match=r"a\.gguf is cut short or damaged"):
            convert(path, tmp_path / "out")
    for other in (b"", b"GGU", b"GGML" + whole[4:]):
        path.write_bytes(other)
        with pytest.raises(BackboneError, match=r"a\.gguf is not a GGUF file"):
            convert(path, tmp_path / "out")
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_or_file_that_exists_is_left_as_it_is(tmp_path):
    path = write_gguf(tmp_path / "a.gguf")
    mine = tmp_path / "mine"
    mine.write_text("notes")
    for out in (mine, tmp_path):
        with pytest.raises(BackboneError, match="exists already"):
            convert(path, out)
    assert mine.read_text() == "notes"
    assert sorted(tmp_path.iterdir()) == [path, mine]


def test_a_gguf_as_a_backbone_names_the_command(tmp_path):
    path = write_gguf(tmp_path / "a.gguf")
    with pytest.raises(BackboneError, match=rf"`notetune convert {path} FOLDER` makes a backbone"):
        resolve_backbone(str(path))

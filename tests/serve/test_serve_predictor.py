"""A bundle is loaded if it does something and is what was trained."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from builders import random_llama
from safetensors.torch import load_file, save_file
from saved_bundles import TEXTS, saved_bundle, trained

from notetune import manifest, storage
from notetune.errors import BundleError, NotetuneError
from notetune.model.adapters.specs import Full, LoRA
from notetune.model.backbone import load_backbone
from notetune.model.stack import DOMAIN, Layer, Stack, stack
from notetune.ownership import DIGEST
from notetune.serve.predictor import load_predictor


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return random_llama(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def whole(folder, tmp_path_factory):
    return saved_bundle(tmp_path_factory.mktemp("whole") / "cell", trained(folder, LoRA(rank=4)))


def test_adapters_are_looked_at_when_loaded_and_then_no_more(folder, tmp_path, monkeypatch):
    checks = []
    check = Stack.check
    monkeypatch.setattr(Stack, "check", lambda *given: checks.append(check(*given)))
    predictor = load_predictor(saved_bundle(tmp_path / "cell", trained(folder, LoRA(rank=4))))
    predictor.predict(TEXTS)
    assert len(checks) == 1


def test_a_score_that_is_not_finite_leaves_no_predictor(folder, tmp_path):
    predictor = load_predictor(saved_bundle(tmp_path / "cell", trained(folder, LoRA(rank=4))))
    with torch.no_grad():
        predictor.bundle.head.linear.bias.fill_(torch.nan)
    with pytest.raises(BundleError, match="gives 3 of 3 notes scores that are not finite"):
        predictor.predict(TEXTS)


def _json(name, **changes):
    def make(bundle):
        path = bundle / name
        storage.write_json(path, {**json.loads(path.read_text()), **changes})

    return make


def _text(name, text):
    return lambda bundle: (bundle / name).write_bytes(text.encode())


def _tensors(name, change):
    def make(bundle):
        save_file({key: change(t) for key, t in load_file(bundle / name).items()}, bundle / name)

    return make


def _theirs(*makes):
    """The adapter as plain peft left it, then spoilt."""

    def make(bundle):
        (bundle / "domain/adapter.json").unlink()
        for each in makes:
            each(bundle)

    return make


_CARD, _OURS, _PEFT = "bundle.json", "domain/adapter.json", "domain/adapter_config.json"
_HEAD, _WEIGHTS = "head.safetensors", "domain/adapter_model.safetensors"
_DEEP, _HUGE = "[" * 100_000 + "]" * 100_000, 10**30
_HEADER = '{"a":{"dtype":"F32","shape":[1099511627776,1099511627776],"data_offsets":[0,4]}}'
_GIANT = len(_HEADER).to_bytes(8, "little").decode() + _HEADER + "    "
_CARDS = {
    "classes too many": {"classes": ["a", "b", "c"]},
    "classes too few": {"classes": ["a"]},
    "classes that are a string": {"classes": "ab"},
    "classes that are numbers": {"classes": [1, 2]},
    "layers too many": {"layers": [1, 2]},
    "layers beyond the backbone": {"layers": [99]},
    "layers that are negative": {"layers": [-1]},
    "layers that are a section": {"layers": {}},
    "pooling that is none": {"pooling": "max"},
    "pooling that is a list": {"pooling": ["mean"]},
    "tokens beyond the positions": {"max_tokens": 1_000_000},
    "tokens that are endless": {"max_tokens": _HUGE},
    "tokens that are negative": {"max_tokens": -5},
    "tokens that are a truth": {"max_tokens": True},
    "tokens that are text": {"max_tokens": "32"},
    "tokens that are broken": {"max_tokens": 32.5},
    "no pieces": {"max_pieces": 0},
    "pieces that are endless": {"max_pieces": _HUGE},
    "pieces that are a truth": {"max_pieces": True},
    "dtype that is none": {"dtype": "int3"},
    "dtype that is a number": {"dtype": 16},
    "adapters that are not there": {"adapters": ["domain", "task"]},
    "adapters that lead out": {"adapters": ["../domain"]},
    "adapters twice": {"adapters": ["domain", "domain"]},
    "no adapter of the one there": {"adapters": []},
    "adapters that are text": {"adapters": "domain"},
    "kind that is none": {"kind": "ordinal"},
    "another backbone": {"backbone_fingerprint": "0" * 16},
    "backbone that is a list": {"backbone_name": []},
    "end beyond the words": {"opener_id": _HUGE, "end_id": _HUGE},
    "end that is negative": {"end_id": -1},
    "join that is none": {"join": "sometimes"},
    "columns that are a list": {"note_columns": ["text"]},
    "seed that is a section": {"seed": {}},
    "task that is null": {"task": None},
    "format that is a truth": {"format": True},
    "a key more": {"pickle": "a.bin"},
}
_FILES = {
    "head with NaN": _tensors(_HEAD, lambda t: t * torch.nan),
    "head with infinity": _tensors(_HEAD, lambda t: t / 0),
    "head of whole numbers": _tensors(_HEAD, lambda t: t[:1].long()),
    "head of three axes": _tensors(_HEAD, lambda t: t[None]),
    "head that is empty": _text(_HEAD, ""),
    "head that is giant": _text(_HEAD, _GIANT),
    "head that is no header": _text(_HEAD, "a pickle"),
    "adapter giant": _theirs(_text(_WEIGHTS, _GIANT)),
    "adapter empty": _theirs(_text(_WEIGHTS, "")),
    "adapter with NaN": _theirs(_tensors(_WEIGHTS, lambda t: t * torch.nan)),
    "adapter with infinity": _theirs(_tensors(_WEIGHTS, lambda t: t / 0)),
    "adapter of three axes": _theirs(_tensors(_WEIGHTS, lambda t: t[None])),
    "adapter cut": _theirs(_tensors(_WEIGHTS, lambda t: t[:1, :1].contiguous())),
    "adapter of another hash": _tensors(_WEIGHTS, lambda t: t + 1),
    "adapter's card deep": _text(_OURS, _DEEP),
    "adapter's card a list": _text(_OURS, "[]"),
    "adapter's card empty": _text(_OURS, ""),
    "adapter's format a list": _json(_OURS, format=[1]),
    "adapter's spec none": _json(_OURS, spec=None),
    "adapter's spec a list": _json(_OURS, spec=["lora"]),
    "adapter's kind none": _json(_OURS, spec={"kind": "oracle"}),
    "adapter's rank negative": _json(_OURS, spec={"kind": "lora", "rank": -1}),
    "adapter's rank another": _json(_OURS, spec={"kind": "lora", "rank": 3}),
    "adapter's rank endless": _json(_OURS, spec={"kind": "lora", "rank": _HUGE}),
    "adapter's rank a truth": _json(_OURS, spec={"kind": "lora", "rank": True}),
    "peft deep": _theirs(_text(_PEFT, _DEEP)),
    "peft a list": _theirs(_text(_PEFT, "[]")),
    "peft empty": _theirs(_text(_PEFT, "")),
    "peft's type none": _theirs(_json(_PEFT, peft_type=None)),
    "peft's type a list": _theirs(_json(_PEFT, peft_type=["LORA"])),
    "peft's rank text": _theirs(_json(_PEFT, r="4")),
    "peft's rank negative": _theirs(_json(_PEFT, r=-4)),
    "peft's rank endless": _theirs(_json(_PEFT, r=_HUGE)),
    "peft's rank a list": _theirs(_json(_PEFT, r=[4])),
    "peft's scale a section": _theirs(_json(_PEFT, lora_alpha={})),
    "peft's modules a number": _theirs(_json(_PEFT, target_modules=7)),
    "peft's modules numbers": _theirs(_json(_PEFT, target_modules=[7])),
    "peft's modules unknown": _theirs(_json(_PEFT, target_modules=["nothing"])),
    "peft's dropout text": _theirs(_json(_PEFT, lora_dropout="much")),
    "peft's pattern a list": _theirs(_json(_PEFT, rank_pattern=[1])),
    "peft's bias a list": _theirs(_json(_PEFT, bias=["none"])),
}
SPOILT = {**{name: _json(_CARD, **change) for name, change in _CARDS.items()}, **_FILES}


def test_the_spoilt_bundles_are_seventy_eight():
    assert len(SPOILT) == len(_CARDS) + len(_FILES) == 78


@pytest.mark.parametrize("name", SPOILT)
def test_a_spoilt_bundle_with_a_manifest_that_fits_is_refused_in_one_line(
    folder, whole, tmp_path, name
):
    bundle = Path(shutil.copytree(whole, tmp_path / "cell"))
    SPOILT[name](bundle)
    (bundle / manifest.MANIFEST).unlink()
    manifest.seal(bundle, "spoilt")
    with pytest.raises(NotetuneError) as error:
        load_predictor(bundle, str(folder)).predict(TEXTS)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize("kept", [[], [_HEAD]])
def test_a_manifest_that_does_not_name_the_card_is_none(folder, tmp_path, kept):
    bundle = saved_bundle(tmp_path / "cell", trained(folder, LoRA(rank=4)))
    written = json.loads((bundle / manifest.MANIFEST).read_text())
    del written[DIGEST]
    written["files"] = {name: written["files"][name] for name in kept}
    storage.write_json(
        bundle / manifest.MANIFEST, {**written, DIGEST: storage.fingerprint(written)}
    )
    with pytest.raises(BundleError, match=r"bundle\.json is missing or differs from the manifest"):
        load_predictor(bundle, str(folder))


def test_weights_that_are_all_trained_are_looked_at_when_loaded_and_then_no_more(
    folder, tmp_path, monkeypatch
):
    idle = stack(load_backbone(str(folder)), [Layer(DOMAIN, Full(), is_trained=True)])
    with pytest.raises(BundleError, match="adapter domain does not change the output"):
        load_predictor(saved_bundle(tmp_path / "idle", idle))
    predictor = load_predictor(saved_bundle(tmp_path / "cell", trained(folder, Full())))
    monkeypatch.setattr("notetune.model.adapters.full.load_backbone", None)
    assert predictor.predict(TEXTS).scores_NK.shape == (3, 2)


def test_a_bundle_can_be_shared_without_the_scores_of_its_patients(folder, tmp_path):
    bundle = saved_bundle(tmp_path / "cell", trained(folder, LoRA(rank=4)), scores="test.parquet")
    expected = load_predictor(bundle).predict(TEXTS).scores_NK
    (bundle / "test.parquet").unlink()
    assert np.array_equal(load_predictor(bundle).predict(TEXTS).scores_NK, expected)
    (bundle / "domain/adapter.json").unlink()
    with pytest.raises(BundleError, match=r"domain/adapter\.json is missing"):
        load_predictor(bundle)

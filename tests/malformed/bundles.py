"""Malformed bundles, of ours and of somebody else's making."""

import json
import shutil
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from malformed.cases import (
    Case,
    Make,
    all_of,
    cut,
    json_of,
    nothing,
    put,
    sealed,
    swapped,
    without,
)

PREDICT = "predict words notes.csv --note-id note"
_CARD, _WEIGHTS, _MANIFEST = (
    f"words/{name}" for name in ("bundle.json", "weights.safetensors", "manifest.json")
)
_COLUMNS = "predict columns notes.csv --note-id note"
_HYBRID = "predict hybrid notes.csv --note-id note"
_MODEL = "predict model notes.csv --note-id note --device cpu"


def _again(*makes: Make, bundle: str = "words") -> Make:
    """What is spoilt gets a manifest that fits it, as somebody else could give it."""
    return all_of(*makes, sealed(bundle))


def _card(bundle: str = "words", **changes: object) -> Make:
    return _again(json_of(f"{bundle}/bundle.json", lambda card: card | changes), bundle=bundle)


def _tensors(name: str = _WEIGHTS, **changes: object) -> Make:
    """Other tensors in a file of weights, with a manifest that fits; None leaves one out."""

    def make(folder: Path) -> None:
        kept = {**load_file(folder / name), **changes}
        save_file({k: v for k, v in kept.items() if v is not None}, folder / name)

    return _again(make, bundle=name.split("/")[0])


def _header(header: bytes) -> Make:
    return _again(put(_WEIGHTS, len(header).to_bytes(8, "little") + header))


def _linked(folder: Path) -> None:
    (folder / _WEIGHTS).rename(folder / "elsewhere")
    (folder / _WEIGHTS).symlink_to(folder / "elsewhere")


def _files_of(**changes: object) -> Make:
    return json_of(_MANIFEST, lambda manifest: manifest | changes)


_DEEP = "[" * 100_000 + "]" * 100_000
_RESTORE = "is missing or differs from the manifest; restore the bundle from a copy"
_NAN = np.full((1, 10), np.nan, np.float32)

BUNDLES = [
    Case("card cut", cut(_CARD, 0.5), f"bundle.json {_RESTORE}"),
    Case("weights cut", cut(_WEIGHTS, 0.5), f"weights.safetensors {_RESTORE}"),
    Case("no manifest", without(_MANIFEST), "words is not a bundle: it needs bundle.json and manifest.json"),
    Case("no card", without(_CARD), "words is not a bundle"),
    Case("a folder of something else", nothing, "meds is not a bundle", "predict meds notes.csv"),
    Case("a table", nothing, "notes.csv is not a bundle", "predict notes.csv notes.csv"),
    Case("manifest cut", cut(_MANIFEST, 0.5), f"manifest.json {_RESTORE}"),
    Case("manifest without files", _files_of(files={}), f"manifest.json {_RESTORE}"),
    Case("manifest that is deep", put(_MANIFEST, _DEEP), f"manifest.json {_RESTORE}"),
    Case("manifest that is a list", put(_MANIFEST, "[]\n"), f"manifest.json {_RESTORE}"),
    Case("files swapped", lambda f: (f / _WEIGHTS).write_bytes((f / "columns/weights.safetensors").read_bytes()), f"weights.safetensors {_RESTORE}"),
    Case("files of another bundle", _again(lambda f: (f / _WEIGHTS).write_bytes((f / "columns/weights.safetensors").read_bytes())), "weights.safetensors cannot be read; restore it"),
    Case("card that is a list", _again(put(_CARD, "[]")), "bundle.json is no card of a bundle; restore it from a copy"),
    Case("card that is deep", _again(put(_CARD, _DEEP)), "bundle.json is not JSON; restore it"),
    Case("card that is empty", _again(put(_CARD, "")), "bundle.json is not JSON"),
    Case("card with NaN", _again(swapped(_CARD, '"seed": 0', '"seed": NaN')), "bundle.json: seed is nan"),
    Case("card of a later version", _card(format=99), "words has format 99; this version reads 1 and 2"),
    Case("card with a format that is a list", _card(format=[2]), "words has format [2]; this version reads 1 and 2"),
    Case("card of an unknown model", _card(model="oracle"), "is a bundle of kind oracle; this version reads"),
    Case("card whose model is a list", _card(model=["tf-idf"]), "is a bundle of kind"),
    Case("card without classes", _card(classes=[]), "bundle.json: classes is a list: Tuple should have at least 1 item"),
    Case("card with a class too many", _card(classes=["died", "lived"]), "its files are of several bundles; restore it from a copy"),
    Case("card with a key more", _card(pickle="a.bin"), "unknown key pickle"),
    Case("kind of task that is none", _card(kind="regression"), "bundle.json: kind is 'regression'"),
    Case("weights with NaN", _tensors(weight=_NAN), "weights.safetensors holds numbers that are not finite; restore it from a copy"),
    Case("weights of the wrong shape", _tensors(weight=np.zeros((1, 9), np.float32)), "its files are of several bundles"),
    Case("weights of three axes", _tensors(weight=np.zeros((1, 10, 1), np.float32)), "its files are of several bundles"),
    Case("weights of whole numbers", _tensors(weight=np.zeros((1, 10), np.int64)), status=0, said="n00,n00,died,died,0.5"),
    Case("a tensor missing", _tensors(bias=None), "weights.safetensors cannot be read; restore it from a copy"),
    Case("frequencies of the wrong length", _tensors(idf=np.ones(3)), "its files are of several bundles"),
    Case("weights that are text", _again(put(_WEIGHTS, "a pickle")), "weights.safetensors cannot be read"),
    Case("weights whose header is endless", _again(put(_WEIGHTS, b"\xff" * 8 + b"{}")), "weights.safetensors cannot be read"),
    Case("weights whose header is deep", _header(_DEEP.encode()), "weights.safetensors cannot be read"),
    Case("weights of an unknown type", _header(json.dumps({n: {"dtype": "Q7", "shape": [], "data_offsets": [0, 0]} for n in ("weight", "bias", "idf")}).encode()), "weights.safetensors cannot be read"),
    Case("weights of a type that numpy lacks", _again(lambda f: (f / _WEIGHTS).write_bytes(_bfloat16())), "weights.safetensors cannot be read; restore it from a copy"),
    Case("words that are numbers", _again(put("words/terms.json", json.dumps(list(range(10))))), "terms.json is no list of words; restore it from a copy"),
    Case("words that are a section", _again(put("words/terms.json", json.dumps(dict.fromkeys("abcdefghij", 1)))), "terms.json is no list of words; restore it from a copy"),
    Case("word given twice", _again(swapped("words/terms.json", "cough", "fever")), "terms.json is no list of words; restore it from a copy"),
    Case("weights behind a link", _linked, status=0, said="n00,n00,died,died,0.5"),
    Case("pickle beside the weights", _again(put("words/weights.bin", b"\x80\x04.")), status=0, said="n00,n00"),
    Case("columns that are a list", _again(put("columns/columns.json", "[]"), bundle="columns"), "columns.json: is a list: it should be a section", _COLUMNS),
    Case("columns that are deep", _again(put("columns/columns.json", _DEEP), bundle="columns"), "columns.json is not JSON; restore it", _COLUMNS),
    Case("no columns at all", _again(put("columns/columns.json", '{"columns": []}'), bundle="columns"), "columns.json: columns is a list: Tuple should have at least 1 item", _COLUMNS),
    Case("scale of zero", _again(swapped("columns/columns.json", '"scale": 10', '"scale": 0'), bundle="columns"), "columns.0.scale is 0.0: it should be greater than 0", _COLUMNS),
    Case("columns with another name", _card("columns", columns=["age", "time"]), "columns: its files are of several bundles; restore it", _COLUMNS),
    Case("parts that lead out", _card("hybrid", parts=["../../words", "columns"]), "bundle.json: parts.0 is '../../words'", _HYBRID),
    Case("part that is itself", _card("hybrid", parts=["..", "columns"]), "bundle.json: parts.0 is '..'", _HYBRID),
    Case("part that is not there", _card("hybrid", parts=["words", "nowhere"]), "nowhere is not a bundle", _HYBRID),
    Case("part of another task", _again(_card("hybrid/parts/words", classes=["lived"]), bundle="hybrid"), "hybrid/parts/words is no part of hybrid; restore the bundle from a copy", _HYBRID),
    Case("part that is a hybrid", all_of(lambda f: shutil.rmtree(f / "hybrid/parts/words"), lambda f: (f / "hybrid/parts/words").symlink_to(f / "hybrid"), sealed("hybrid")), "hybrid/parts/words is no part of hybrid", _HYBRID),
    Case("no parts", _card("hybrid", parts=[]), "bundle.json: parts is a list: Tuple should have at least 1 item", _HYBRID),
    Case("slopes that are not finite", _tensors("hybrid/weights.safetensors", slopes=np.array([np.inf, 1.0])), "not finite", _HYBRID),
]  # fmt: skip


def _bfloat16() -> bytes:
    tensors = {"weight": ([1, 10], 20), "bias": ([1], 2), "idf": ([10], 20)}
    header, end = {}, 0
    for name, (shape, size) in tensors.items():
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + b"\0" * end

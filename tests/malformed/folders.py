"""Malformed folders of a study that is finished."""

import json
from pathlib import Path

from malformed.cases import Case, Make, added, all_of, cut, json_of, of_format, put, turned, without
from notetune import manifest, storage
from notetune.prepare.prepared import FORMAT

STATUS = "study status study.yaml"
_EVALUATE = "evaluate study.yaml"
_RUN = "runs/small"
_PREPARED, _JOBS = f"{_RUN}/prepared", f"{_RUN}/jobs.jsonl"
_CELL = f"{_RUN}/cells/died/head-only/seed-0"
_PREDICT = f"predict {_CELL} notes.csv --note-id note --device cpu"
_DEEP = "[" * 100_000 + "]" * 100_000


def _event(**event: object) -> Make:
    """An event that no version of ours would write, with the digest that it needs."""
    whole = json.dumps({**event, "digest": storage.fingerprint(event)}, separators=(",", ":"))
    return added(_JOBS, f"{whole}\n")


_DAMAGED = "is damaged or not ours; move it away"

FOLDERS = [
    Case("events torn", turned(_JOBS, lambda t: t[:-9]), status=0, said="done"),
    Case("event damaged", turned(_JOBS, lambda t: t.replace(b'"made"', b'"mode"', 1)), f"jobs.jsonl line 2 {_DAMAGED}"),
    Case("no events", put(_JOBS, ""), status=0, said="done"),
    Case("events of a later version", all_of(put(_JOBS, ""), _event(format=2, of="jobs")), "jobs.jsonl has format 2; this version reads format 1. Use the notetune version that wrote it"),
    Case("events that are deep", put(_JOBS, f"{_DEEP}\n"), f"jobs.jsonl line 1 {_DAMAGED}"),
    Case("events that are bytes", put(_JOBS, b"\xff\xfe\0\0\n"), f"jobs.jsonl line 1 {_DAMAGED}"),
    Case("events that are a folder", all_of(without(_JOBS), lambda f: (f / _JOBS).mkdir()), "jobs.jsonl cannot be read (Is a directory); name another place"),
    Case("event of no job", _event(event="made"), f"jobs.jsonl line 11 {_DAMAGED}"),
    Case("event of a job that is a list", _event(event="made", job=[1]), f"jobs.jsonl line 11 {_DAMAGED}"),
    Case("event of a time that is a text", _event(event="made", job="cells/died/head-only/seed-0", seconds="long"), f"jobs.jsonl line 11 {_DAMAGED}"),
    Case("failure without a reason", all_of(_event(event="failed", job="cells/died/head-only/seed-0"), without(_CELL)), f"jobs.jsonl line 11 {_DAMAGED}"),
    Case("facts cut", cut(f"{_PREPARED}/facts.json", 0.5), "facts.json is missing or damaged; restore it, or let", _EVALUATE),
    Case("facts without tasks", all_of(json_of(f"{_PREPARED}/facts.json", lambda facts: {"flow": []})), "facts.json is missing or damaged; restore it", _EVALUATE),
    Case("prepared notes of a later version", of_format(_PREPARED, FORMAT + 1), f"prepared has format {FORMAT + 1}; this version reads up to {FORMAT}. Use the notetune version that wrote it"),
    Case("prepared notes of an earlier version", of_format(_PREPARED, 1), status=0, said="older format"),
    Case("prepared notes without a manifest", without(f"{_PREPARED}/{manifest.MANIFEST}"), status=0, said="open"),
    Case("prepared notes made anew without a manifest", without(f"{_PREPARED}/{manifest.MANIFEST}"), "prepared was not made by notetune, or its manifest.json is lost", "prepare study.yaml"),
    Case("prepared notes that are a file", all_of(without(_PREPARED), put(_PREPARED, "mine")), "prepared was not made by notetune", "prepare study.yaml"),
    Case("prepared notes beside mine", put(f"{_PREPARED}/mine.txt", "mine"), "mine.txt in it was not made by notetune; move that elsewhere", "prepare study.yaml prepare.max_tokens=16"),
    Case("tokens cut", lambda f: [cut(str(p.relative_to(f)), 0.5)(f) for p in (f / _PREPARED / "tokens").iterdir()], status=0, said="", command="prepare study.yaml --json"),
    Case("manifest deep", put(f"{_PREPARED}/{manifest.MANIFEST}", _DEEP), status=0, said="open"),
    Case("no prepared notes", without(_PREPARED), "prepared/manifest.json is missing or damaged; restore it, or let", _EVALUATE),
    Case("report cut", cut(f"{_RUN}/report/report.json", 0.5), status=0, said="", command=_EVALUATE),
    Case("report with a file of mine", put(f"{_RUN}/report/mine.txt", "mine"), "mine.txt in it was not made by notetune", _EVALUATE),
    Case("looks cut", cut(f"{_RUN}/looks.json", 0.5), "looks.json exists already", _EVALUATE),
    Case("looks that are a list", put(f"{_RUN}/looks.json", "[]"), "looks.json exists already", _EVALUATE),
    Case("recipe of the run cut", cut(f"{_RUN}/recipe.json", 0.5), "recipe.json exists already", "study run study.yaml"),
    Case("scores cut", cut(f"{_CELL}/test.parquet", 0.5), "test.parquet is missing or damaged; restore it, or let `notetune study run` make the folder again", _EVALUATE),
    Case("record of step 1 cut", cut(f"{_RUN}/domain/seed-0/training.json", 0.5), "training.json is not JSON; restore it, or move it away", _EVALUATE),
    Case("step 1 that is a link to nothing", all_of(without(f"{_RUN}/domain/seed-0"), lambda f: (f / _RUN / "domain/seed-0").symlink_to("nowhere")), "domain/seed-0 holds no adapter that was trained as the recipe says now", _EVALUATE),
    Case("lease that is no lease", put(f"{_RUN}/cells/died/head-only/.seed-0.lease", "mine"), status=0, said="done"),
    Case("run folder that is a file", all_of(without(_RUN), put(_RUN, "mine")), "jobs.jsonl cannot be read (Not a directory)"),
    Case("head cut", cut(f"{_CELL}/head.safetensors", 0.5), "head.safetensors is missing or differs from the manifest", _PREDICT),
    Case("head of the wrong shape", lambda f: _with_head(f, rows=2), "head.safetensors is (2, ", _PREDICT),
    Case("head with NaN", lambda f: _with_head(f, factor=float("nan")), "head.safetensors holds numbers that are not finite", _PREDICT),
    Case("head without a bias", lambda f: _with_head(f, has_bias=False), "head.safetensors cannot be read; restore it", _PREDICT),
    Case("card that reads nothing", lambda f: _with_card(f, max_tokens=0), "bundle.json: max_tokens is 0", _PREDICT),
    Case("card that reads two tokens", lambda f: _with_card(f, max_tokens=2), "bundle.json: max_tokens is 2", _PREDICT),
    Case("card that reads a trillion", lambda f: _with_card(f, max_tokens=10**12, max_pieces=10**12), "max_pieces is 1000000000000: it should be less than", _PREDICT),
    Case("card with a layer too many", lambda f: _with_card(f, layers=[99]), "99 is no layer of the backbone", _PREDICT),
    Case("card with an unknown token", lambda f: _with_card(f, end_id=10**6), "token 1000000 stands round documents", _PREDICT),
    Case("card with an adapter that leads out", lambda f: _with_card(f, adapters=["../head"]), "adapters.0 is '../head'", _PREDICT),
    Case("card with an adapter that is not there", lambda f: _with_card(f, adapters=["domain"]), "lists the adapters domain and holds none", _PREDICT),
    Case("another backbone", lambda f: _with_card(f, backbone_fingerprint="0" * 16), "was trained on the backbone", _PREDICT),
]  # fmt: skip


def _seal(folder: Path) -> None:
    (folder / _CELL / manifest.MANIFEST).unlink()
    manifest.seal(folder / _CELL, "valid")


def _with_card(folder: Path, **changes: object) -> None:
    json_of(f"{_CELL}/bundle.json", lambda card: card | changes)(folder)
    _seal(folder)


def _with_head(folder: Path, *, rows: int = 1, factor: float = 1, has_bias: bool = True) -> None:
    from safetensors.numpy import load_file, save_file

    head = load_file(folder / _CELL / "head.safetensors")
    tensors = {"linear.weight": head["linear.weight"].repeat(rows, 0) * factor}
    if has_bias:
        tensors["linear.bias"] = head["linear.bias"]
    save_file(tensors, folder / _CELL / "head.safetensors")
    _seal(folder)

"""Malformed recipes and options."""

import os
from pathlib import Path

from malformed.cases import Case, all_of, nothing, put, swapped, turned, without

_RECIPE = "recipe.yaml"
PREPARE = f"prepare {_RECIPE} --json"
_PATH = "path: notes.csv"


def _with(more: str) -> object:
    return turned(_RECIPE, lambda text: text + f"{more}\n".encode())


def _from(path: str) -> object:
    """The notes from another path."""
    return swapped(_RECIPE, _PATH, f"path: {path}")


def _sparse(folder: Path) -> None:
    os.truncate(folder / _RECIPE, 3 << 30)


def _bracketed(folder: Path) -> None:
    (folder / "notes.csv").rename(folder / "[notes] (1).csv")


_BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join(['*' + old] * 9)}]\n"
    for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
_NOT_YAML = "is not valid YAML; put quotes"
_NO_KEYS = "holds no keys; see recipes/"

RECIPES = [
    Case("empty", put(_RECIPE, ""), _NO_KEYS),
    Case("a comment alone", put(_RECIPE, "# name: small\n"), _NO_KEYS),
    Case("a list", put(_RECIPE, "- name: small\n- runs: runs\n"), _NO_KEYS),
    Case("a word", put(_RECIPE, "small\n"), _NO_KEYS),
    Case("missing", without(_RECIPE), "recipe.yaml is not a file"),
    Case("a folder", nothing, "meds is not a file", "prepare meds"),
    Case("a device", nothing, "/dev/zero is not a file", "prepare /dev/zero"),
    Case("3 GiB", _sparse, "has 3,221,225,472 bytes, and at most 262,144 may be; name a recipe"),
    Case("Latin-1", put(_RECIPE, "name: caf\xe9".encode("latin-1")), "is not UTF-8 text"),
    Case("UTF-16", turned(_RECIPE, lambda t: t.decode().encode("utf-16")), "is not UTF-8 text"),
    Case("byte order mark", turned(_RECIPE, lambda t: b"\xef\xbb\xbf" + t), status=0),
    Case("Windows line ends", swapped(_RECIPE, "\n", "\r\n", -1), status=0),
    Case("tabs", swapped(_RECIPE, "  source:", "\tsource:"), f"line 5: this, or the line before, {_NOT_YAML}"),
    Case("NUL", swapped(_RECIPE, "small", "sm\0all"), _NOT_YAML),
    Case("open quote", swapped(_RECIPE, "small", '"small'), _NOT_YAML),
    Case("colon in a value", swapped(_RECIPE, "small", "a: b: c"), _NOT_YAML),
    Case("two documents", _with("---\nname: other"), _NOT_YAML),
    Case("key given twice", _with("name: other"), "key name is given twice; keep one"),
    Case("bomb of aliases", _with(_BOMB), "its aliases stand for over 100,000 values"),
    Case("alias of itself", _with("tune: &a {pretrain: *a}"), _NOT_YAML),
    Case("depth of lists", _with("tune: " + "[" * 5000), "sections too deep"),
    Case("depth of sections", _with("tune: " + "{a: " * 5000), "sections too deep"),
    Case("20,000 keys", _with("tune: {" + ", ".join(f"a{n}: 1" for n in range(20_000)) + "}"), "and 19990 problems more"),
    Case("Python object", _with("seeds: !!python/object/apply:os.system [ls]"), _NOT_YAML),
    Case("tag of a time", _with("seeds: !!timestamp soon"), "a value that does not fit its tag"),
    Case("tag of an answer", _with("seeds: !!bool soon"), "a value that does not fit its tag"),
    Case("tag of a number", _with('seeds: !!int ""'), "a value that does not fit its tag"),
    Case("tag of bytes", _with("title: !!binary gICA"), "a value is none of text, number, true, false"),
    Case("key that is a list", _with("? [a, b]\n: 1"), _NOT_YAML),
    Case("key that is a number", _with("7: 1"), "unknown key 7; the keys there are"),
    Case("key of a sentence", _with('"a zyxcanary note": 1'), "unknown key (not a name)"),
    Case("misspelt key", _with("seads: 2"), "unknown key seads; did you mean seeds?"),
    Case("misspelt key below", swapped(_RECIPE, "max_tokens", "max_token"), "did you mean prepare.max_tokens?"),
    Case("section that is empty", _with("downstream:"), "downstream is empty: it should be a section"),
    Case("list for a section", _with("downstream: [1]"), "downstream is a list: it should be a section"),
    Case("section for a list", swapped(_RECIPE, "- {name: died", "  {name: died"), "prepare.source.tasks is a section"),
    Case("kind misspelt", swapped(_RECIPE, "kind: table", "kind: tabel"), "prepare.source.kind is 'tabel': it should be one of table"),
    Case("kind missing", swapped(_RECIPE, "    kind: table\n", ""), "prepare.source.kind is missing"),
    Case("kind that is a list", swapped(_RECIPE, "kind: table", "kind: [table]"), "prepare.source.kind is a list"),
    Case("number in quotes", _with('seeds: "2"'), "seeds is '2': it should be a valid integer"),
    Case("fraction for a count", _with("seeds: 1.5"), "seeds is 1.5: it should be a valid integer"),
    Case("no run", _with("seeds: 0"), "seeds is 0: it should be greater than 0"),
    Case("negative size", swapped(_RECIPE, "max_tokens: 32", "max_tokens: -32"), "prepare.max_tokens is -32"),
    Case("NaN", swapped(_RECIPE, "validation: 0.2", "validation: .nan"), "validation is nan: it should be a finite number"),
    Case("infinity", swapped(_RECIPE, "validation: 0.2", "validation: 1e999"), "validation is inf"),
    Case("shares above 1", swapped(_RECIPE, "validation: 0.2", "validation: 0.8"), "validation + test must be below 1"),
    Case("number of 5,000 digits", _with(f"seeds: {'9' * 5000}"), "a number too long"),
    Case("number of 4,000 digits", _with(f"seeds: {'9' * 4000}"), "a whole number over 1,000,000,000,000,000; write a smaller one"),
    Case("a trillion runs", _with(f"seeds: {10**12}"), "seeds is 1000000000000: it should be less than or equal to 1000"),
    Case("a trillion trials", _with(f"tune: {{trials: {10**12}}}"), "less than or equal to 10000"),
    Case("a trillion draws", _with(f"evaluate: {{draws: {10**12}}}"), "less than or equal to 100000"),
    Case("a trillion tokens", swapped(_RECIPE, "max_tokens: 32", f"max_tokens: {10**12}"), status=0),
    Case("a trillion tokens of a row", _with(f"pretrain: {{tokens_per_row: {10**12}}}"), status=0),
    Case("a trillion processes", swapped(_RECIPE, "workers: 1", f"workers: {10**12}"), status=0),
    Case("a trillion positives", swapped(_RECIPE, "workers: 1", f"min_train_positives: {10**12}"), status=0),
    Case("name that leads out", swapped(_RECIPE, "name: small", "name: ../small"), "name is '../small'"),
    Case("name too long", swapped(_RECIPE, "name: small", f"name: {'s' * 65}"), "name is a text"),
    Case("name of two lines", swapped(_RECIPE, "name: small", 'name: "a\\nb"'), "name is a text"),
    Case("column of 300 characters", swapped(_RECIPE, "text: text", f"text: {'t' * 300}"), "1 to 120 printable"),
    Case("path with NUL", _from('"notes\\0.csv"'), "a value holds a NUL character; remove it"),
    Case("path too long", _from(f"{'n' * 300}.csv"), "File name too long"),
    Case("path of two lines", _from('"not\\nes.csv"'), "es.csv is missing"),
    Case("path that colours", _from('"\\e[31mnotes.csv"'), r"\x1b[31mnotes.csv leads to no file"),
    Case("path with brackets", all_of(_bracketed, _from('"[notes] (1).csv"')), status=0),
    Case("open bracket", _from('"notes[.csv"'), "notes[.csv leads to no file; check the path"),
    Case("pattern of two stars", _from('"**.csv"'), "**.csv: `**` stands alone between slashes; mend the pattern"),
    Case("pattern in a parent", _from('"../pla*/notes.csv"'), status=0),
    Case("path that is the folder above", _from('".."'), "no column 'patient' among 6; there are subject_id"),
    Case("empty path", _from('""'), "no column 'patient' among 6; there are subject_id"),
    Case("path through a file", _from("notes.csv/notes.csv"), "notes.csv/notes.csv is missing"),
    Case("run folder below a file", swapped(_RECIPE, "runs: runs", "runs: notes.csv/runs"), "notes.csv is not a folder"),
    Case("run folder with NUL", swapped(_RECIPE, "runs: runs", 'runs: "runs\\0"'), "a key or a value holds a NUL character; remove it"),
    Case("run folder too long", swapped(_RECIPE, "runs: runs", f"runs: {'r' * 300}"), "File name too long"),
    Case("no such backbone", _with("backbone: nowhere"), "backbone nowhere is not a folder"),
    Case("backbone with NUL", _with('backbone: "a\\0b"'), "a key or a value holds a NUL character; remove it"),
    Case("backbone without a model", _with("backbone: meds"), "meds has no config.json"),
    Case("a table for a recipe", nothing, "recipe notes.csv holds no keys", "prepare notes.csv"),
    Case("no such column", swapped(_RECIPE, "text: text", "text: words"), "no column 'words' among 7"),
    Case("override without a value", nothing, "override seeds is not key.sub=value", f"{PREPARE} seeds"),
    Case("override of nothing", nothing, "override a..b=1 is not key.sub=value", f"{PREPARE} a..b=1"),
    Case("override of a value as a section", nothing, "name is a value, not a section", f"{PREPARE} name.a=1"),
    Case("override that is no YAML", nothing, "override name line 1", f"{PREPARE} 'name=[a'"),
    Case("override with a tag", nothing, "override seeds", f"{PREPARE} 'seeds=!!bool x'"),
    Case("option that there is not", nothing, "--jsn", "prepare recipe.yaml --jsn"),
    Case("no such backbone of several", nothing, "the recipe's backbones are none", f"{PREPARE} --only a"),
    Case("no such folder of data", nothing, "nowhere/notes.csv is missing", f"{PREPARE} --data nowhere"),
    Case("no such section", nothing, "no key nowhere in a recipe", "keys nowhere"),
    Case("no such recipe to copy", nothing, "there is no recipe nowhere", "recipes nowhere"),
]  # fmt: skip

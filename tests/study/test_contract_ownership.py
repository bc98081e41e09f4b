"""What a user has survives every command that writes, byte for byte, and the error names it."""

import os
import shutil

import pytest
from small_study import notetune, small_study

from notetune import config, manifest
from notetune.cli import app, study
from notetune.errors import ConfigError
from notetune.recipe.recipe import Recipe

ONLY_READ = {"inspect", "keys", "study status"}
CANARY = b"a user's\x00file"


def with_recipe(*command):
    return lambda place, taken: [*command, place / "recipe.yaml", f"prepared={taken}"]


def with_report(*command):
    return lambda place, taken: [
        *command, place / "recipe.yaml", f"runs={taken.parent.parent}", f"name={taken.parent.name}"
    ]  # fmt: skip


def with_output(*command):
    return lambda place, taken: [
        *command, place / "recipe.yaml", f"runs={place}/elsewhere", "-o", taken
    ]  # fmt: skip


def with_backbone(place, taken):
    """A study of several backbones whose run folder for the first one is that of `taken`."""
    runs_of_one = taken.parents[2]
    return [
        "study", "run", place / "several.yaml", f"runs={runs_of_one.parent}",
        f"name={runs_of_one.name}",
    ]  # fmt: skip


WRITING = {
    # How a command is told to write to a place, and what the place is called below a folder.
    "prepare": (with_recipe("prepare"), "mine"),
    "pretrain": (with_recipe("pretrain"), "mine"),
    "downstream": (with_recipe("downstream"), "mine"),
    "study run": (with_recipe("study", "run"), "mine"),
    "study run, the report": (with_report("study", "run"), "mine/report"),
    "study run, its recipe": (with_report("study", "run"), "mine/recipe.json"),
    "study run, its looks": (with_report("study", "run"), "mine/looks.json"),
    "study run, the recipe of a backbone": (with_backbone, "mine/backbones/a/recipe.json"),
    "study run, a lease": (with_report("study", "run"), "mine/.prepared.lease"),
    "study run, a lock": (with_report("study", "run"), "mine/.prepared.lock"),
    "study run, notes": (with_report("study", "run"), "mine/prepared"),
    "tune": (lambda *at: [*with_recipe("tune")(*at), "tune.pretrain=default"], "mine"),
    "study work": (with_recipe("study", "work"), "mine"),
    "study work, its recipe": (with_report("study", "work"), "mine/recipe.json"),
    "study launch slurm": (with_output("study", "launch", "slurm"), "mine.slurm"),
    "evaluate": (with_report("evaluate"), "mine/report"),
    "evaluate, its looks": (with_report("evaluate"), "mine/looks.json"),
    "predict": (lambda place, taken: ["predict", "x", place / "notes.csv", "-o", taken], "a.csv"),
    "merge": (lambda _, taken: ["merge", "bundle", taken], "mine"),
    "init": (lambda place, taken: ["init", place / "notes.csv", "-o", taken], "mine.yaml"),
    "recipes": (lambda _, taken: ["recipes", "eicu", "-o", taken], "mine.yaml"),
    "convert": (lambda _, taken: ["convert", "a.bin", "b.model", taken], "mine"),
    "synthesize": (lambda _, taken: ["synthesize", taken], "mine"),
    "demo": (lambda _, taken: ["demo", "--folder", taken.parent], "mine/hospital-600"),
}


def put(kind, path):
    """Something of a user's at a path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    match kind:
        case "a file":
            path.write_bytes(CANARY)
        case "a JSON file":
            path.write_text('{"views": 3, "name": "mine"}')
        case "a folder":
            (path / "deep").mkdir(parents=True)
            (path / "deep" / "file").write_bytes(CANARY)
            (path / "manifest.json").write_text('{"format": 1, "files": {}}')
        case "an empty folder":
            path.mkdir()
        case "a link":
            (path.parent / "target").mkdir()
            (path.parent / "target" / "file").write_bytes(CANARY)
            path.symlink_to(path.parent / "target")
        case "a link to nowhere":
            path.symlink_to(path.parent / "nowhere")


def snapshot(folder):
    """Everything below a folder but hidden locks, which are empty."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            found[path] = path.readlink()
        elif path.is_dir():
            found[path] = None
        elif not (path.name.endswith(".lock") and not path.stat().st_size):
            found[path] = path.read_bytes()
    return found


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = small_study(tmp_path_factory.mktemp("small"))
    alone = (place / "recipe.yaml").read_text()
    one, several = f"backbone: {place}/backbone", f"backbones: {{a: {place}/backbone}}"
    assert alone.count(one) == 1
    (place / "several.yaml").write_text(alone.replace(one, several))
    return place


def test_every_command_is_known_to_write_or_not():
    names = [c.name or c.callback.__name__ for c in app.app.registered_commands]
    names += [f"study {c.name}" for c in study.app.registered_commands]
    names += [f"study launch {c.name}" for c in study.launch_app.registered_commands]
    assert len(names) == 18
    assert {name.partition(",")[0] for name in WRITING} == set(names) - ONLY_READ


@pytest.mark.parametrize(
    "kind", ["a file", "a JSON file", "a folder", "an empty folder", "a link", "a link to nowhere"]
)
@pytest.mark.parametrize("writing", WRITING)
def test_nothing_of_a_user_is_replaced_by_any_command(writing, kind, place, tmp_path):
    arguments, name = WRITING[writing]
    if kind == "an empty folder" and name.endswith(("lock", "lease")):
        kind = "a folder"
    taken = tmp_path / name
    put(kind, taken)
    before = snapshot(tmp_path)
    read = snapshot(place)
    done = notetune(*arguments(place, taken))
    assert done.returncode == 2, done.stderr
    (line,) = done.complaints
    assert str(taken) in line
    after = snapshot(tmp_path)
    assert {path: after.get(path, "gone") for path in before} == before
    after = snapshot(place)
    assert {path: after[path] for path in read if "runs" not in path.parts} == {
        path: read[path] for path in read if "runs" not in path.parts
    }


@pytest.mark.parametrize("link", ["the notes", "hard", "symbolic"])
def test_predictions_never_take_the_place_of_their_notes(link, place, tmp_path):
    notes = tmp_path / "notes.csv"
    shutil.copyfile(place / "notes.csv", notes)
    out = tmp_path / "out.csv"
    match link:
        case "the notes":
            out = notes
        case "hard":
            os.link(notes, out)
        case "symbolic":
            out.symlink_to(notes)
    done = notetune("predict", "bundle", notes, "-o", out)
    assert done.returncode == 2
    assert f"{out} exists already" in done.stderr
    assert notes.read_bytes() == (place / "notes.csv").read_bytes()


@pytest.mark.parametrize("where", ["notes", ".", "..", "backbone"])
def test_prepared_notes_never_take_the_place_of_what_is_read(where, place, tmp_path):
    folder = tmp_path / "study"
    shutil.copytree(place, folder)
    (folder / "notes").mkdir()
    (folder / "notes.csv").rename(folder / "notes" / "notes.csv")
    for name in ("notes", "backbone"):  # ours, as a synthetic hospital or a converted model is
        manifest.seal(folder / name, "ours")
    before = snapshot(folder)
    settings = [f"prepare.source.path={folder}/notes/notes.csv", f"backbone={folder}/backbone"]
    target = folder / where
    done = notetune("prepare", folder / "recipe.yaml", *settings, f"prepared={target}")
    assert done.returncode == 2
    assert str(target) in done.stderr
    after = snapshot(folder)
    assert {path: after.get(path) for path in before} == before


@pytest.mark.parametrize("name", ["../../../notes", "/etc/x", "a/b", "..", ".hidden", "", "A"])
def test_a_name_that_becomes_part_of_a_path_is_refused_before_a_note_is_read(name, place):
    (place / "no-notes").mkdir(exist_ok=True)
    task = f"[{{name: '{name}', kind: binary, column: died}}]"
    overrides = [
        f"prepare.source.tasks={task}",
        f"name='{name}'",
        f"backbones={{'{name}': tiny}}",
        f"pretrain.compare={{'{name}': {{}}}}",
        f"encoders.models={{'{name}': bert}}",
    ]
    for override in overrides:
        with pytest.raises(ConfigError, match="pattern"):
            config.load(Recipe, place / "recipe.yaml", [override, "prepare.source.path=none.csv"])

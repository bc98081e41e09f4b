import subprocess
import sys
from pathlib import Path

import pytest

from notetune import __version__
from notetune.cli import app, demo, load, main, study
from notetune.errors import ConfigError

COMMANDS = (
    ["demo"],
    ["init"],
    ["recipes"],
    ["prepare"],
    ["pretrain"],
    ["downstream"],
    ["evaluate"],
    ["predict"],
    ["merge"],
    ["convert"],
    ["inspect"],
    ["keys"],
    ["synthesize"],
    ["study", "run"],
    ["study", "status"],
    ["study", "work"],
    ["tune"],
    ["study", "launch", "slurm"],
)


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["notetune", *arguments])
    with pytest.raises(SystemExit) as done:
        main()
    return done.value.code or 0


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_has_help(monkeypatch, capsys, command):
    assert run(monkeypatch, *command, "--help") == 0
    assert "Usage: notetune " + " ".join(command) in capsys.readouterr().out


def test_the_list_of_commands_above_is_complete():
    names = [c.name or c.callback.__name__ for c in app.app.registered_commands]
    names += [f"study {c.name}" for c in study.app.registered_commands]
    names += [f"study launch {c.name}" for c in study.launch_app.registered_commands]
    assert sorted(names) == sorted(" ".join(command) for command in COMMANDS)


def test_help_loads_no_heavy_library():
    code = (
        "import sys; sys.argv = ['notetune', '--help']\n"
        "from notetune.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'transformers', 'peft', 'polars', 'sklearn', 'scipy', 'numpy'}\n"
        "print('loaded:', sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "loaded: []" in done.stdout
    assert "study" in done.stdout


def test_the_version_is_printed(monkeypatch, capsys):
    assert run(monkeypatch, "--version") == 0
    assert capsys.readouterr().out.strip() == f"notetune {__version__}"


def test_a_folder_of_data_is_taken_as_it_is_written(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    source = "{kind: table, path: n.csv, columns: {text: text}}"
    recipe.write_text(f"name: a\nprepare: {{source: {source}}}\n")
    for name in ("My Data #1", "2024", "a: b", "\U00020bb7野"):
        folder = tmp_path / name
        assert load.study(recipe, None, folder, None).data == folder
    assert load.study(recipe, None, Path("2024"), None).data == Path("2024")


@pytest.mark.parametrize("name", ["2024", "a #1"])
def test_the_demo_writes_into_the_folder_that_was_named_or_says_why_not(tmp_path, name):
    recipe = demo.demo_recipe(tmp_path / name / "demo", 20)
    assert recipe.folder.root == tmp_path / name / "demo"
    assert (recipe.data / "mimic3").is_dir()
    with pytest.raises(ConfigError, match=r"--folder .*My Demo: its last part names the study"):
        demo.demo_recipe(tmp_path / "My Demo", 20)

"""What the wheel holds: installed alone, it has its recipes, its backbone and its hospital."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NOTES = "case,patient,died,text\n" + "".join(
    f"{n},{n},{n % 3 == 0},{f'seen on day {n} with cough; ' * 5}\n" for n in range(60)
)


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The command of a new environment with the wheel, whose only other packages are ours."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    kept = shutil.ignore_patterns("*.pyc", "__pycache__")
    shutil.copytree(ROOT / "src", source / "src", ignore=kept)
    shutil.copytree(ROOT / "recipes", source / "recipes")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
    options = ("--no-deps", "--no-build-isolation", "--no-index")
    subprocess.run([*pip, "wheel", *options, "-w", folder, source], check=True)
    venv.create(folder / "venv", with_pip=False)
    (wheel,) = folder.glob("*.whl")
    python = folder / "venv" / "bin" / "python"
    subprocess.run([*pip, "--python", python, "install", *options, wheel], check=True)
    (site,) = (folder / "venv" / "lib").glob("python*/site-packages")
    # The packages that notetune needs, but not what an editable install of it added to the path.
    (site / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python.with_name("notetune")


def run(command, *arguments, cwd):
    alone = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [command, *arguments], cwd=cwd, env=alone, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_is_the_wheel_that_answers(installed, tmp_path):
    code = "import notetune; print(notetune.__file__)"
    where = run(installed.with_name("python"), "-c", code, cwd=tmp_path)
    assert Path(where.strip()).is_relative_to(installed.parents[1])


def test_it_lists_and_copies_the_recipes_of_the_repository(installed, tmp_path):
    listed = run(installed, "recipes", cwd=tmp_path)
    named = [path.stem for path in (ROOT / "recipes").glob("*.yaml")]
    assert named
    for name in named:
        assert name in listed
    run(installed, "recipes", "eicu", "-o", "mine.yaml", cwd=tmp_path)
    assert (tmp_path / "mine.yaml").read_text() == (ROOT / "recipes" / "eicu.yaml").read_text()


def test_it_drafts_a_recipe_and_counts_what_the_shipped_backbone_would_cost(installed, tmp_path):
    (tmp_path / "notes.csv").write_text(NOTES)
    run(installed, "init", "notes.csv", cwd=tmp_path)
    said = run(installed, "study", "run", "notes.yaml", "--dry-run", cwd=tmp_path)
    assert "died" in said
    assert "trainings" in said


def test_it_writes_the_hospital_of_the_demo(installed, tmp_path):
    run(installed, "synthesize", "hospital", "--patients", "20", cwd=tmp_path)
    assert list((tmp_path / "hospital").rglob("NOTEEVENTS*"))

"""The job script of Slurm, and the share of the machine that each worker has."""

import json
import shlex
import subprocess

import pytest
from small_study import notetune, small_study

from notetune import config
from notetune.cli.workers import share, slurm_script
from notetune.errors import ConfigError
from notetune.recipe.recipe import Recipe


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return small_study(tmp_path_factory.mktemp("small"))


def load(place, *overrides):
    return config.load(Recipe, place / "recipe.yaml", list(overrides))


class TestSlurm:
    def test_the_script_runs_workers_and_gives_them_time_to_save(self, place, tmp_path):
        done = notetune(
            "study", "launch", "slurm", place / "recipe.yaml", f"runs={tmp_path}",
            "--tasks", "3", "--gpus", "2", "--sbatch", "--partition=gpu",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        lines = done.stdout.splitlines()
        assert lines[0] == "#!/bin/bash"
        options = [line.removeprefix("#SBATCH ") for line in lines if line.startswith("#SBATCH")]
        expected = {"--array=0-2", "--gpus-per-task=2", "--partition=gpu", "--signal=TERM@120"}
        assert expected <= set(options)
        assert f"study work {place / 'recipe.yaml'} runs={tmp_path}" in lines[-1]
        assert (tmp_path / "small" / "workers").is_dir()
        checked = subprocess.run(["bash", "-n"], input=done.stdout, text=True, check=False)
        assert checked.returncode == 0

    def test_the_folder_of_logs_is_one_word_to_sbatch(self, place, tmp_path):
        runs = tmp_path / 'a "b" %j'
        script = slurm_script(load(place, f"runs={json.dumps(str(runs))}"), [], 1, 0, [])
        (line,) = [line for line in script.splitlines() if "--output" in line]
        word = f"--output={runs}/small/workers/slurm-%A-%a.log"
        assert shlex.split(line)[1:] == [word.replace("%j", "%%j")]

    @pytest.mark.parametrize("option", ["-p gpu", "--comment=a\n#!", "partition=gpu"])
    def test_an_option_that_is_none_is_refused(self, place, tmp_path, option):
        with pytest.raises(ConfigError, match="is no option such as"):
            slurm_script(load(place, f"runs={tmp_path}"), [], 1, 0, [option])


@pytest.mark.parametrize(
    ("number", "count", "gpus", "expected"),
    [
        (0, 1, 0, {}),
        (1, 4, 1, {}),
        (0, 4, 4, {"CUDA_VISIBLE_DEVICES": "0"}),
        (5, 8, 4, {"CUDA_VISIBLE_DEVICES": "1"}),
    ],
)
def test_each_worker_has_its_share_of_the_machine(number, count, gpus, expected, monkeypatch):
    monkeypatch.setattr("notetune.prepare.shards.usable_cores", lambda: 8)
    threads = {"OMP_NUM_THREADS": str(max(1, 8 // count))}
    assert share(number, count, gpus) == threads | expected

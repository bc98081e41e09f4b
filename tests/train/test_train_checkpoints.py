"""Checkpoints: whole or absent, verified, never of another run, and as if nothing had happened."""

import gc
import json
import os
import re
import resource
import shutil
import signal
import sys
import warnings
from itertools import islice

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_training import INPUTS, STEPS, SmallTraining, after, in_child

from notetune import claims, ownership, runs, storage
from notetune.errors import RunError, RunWarning
from notetune.train import checkpoints as module
from notetune.train.checkpoints import Checkpoints, Position
from notetune.train.early_stopping import Evaluation

FILES = ["weights.safetensors", "optimizer.safetensors", "state.json", "steps.jsonl"]
FILES_AND_MANIFEST = [*FILES, "manifest.json"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    training = SmallTraining(tmp_path_factory.mktemp("whole"))
    training.run(save_every=100)
    return training.outcome()


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A folder whose training was saved after steps 6, 7 and 8, and stopped there."""
    folder = tmp_path_factory.mktemp("stopped")
    training = SmallTraining(folder)
    for step in islice(training.run_from(training.checkpoints.restore()), 9):
        if step.number >= 6:
            training.checkpoints.save(after(step))
    return folder


@pytest.fixture
def folder(stopped, tmp_path):
    shutil.copytree(stopped, tmp_path / "work")
    return tmp_path / "work"


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def goes_on(folder, whole, **options):
    training = SmallTraining(folder, **options)
    training.run()
    return training.outcome() == whole


def test_a_training_that_goes_on_ends_in_the_same_bits(folder, whole):
    assert names_in(folder) == ["step-00000008", "step-00000009", "steps.jsonl"]
    assert SmallTraining(folder).checkpoints.restore() == Position(9, halvings=1)
    assert goes_on(folder, whole)
    assert len(whole["steps"]) == STEPS
    assert {step[-1] for step in whole["steps"]} == {0, 1}


def test_saving_at_every_step_changes_nothing(tmp_path, whole):
    assert goes_on(tmp_path, whole)


def test_without_a_checkpoint_a_training_begins_anew_and_so_does_its_log(tmp_path, whole):
    training = SmallTraining(tmp_path)
    for step in training.run_from(Position(0)):
        if step.number == 3:
            break
    assert len(SmallTraining(tmp_path).checkpoints.steps()) == 4
    assert goes_on(tmp_path, whole)


def test_the_two_newest_are_kept_with_what_was_found_on_the_way(tmp_path):
    training, found = SmallTraining(tmp_path), ()
    for step in training.run_from(Position(0)):
        found += (
            Evaluation(steps=step.number + 1, loss=1 / 3, auroc=None if step.number else 0.1),
        )
        training.checkpoints.save(Position(step.number + 1, step.halvings, found))
    assert names_in(tmp_path) == ["step-00000011", "step-00000012", "steps.jsonl"]
    assert SmallTraining(tmp_path).checkpoints.restore() == Position(12, 1, found)
    assert len(found) == STEPS


def test_what_does_not_train_is_saved_and_restored_beside_what_does(folder):
    def with_best(best):
        training = SmallTraining(folder)
        tensors = {**training.parameters, "best": best}
        training.checkpoints = Checkpoints(folder, INPUTS, tensors, training.optimizer)
        return training

    for path in folder.glob("step-*"):
        shutil.rmtree(path)
    training = with_best(torch.arange(3.0))
    training.checkpoints.save(after(next(training.run_from(Position(0)))))
    best = torch.zeros(3)
    assert with_best(best).checkpoints.restore() == Position(1)
    assert best.tolist() == [0, 1, 2]


def zero_tail(content):
    return content[: len(content) // 2] + bytes(len(content) - len(content) // 2)


def flip(content, place):
    changed = bytearray(content)
    at = int(place * (len(content) * 8 - 1))
    changed[at // 8] ^= 1 << at % 8
    return bytes(changed)


DAMAGE = {
    "missing": lambda _: None,
    "empty": lambda _: b"",
    "one byte short": lambda content: content[:-1],
    "half": lambda content: content[: len(content) // 2],
    "zeroed tail": zero_tail,
    "one byte more": lambda content: content + b"\n",
    **{f"bit flipped at {n}/19": lambda content, n=n: flip(content, n / 19) for n in range(20)},
}


def cases_of_damage():
    return [(name, kind) for name in FILES_AND_MANIFEST for kind in DAMAGE]


def test_the_matrix_of_damage_is_as_large_as_it_should_be():
    assert len(cases_of_damage()) + len(FILES_AND_MANIFEST) + 4 >= 112


@pytest.mark.parametrize(("name", "kind"), cases_of_damage())
def test_a_damaged_file_is_named_and_the_checkpoint_before_is_taken(folder, name, kind):
    newest = folder / "step-00000009"
    content = DAMAGE[kind]((newest / name).read_bytes())
    (newest / name).unlink() if content is None else (newest / name).write_bytes(content)
    falls_back(folder, rf"step-00000009: {re.escape(name)} is missing or damaged")


def falls_back(folder, message):
    training = SmallTraining(folder)
    with pytest.warns(RunWarning, match=f"{message}; going on from step 8"):
        assert training.checkpoints.restore() == Position(8, 1)
    assert names_in(folder) == ["step-00000008", "steps.jsonl"]
    assert [step.number for step in training.checkpoints.steps()] == list(range(8))


@pytest.mark.parametrize("name", FILES_AND_MANIFEST)
def test_a_file_of_another_step_is_found(folder, name):
    shutil.copyfile(folder / "step-00000008" / name, folder / "step-00000009" / name)
    wrong = name if name != "manifest.json" else "optimizer.safetensors"  # the first of its list
    falls_back(folder, rf"step-00000009: {re.escape(wrong)} is missing or damaged")


def change_tensors(name, change):
    def apply(folder):
        tensors = load_file(folder / name)
        change(tensors)
        save_file(tensors, folder / name)

    return apply


def extra(tensors):
    tensors["other"] = torch.ones(1)


def lacking(tensors):
    tensors.popitem()


def reshaped(tensors):
    name, tensor = max(tensors.items(), key=lambda item: item[1].numel())
    tensors[name] = tensor.flatten()


def retyped(tensors):
    name, tensor = tensors.popitem()
    tensors[name] = tensor.double()


@pytest.mark.parametrize("name", FILES[:2])
@pytest.mark.parametrize("change", [extra, lacking, reshaped])
@pytest.mark.parametrize("is_sealed", [False, True])
def test_tensors_that_do_not_fit_are_found_with_checksums_and_without(
    folder, name, change, is_sealed
):
    newest = folder / "step-00000009"
    change_tensors(name, change)(newest)
    fault = rf"{re.escape(name)} is missing or damaged"
    if is_sealed:
        seal_again(newest)
        fault = "its tensors are not those of this training"
    falls_back(folder, f"step-00000009: {fault}")


def test_weights_of_another_type_are_found(folder):
    newest = folder / "step-00000009"
    change_tensors(FILES[0], retyped)(newest)
    seal_again(newest)
    falls_back(folder, "step-00000009: its tensors are not those of this training")


def seal_again(folder):
    aside = folder.rename(folder.parent / "aside")
    inputs = {"training": storage.fingerprint(INPUTS), "checkpoint": folder.name}
    with runs.new_folder(folder, inputs) as part:
        for name in FILES:
            shutil.copyfile(aside / name, part / name)
    shutil.rmtree(aside)


def test_a_renamed_checkpoint_is_not_taken_for_a_later_step(folder):
    (folder / "step-00000009").rename(folder / "step-00000011")
    falls_back(folder, "step-00000011: is of another run or step")


def test_when_no_checkpoint_is_whole_the_training_does_not_start_again(folder):
    for name in ("step-00000008", "step-00000009"):
        (folder / name / "weights.safetensors").write_bytes(b"")
    before = names_in(folder)
    for _ in range(2):
        with pytest.raises(RunError, match=r"no checkpoint in .* is whole: .*weights.safetensors"):
            SmallTraining(folder).checkpoints.restore()
    assert names_in(folder) == before


def test_a_checkpoint_of_another_recipe_is_never_used(folder):
    with pytest.raises(RunError, match="is of another run or step"):
        SmallTraining(folder, inputs={"recipe": "other"}).checkpoints.restore()


def test_another_number_of_threads_is_told_and_the_training_goes_on(folder, monkeypatch):
    monkeypatch.setattr(module.torch, "get_num_threads", lambda: 64)
    with pytest.warns(RunWarning, match=r"resume is not bit-exact: threads \d+ is now 64"):
        assert SmallTraining(folder).checkpoints.restore().next_step == 9


def test_a_torn_line_of_the_log_is_not_in_the_log_after_a_restart(folder, whole):
    with (folder / "steps.jsonl").open("a") as file:
        file.write('{"number": 9, "lo')
    assert goes_on(folder, whole)


class Interruption:
    """Does something before the n-th line that Python runs in the code of checkpoints and runs."""

    FILES = (module.__file__, runs.__file__)

    def __init__(self, number, act=lambda: None):
        self.left = number
        self.act = act
        self.seen = 0

    def __enter__(self):
        self.before = sys.gettrace()
        sys.settrace(self.trace)

    def __exit__(self, *_):
        sys.settrace(self.before)

    def trace(self, frame, event, _argument):
        if frame.f_code.co_filename not in self.FILES:
            return None
        if event == "line":
            self.seen += 1
            if self.seen == self.left:
                sys.settrace(None)
                self.act()
        return self.trace


def save_of_step_10(folder, interruption):
    training = SmallTraining(folder)
    steps = training.run_from(training.checkpoints.restore())
    position = after(next(steps))
    with interruption:
        training.checkpoints.save(position)


def lines_of_a_save(stopped, folder):
    """How many there are in a folder as deep as this one: those above it are looked at."""
    shutil.copytree(stopped, folder)
    counter = Interruption(0)
    save_of_step_10(folder, counter)
    shutil.rmtree(folder)
    return counter.seen


def no_space():
    raise OSError(28, "No space left on device")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_error_at_any_line_of_a_save_leaves_a_checkpoint_to_go_on_from(stopped, tmp_path, whole):
    lines = lines_of_a_save(stopped, tmp_path / "counted")
    assert lines > 60
    outcomes = {"saved": 0, "told": 0}
    for number in range(1, lines + 1, 4):
        stage = tmp_path / str(number)
        work = shutil.copytree(stopped, ownership.work_of(stage, "0" * 16))
        try:
            save_of_step_10(work, Interruption(number, no_space))
            outcomes["saved"] += 1
        except (RunError, OSError):
            outcomes["told"] += 1
        with claims.claimed(stage):
            assert not list(work.glob(".*.part"))
        training = SmallTraining(work)
        assert training.checkpoints.restore().next_step in (9, 10)
        if number % 5 == 0:
            training.run()
            assert training.outcome() == whole
        shutil.rmtree(work)
    assert outcomes["told"] > 10
    gc.collect()  # of files that an error between opening and `with` left open


def test_a_kill_at_any_line_of_a_save_leaves_a_checkpoint_to_go_on_from(stopped, tmp_path):
    counted = ownership.work_of(tmp_path / "run" / "0", "0" * 16)
    lines, newest = lines_of_a_save(stopped, counted), []
    for number in (*range(1, lines, 4), lines):
        stage = tmp_path / "run" / str(number)
        work = shutil.copytree(stopped, ownership.work_of(stage, "0" * 16))
        end = in_child(
            lambda work=work, number=number: save_of_step_10(
                work, Interruption(number, lambda: os.kill(os.getpid(), signal.SIGKILL))
            )
        )
        assert os.WTERMSIG(end) == signal.SIGKILL
        with claims.claimed(stage), warnings.catch_warnings(action="error"):
            newest.append(SmallTraining(work).checkpoints.restore().next_step)
            assert not list(work.glob(".*.part"))
        shutil.rmtree(work)
    assert set(newest) == {9, 10}
    assert newest == sorted(newest)


def test_a_full_disk_at_any_size_is_one_clear_error_and_loses_nothing(stopped, tmp_path, whole):
    shutil.copytree(stopped, tmp_path / "big")
    largest = max(path.stat().st_size for path in (tmp_path / "big").rglob("*.*"))
    sizes = [0, 1, *range(largest // 20, largest, largest // 20)]
    assert len(sizes) >= 20

    def save_on_a_full_disk(work, size):
        training = SmallTraining(work)
        position = after(next(training.run_from(training.checkpoints.restore())))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
        told = r"step-00000010 cannot be written \(File too large; .*raise that limit"
        with pytest.raises(RunError, match=told):
            training.checkpoints.save(position)

    for size in sizes:
        work = shutil.copytree(stopped, tmp_path / str(size))
        end = in_child(lambda work=work, size=size: save_on_a_full_disk(work, size))
        assert end == 0
        assert names_in(work) == ["step-00000008", "step-00000009", "steps.jsonl"]
        assert SmallTraining(work).checkpoints.restore() == Position(9, 1)
    assert goes_on(tmp_path / "0", whole)


def test_the_log_has_each_step_once_with_its_exact_loss(folder, whole):
    SmallTraining(folder).run()
    lines = [json.loads(line) for line in (folder / "steps.jsonl").read_text().splitlines()]
    assert [line["number"] for line in lines] == list(range(STEPS))
    assert [line["loss"].hex() for line in lines] == [step[1] for step in whole["steps"]]

"""A training that chooses its best state keeps it, stopped on the way or not."""

import signal

import numpy as np
import pytest
import torch
from small_study import sigterm_after
from small_training import Notes

from notetune.errors import Stopped
from notetune.progress import silent
from notetune.train.checkpoints import Checkpoints
from notetune.train.early_stopping import Choice
from notetune.train.loop import train
from notetune.train.optim import adamw
from notetune.train.schedule import OptimConfig, ValidationConfig
from notetune.train.training import Training, fit

AUROCS = {2: 0.6, 4: 0.9, 6: 0.7, 8: 0.89, 10: 0.95}
OPTIM = OptimConfig(peak_lr=0.1)


def small_training():
    """Twelve steps; validation is best after four, and after eight patience is at its end."""
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(3))
    inputs = torch.randn(12, 3)
    taken = []

    def rows(first_step):
        for number in range(first_step, 12):
            taken.append(number)
            yield [Notes(np.array([number]))]

    choice = Choice(
        ValidationConfig(evaluations_per_epoch=1, patience=2),
        {"w": weight},
        lambda steps: (1.0, AUROCS.get(steps, 0.5)),
        steps_per_epoch=2,
        step_count=12,
    )
    optimizer = adamw(OPTIM, ([weight], OPTIM.peak_lr))
    training = Training(
        "small", "inputs", None, {"w": weight}, optimizer, OPTIM, rows,
        lambda row: ((inputs[row.documents_D] @ weight - 1) ** 2).sum(),
        12, 0, "notes", 1, 3, choice,
    )  # fmt: skip
    return training, weight, taken


@pytest.fixture(scope="module")
def after_four():
    """The weights after four steps of the loop, without any choice."""
    training, weight, _ = small_training()
    steps = train(
        training.rows(0), training.summed_loss, training.optimizer,
        lambda number: OPTIM.schedule(number, 12), step_count=12, max_grad_norm=1.0, seed=0,
    )  # fmt: skip
    for _ in range(4):
        next(steps)
    return weight.detach().clone()


def test_a_training_stops_early_and_ends_in_its_best_state(tmp_path, after_four):
    training, weight, taken = small_training()
    fit(training, tmp_path, 10, silent)
    assert taken == list(range(8))
    assert torch.equal(weight, after_four)
    assert training.choice.best_steps == 4


@pytest.mark.parametrize("steps_at_once", [1, 3])
def test_stopped_after_any_step_it_ends_in_the_same_state(tmp_path, after_four, steps_at_once):
    stops = 0
    while True:
        training, weight, _ = small_training()
        try:
            record = fit(training, tmp_path, 0, sigterm_after(steps_at_once))
            break
        except Stopped:
            stops += 1
    assert stops == 8 // steps_at_once
    assert torch.equal(weight, after_four)
    assert [one.auroc for one in training.choice.evaluations] == [0.5, 0.6, 0.9, 0.7, 0.89]
    assert record.steps == 8


@pytest.fixture(params=[signal.SIGINT, signal.SIGTERM])
def number(request):
    """A signal that is not ignored, as one is in what a shell has put into the background."""
    before = signal.signal(request.param, signal.SIG_DFL)
    yield request.param
    signal.signal(request.param, before)


def test_a_request_while_the_last_step_is_saved_stops_it_right_after(tmp_path, monkeypatch, number):
    save = Checkpoints.save

    def interrupted(self, position):
        signal.raise_signal(number)
        save(self, position)

    training, _, taken = small_training()
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", interrupted)
        with pytest.raises(
            Stopped, match=r"small: stopped after step 7, which is saved"
        ) as stopped:
            fit(training, tmp_path, 10, silent)
    assert stopped.value.signal == number
    assert len(taken) == 8
    again, weight, taken = small_training()
    fit(again, tmp_path, 10, silent)
    assert taken == []
    assert torch.equal(weight, training.choice.best["w"])

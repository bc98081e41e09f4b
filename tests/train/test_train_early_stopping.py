"""The state that is kept is the best on the validation notes; looking ends when it cannot win."""

import pytest
import torch

from notetune.errors import TrainingError
from notetune.train.early_stopping import Choice, Evaluation, best_of
from notetune.train.schedule import ValidationConfig


def found(*aurocs, losses=None):
    losses = losses or [1.0] * len(aurocs)
    pairs = zip(losses, aurocs, strict=True)
    return [
        Evaluation(steps=number, loss=loss, auroc=auroc)
        for number, (loss, auroc) in enumerate(pairs, start=1)
    ]


def test_the_criterion_decides_which_evaluation_is_best():
    evaluations = found(0.6, 0.8, 0.7, losses=[0.5, 0.4, 0.3])
    assert best_of(evaluations, "auroc").steps == 2
    assert best_of(evaluations, "loss").steps == 3


def test_of_equal_aurocs_the_lower_loss_wins_and_of_equal_ones_the_first():
    assert best_of(found(0.8, 0.8, 0.8, losses=[0.5, 0.3, 0.3]), "auroc").steps == 2
    assert best_of(found(0.8, 0.7, losses=[0.3, 0.3]), "loss").steps == 1


def test_patience_counts_evaluations_since_the_best_one():
    def is_over(*aurocs, patience=2):
        config, evaluations = ValidationConfig(patience=patience), tuple(found(*aurocs))
        return Choice(config, {}, lambda _: (1.0, None), 1, 99, evaluations).is_over

    assert not is_over()
    assert not is_over(0.9, 0.8)
    assert is_over(0.9, 0.8, 0.8)
    assert not is_over(0.9, 0.8, 0.91)
    assert not is_over(0.9, *[0.1] * 50, patience=None)


@pytest.mark.parametrize(
    ("per_epoch", "expected"),
    [(1, [5, 10, 12]), (2, [3, 5, 8, 10, 12]), (99, list(range(1, 13)))],
)
def test_evaluations_are_spread_over_each_epoch_and_the_last_step_has_one(per_epoch, expected):
    config = ValidationConfig(evaluations_per_epoch=per_epoch)
    choice = Choice(config, {}, lambda _: (1.0, 0.5), steps_per_epoch=5, step_count=12)
    for steps in range(1, 13):
        choice.see(steps)
    assert [one.steps for one in choice.evaluations] == expected


def test_the_best_state_comes_back():
    weight = torch.nn.Parameter(torch.zeros(2))
    scores = iter([0.6, 0.9, 0.7])
    choice = Choice(ValidationConfig(), {"w": weight}, lambda _: (1.0, next(scores)), 1, 3)
    for steps in (1, 2, 3):
        weight.data += 1
        choice.see(steps)
    choice.restore_best()
    assert choice.best_steps == 2
    assert weight.tolist() == [2, 2]


def test_a_validation_loss_that_is_not_finite_stops_the_training():
    choice = Choice(ValidationConfig(), {}, lambda _: (float("nan"), None), 1, 1)
    with pytest.raises(TrainingError, match="the validation loss is nan"):
        choice.see(1)

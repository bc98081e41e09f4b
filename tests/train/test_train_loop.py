from dataclasses import dataclass

import pytest
import torch
from torch import nn

from notetune.errors import TrainingError
from notetune.train.loop import train
from notetune.train.optim import OptimConfig, adamw


@dataclass(frozen=True)
class Points:
    """Inputs and answers of a linear regression."""

    x: torch.Tensor
    y: torch.Tensor

    @property
    def target_count(self) -> int:
        return len(self.y)


X = torch.tensor([[1.0, 2.0], [0.5, -1.0], [3.0, 0.0], [-1.0, 1.5], [2.0, 2.0]])
Y = torch.tensor([1.0, -2.0, 0.5, 3.0, 1.0])


def sgd(*parameters, peak_lr=0.1):
    return torch.optim.SGD([{"params": list(parameters), "peak_lr": peak_lr}], lr=99.0)


def run(parts, *, steps=3, max_grad_norm=1e9, rate=0.1, broken=None):
    weight = nn.Parameter(torch.zeros(2))
    seen = []

    def summed_loss(batch):
        loss = ((batch.x @ weight - batch.y) ** 2).sum()
        return loss * broken if broken is not None and len(seen) == 1 else loss

    step_batches = [[Points(X[a:b], Y[a:b]) for a, b in parts]] * steps
    loop = train(
        step_batches,
        summed_loss,
        sgd(weight, peak_lr=rate),
        lambda step: 1 / (step + 1),
        step_count=steps,
        max_grad_norm=max_grad_norm,
    )
    seen.extend(step for step in loop)
    return weight.detach(), seen


def descent(steps, rate):
    """Gradient descent on the mean squared error, written out."""
    w = [0.0, 0.0]
    losses = []
    for step in range(steps):
        errors = [
            sum(a * b for a, b in zip(w, x, strict=True)) - y
            for x, y in zip(X.tolist(), Y.tolist(), strict=True)
        ]
        losses.append(sum(e * e for e in errors) / len(errors))
        for j in range(2):
            gradient = sum(2 * e * x[j] for e, x in zip(errors, X.tolist(), strict=True)) / len(
                errors
            )
            w[j] -= rate / (step + 1) * gradient
    return w, losses


@pytest.mark.parametrize("parts", [[(0, 5)], [(0, 4), (4, 5)], [(0, 1), (1, 2), (2, 5)]])
def test_any_split_of_a_step_equals_gradient_descent_on_the_mean_loss(parts):
    weight, steps = run(parts)
    expected, losses = descent(3, 0.1)
    assert weight.tolist() == pytest.approx(expected, rel=1e-5)
    assert [step.loss for step in steps] == pytest.approx(losses, rel=1e-5)
    assert [step.number for step in steps] == [0, 1, 2]
    assert {step.targets for step in steps} == {5}
    assert [step.learning_rate for step in steps] == pytest.approx([0.1, 0.05, 0.1 / 3])


def test_clipping_shortens_the_gradient_to_the_norm():
    weight, steps = run([(0, 5)], steps=1, max_grad_norm=0.5, rate=1.0)
    assert steps[0].grad_norm > 0.5
    assert float(weight.norm()) == pytest.approx(0.5, rel=1e-4)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_before_the_update(value):
    with pytest.raises(TrainingError, match=r"step 1: loss sum .* is not finite"):
        run([(0, 5)], broken=value)


def test_batches_that_end_early_are_named():
    weight = nn.Parameter(torch.ones(2))
    loop = train(
        [[Points(X, Y)]],
        lambda batch: (batch.x @ weight).sum(),
        sgd(weight),
        lambda _: 1.0,
        step_count=2,
        max_grad_norm=1.0,
    )
    with pytest.raises(TrainingError, match="batches ended at step 1; the run needs 2"):
        list(loop)


def test_a_trainable_tensor_without_a_gradient_stops_the_run():
    used, idle = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    loop = train(
        [[Points(X, Y)]],
        lambda batch: (batch.x @ used).sum(),
        sgd(used, idle),
        lambda _: 1.0,
        step_count=1,
        max_grad_norm=1.0,
    )
    with pytest.raises(TrainingError, match="1 of 2 trainable tensors get no gradient"):
        list(loop)


@pytest.mark.parametrize("steps", [1, 2, 10, 333])
def test_the_schedule_rises_to_the_peak_and_falls_to_nearly_zero(steps):
    config = OptimConfig(warmup_fraction=0.1)
    shares = [config.schedule(step, steps) for step in range(steps)]
    assert all(0 < share <= 1 for share in shares)
    peak = shares.index(max(shares))
    assert shares[: peak + 1] == sorted(shares[: peak + 1])
    assert shares[peak:] == sorted(shares[peak:], reverse=True)
    if steps >= 10:
        assert shares[peak] == 1
        assert peak == round(0.1 * steps) - 1
        assert shares[-1] == pytest.approx(1 / (steps - peak))


def test_each_group_trains_at_its_own_rate_and_an_empty_one_is_left_out():
    layer, head = nn.Linear(2, 2), nn.Linear(2, 1, bias=False)
    groups = adamw(
        OptimConfig(), (layer.parameters(), 1e-3), ([], 1.0), (head.parameters(), 1e-2)
    ).param_groups
    assert [(len(group["params"]), group["peak_lr"]) for group in groups] == [(2, 1e-3), (1, 1e-2)]

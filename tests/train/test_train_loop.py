from dataclasses import dataclass
from itertools import islice
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from notetune import storage
from notetune.errors import StepError, TrainingError
from notetune.train.loop import train
from notetune.train.out_of_memory import was_too_large


@dataclass(frozen=True)
class Points:
    """Inputs and answers of a linear regression."""

    x: torch.Tensor
    y: torch.Tensor
    documents_D: np.ndarray

    @property
    def target_count(self) -> int:
        return len(self.y)

    def halves(self):
        middle = len(self.y) // 2
        return (points(self, 0, middle), points(self, middle, None)) if middle else (self,)


def points(whole, first, last):
    part = slice(first, last)
    return Points(whole.x[part], whole.y[part], whole.documents_D[part])


X = torch.tensor([[1.0, 2.0], [0.5, -1.0], [3.0, 0.0], [-1.0, 1.5], [2.0, 2.0]])
Y = torch.tensor([1.0, -2.0, 0.5, 3.0, 1.0])
ALL = Points(X, Y, np.arange(10, 15))
DROPOUT = 0.3


def sgd(*parameters, peak_lr=0.1):
    return torch.optim.SGD([{"params": list(parameters), "peak_lr": peak_lr}], lr=99.0)


def run(parts, *, steps=3, max_grad_norm=1e9, rate=0.1):
    weight = nn.Parameter(torch.zeros(2))
    loop = train(
        [[points(ALL, a, b) for a, b in parts]] * steps,
        lambda batch: ((batch.x @ weight - batch.y) ** 2).sum(),
        sgd(weight, peak_lr=rate),
        lambda step: 1 / (step + 1),
        step_count=steps,
        max_grad_norm=max_grad_norm,
        seed=0,
    )
    seen = list(loop)
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


def test_rows_that_end_early_are_named():
    weight = nn.Parameter(torch.ones(2))
    loop = train(
        [[ALL]],
        lambda batch: (batch.x @ weight).sum(),
        sgd(weight),
        lambda _: 1.0,
        step_count=2,
        max_grad_norm=1.0,
        seed=0,
    )
    with pytest.raises(TrainingError, match="rows ended at step 1; the run needs 2"):
        list(loop)


def test_a_trainable_tensor_without_a_gradient_stops_the_run():
    used, idle = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    loop = train(
        [[ALL]],
        lambda batch: (batch.x @ used).sum(),
        sgd(used, idle),
        lambda _: 1.0,
        step_count=1,
        max_grad_norm=1.0,
        seed=0,
    )
    with pytest.raises(TrainingError, match="1 of 2 trainable tensors get no gradient"):
        list(loop)


class Training:
    """A linear regression with dropout, AdamW and accumulation, whose loss can be tampered with."""

    def __init__(self, weight=None, optimizer_state=None):
        self.weight = nn.Parameter(torch.zeros(2) if weight is None else weight.clone())
        group = {"params": [self.weight], "peak_lr": 0.1}
        self.optimizer = torch.optim.AdamW([group])
        if optimizer_state is not None:
            self.optimizer.load_state_dict(optimizer_state)
        self.calls: list[list[int]] = []

    def steps(self, tamper=lambda _training, _batch, loss: loss, *, steps=4, **options):
        def summed_loss(batch):
            self.calls.append(batch.documents_D.tolist())
            x = F.dropout(batch.x, DROPOUT)
            return tamper(self, batch, ((x @ self.weight - batch.y) ** 2).sum())

        rows = [[points(ALL, 0, 4), points(ALL, 4, 5)]] * (steps - options.get("first_step", 0))
        settings = {"step_count": steps, "max_grad_norm": 1.0, "seed": 7, **options}
        return train(rows, summed_loss, self.optimizer, lambda _: 1.0, **settings)

    @property
    def bits(self):
        state = self.optimizer.state[self.weight]
        return [self.weight.tolist(), *(value.tolist() for value in state.values())]


def losses_of(steps):
    return [step.loss.hex() for step in steps]


def test_dropout_depends_on_seed_and_step_number_only():
    whole = Training()
    losses = losses_of(whole.steps())
    first = Training()
    torch.manual_seed(123)
    begun = losses_of(islice(first.steps(), 2))
    rest = Training(first.weight.detach(), first.optimizer.state_dict())
    torch.manual_seed(321)
    assert begun + losses_of(rest.steps(first_step=2)) == losses
    assert rest.bits == whole.bits
    assert losses_of(Training().steps(seed=8)) != losses


SPOILED = [
    ("first", 0, [0]),
    ("second", 1, [0]),
    ("in the middle of accumulation", 1, [1]),
    ("last", 3, [0, 1]),
]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("where", ["loss", "gradient"])
@pytest.mark.parametrize(("_name", "number", "rows"), SPOILED)
def test_what_is_not_finite_stops_before_the_update_and_names_the_documents(
    value, where, _name, number, rows
):
    clean = Training()
    good = list(clean.steps(steps=number)) if number else []

    def spoil(training, _batch, loss):
        if (len(training.calls) - 1) // 2 != number or (len(training.calls) - 1) % 2 not in rows:
            return loss
        if where == "loss":
            return loss + value
        loss.register_hook(lambda gradient: gradient * value)
        return loss

    broken, seen = Training(), []
    with pytest.raises(StepError, match=f"step {number}: .* is not finite") as stopped:
        seen.extend(broken.steps(spoil))
    assert losses_of(seen) == losses_of(good)
    assert broken.bits == clean.bits
    of_rows = [[10, 11, 12, 13], [14]]
    suspects = rows if where == "loss" else [0, 1]
    assert stopped.value.documents == [d for row in suspects for d in of_rows[row]]


CPU_MESSAGE = "[enforce fail] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"


def too_large(most, begins_at, make_error):
    """A memory that holds `most` documents from some call on."""

    def tamper(training, batch, loss):
        if len(training.calls) > begins_at and batch.target_count > most:
            raise make_error()
        return loss

    return tamper


@pytest.mark.parametrize(
    "make_error", [lambda: RuntimeError(CPU_MESSAGE), lambda: torch.OutOfMemoryError("CUDA")]
)
@pytest.mark.parametrize("begins_at", [0, 2, 3, 6])
@pytest.mark.parametrize(("most", "halvings"), [(3, 1), (1, 2)])
def test_out_of_memory_goes_on_as_if_the_rows_had_been_halved_from_that_step(
    make_error, begins_at, most, halvings
):
    broken = Training()
    steps = list(broken.steps(too_large(most, begins_at, make_error)))
    step = (begins_at + 1) // 2
    assert [s.halvings for s in steps] == [0] * step + [halvings] * (4 - step)
    assert {s.order for s in steps} == {storage.fingerprint([10, 11, 12, 13, 14])}
    assert {s.targets for s in steps} == {5}

    before = Training()
    begun = list(before.steps(steps=step)) if step else []
    after = Training(before.weight.detach(), before.optimizer.state_dict())
    rest = list(after.steps(first_step=step, halvings=halvings))
    assert losses_of(steps) == losses_of(begun + rest)
    assert broken.bits == after.bits
    assert after.calls[:2] == ([[10, 11], [12, 13]] if halvings == 1 else [[10], [11]])


@pytest.mark.parametrize("size", [0, 1, 2])
def test_a_document_that_does_not_fit_is_named_by_the_process_that_holds_it(size):
    world = SimpleNamespace(sums=lambda *_: [2.0, 1.0])  # and one of them held a single document
    with pytest.raises(StepError) as stopped:
        was_too_large(3, points(ALL, 0, size) if size else None, world)
    assert stopped.value.documents == ([10] if size == 1 else [])


def test_one_document_that_does_not_fit_is_an_error_that_names_it():
    training = Training()
    with pytest.raises(StepError, match="one document alone does not fit into memory") as stopped:
        list(training.steps(too_large(0, 2, lambda: RuntimeError(CPU_MESSAGE))))
    assert stopped.value.documents == [10]
    clean = Training()
    list(clean.steps(steps=1))
    assert training.bits == clean.bits


@pytest.mark.parametrize(
    "make_error", [lambda: RuntimeError(CPU_MESSAGE), lambda: torch.OutOfMemoryError("CUDA")]
)
def test_an_optimizer_that_does_not_fit_is_one_clear_error_and_no_step(make_error, monkeypatch):
    training, seen = Training(), []

    def fail():
        raise make_error()

    monkeypatch.setattr(training.optimizer, "step", fail)
    with pytest.raises(TrainingError, match=r"step 0: the optimizer's averages.* do not fit"):
        seen.extend(training.steps())
    assert seen == []
    assert len(training.calls) == 2  # the rows are not halved for it


def test_any_other_error_of_the_optimizer_is_not_taken_for_a_lack_of_memory(monkeypatch):
    training = Training()

    def fail():
        raise RuntimeError("a faulty optimizer")

    monkeypatch.setattr(training.optimizer, "step", fail)
    with pytest.raises(RuntimeError, match="a faulty optimizer"):
        list(training.steps())


def test_any_other_runtime_error_is_not_taken_for_a_lack_of_memory():
    def fail(_training, _batch, _loss):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    training = Training()
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        list(training.steps(fail))
    assert len(training.calls) == 1

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import log_loss
from sklearn.utils.class_weight import compute_sample_weight
from torch import nn

from notetune.model.losses import (
    balanced_weights,
    next_token_loss,
    next_token_losses,
    outcome_loss,
    probabilities,
)

HIDDEN, VOCABULARY = 6, 11


class Recorded(nn.Linear):
    """A head that remembers how many tokens it was asked for at once."""

    def forward(self, hidden):
        self.asked = [*getattr(self, "asked", []), len(hidden)]
        return super().forward(hidden)


def parts(length, *, is_trained, bias=False):
    torch.manual_seed(length)
    head = Recorded(HIDDEN, VOCABULARY, bias=bias)
    head.requires_grad_(is_trained)
    hidden = torch.randn(length, HIDDEN, requires_grad=True)
    return head, hidden, torch.randint(0, VOCABULARY, (length,))


@pytest.mark.parametrize("length", [1, 127, 128, 129, 300])
@pytest.mark.parametrize("is_trained", [False, True])
def test_loss_and_gradients_are_those_of_all_logits_at_once(length, is_trained):
    head, hidden, ids = parts(length, is_trained=is_trained, bias=True)
    asked_for = [hidden, *head.parameters()] if is_trained else [hidden]
    expected = F.cross_entropy(head(hidden), ids, reduction="sum")
    gradients = torch.autograd.grad(3 * expected, asked_for)
    head.asked = []
    loss = next_token_loss(head, hidden, ids)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    got = torch.autograd.grad(3 * loss, asked_for)
    assert len(got) == len(asked_for)
    for one, other in zip(got, gradients, strict=True):
        assert torch.allclose(one, other, atol=1e-5)
    assert sum(head.asked) == length  # nothing is computed twice
    assert max(head.asked) <= 128  # nor all at once


def test_gradients_of_a_mean_in_bfloat16_are_scaled_before_they_are_rounded():
    torch.manual_seed(0)
    head = nn.Linear(16, 50, bias=False).bfloat16().requires_grad_(requires_grad=False)
    hidden_TH = torch.randn(30, 16).bfloat16().requires_grad_()
    ids_T = torch.randint(50, (30,))
    (whole_TH,) = torch.autograd.grad(next_token_loss(head, hidden_TH, ids_T), hidden_TH)
    (mean_TH,) = torch.autograd.grad(next_token_loss(head, hidden_TH, ids_T) / 3_000, hidden_TH)
    assert torch.equal(mean_TH, (whole_TH.float() / 3_000).bfloat16())


def test_losses_of_single_tokens_add_up_and_need_no_gradient():
    head, hidden, ids = parts(300, is_trained=True)
    with torch.no_grad():
        losses = next_token_losses(head, hidden, ids)
        total = next_token_loss(head, hidden, ids)
    assert torch.allclose(losses, F.cross_entropy(head(hidden), ids, reduction="none"), atol=1e-6)
    assert total.item() == pytest.approx(losses.sum().item(), rel=1e-6)
    assert not total.requires_grad


def test_a_row_without_targets_has_no_loss():
    head, hidden, ids = parts(4, is_trained=False)
    loss = next_token_loss(head, hidden[:0], ids[:0])
    loss.backward()
    assert loss.item() == 0.0
    assert hidden.grad.abs().sum() == 0


@pytest.mark.parametrize("kind", ["binary", "multilabel", "multiclass"])
@pytest.mark.parametrize("is_balanced", [False, True])
def test_an_outcome_loss_is_that_of_scikit_learn_weighted_or_not(kind, is_balanced):
    rng = np.random.default_rng(0)
    labels = {"binary": 1, "multilabel": 3, "multiclass": 4}[kind]
    logits = torch.from_numpy(rng.normal(size=(40, labels)))
    classes = rng.choice(4, 40, p=[0.6, 0.2, 0.15, 0.05])
    ones = classes[:, None] == np.arange(4) if kind == "multiclass" else rng.random((40, labels))
    targets = (ones < 0.2 if kind != "multiclass" else ones).astype(np.int8)
    columns = [classes] if kind == "multiclass" else list(targets.T)
    scores = probabilities(kind, logits).numpy()
    scores = [scores / scores.sum(1, keepdims=True)] if kind == "multiclass" else list(scores.T)
    expected = [
        40 * log_loss(
            truth,
            score,
            sample_weight=compute_sample_weight("balanced", truth) if is_balanced else None,
        )
        for truth, score in zip(columns, scores, strict=True)
    ]  # fmt: skip
    weights = torch.from_numpy(balanced_weights(kind, targets)) if is_balanced else None
    loss = outcome_loss(kind, logits, torch.from_numpy(targets), weights)
    assert loss.item() == pytest.approx(np.mean(expected), rel=1e-5)


def test_a_value_that_no_note_has_weighs_nothing():
    assert balanced_weights("binary", np.zeros((4, 1), np.int8)).tolist() == [[0.5], [0.0]]
    ones, targets = [2.0, 2 / 3, 0.0], np.eye(3, dtype=np.int8)[[0, 1, 1, 1]]
    assert balanced_weights("multiclass", targets)[1] == pytest.approx(ones)


@pytest.mark.parametrize("kind", ["binary", "multiclass"])
def test_no_two_logits_of_float32_tie_at_a_score_of_1(kind):
    logits = torch.linspace(-30, 30, 601)[:, None]
    if kind == "multiclass":
        logits = torch.cat([logits, torch.zeros_like(logits)], 1)
    scores = probabilities(kind, logits)
    assert scores.dtype == torch.float64
    assert (scores[:, 0].diff() > 0).all()

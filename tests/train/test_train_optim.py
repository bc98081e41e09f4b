"""Each group of parameters trains at its own rate."""

from torch import nn

from notetune.train.optim import adamw
from notetune.train.schedule import OptimConfig


def test_each_group_trains_at_its_own_rate_and_an_empty_one_is_left_out():
    layer, head = nn.Linear(2, 2), nn.Linear(2, 1, bias=False)
    groups = adamw(
        OptimConfig(), (layer.parameters(), 1e-3), ([], 1.0), (head.parameters(), 1e-2)
    ).param_groups
    assert [(len(group["params"]), group["peak_lr"]) for group in groups] == [(2, 1e-3), (1, 1e-2)]

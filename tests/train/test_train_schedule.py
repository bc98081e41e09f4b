"""The learning rate rises to its peak and falls to nearly zero."""

import pytest

from notetune.train.schedule import OptimConfig


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

"""A process that has lost its lease stops before its next step."""

import pytest
from other_machine import leased_by_another

from notetune import claims, lease
from notetune.lease import LeaseLostError, holder_of
from notetune.progress import silent


def test_watching_a_lease_that_is_lost_stops_before_the_next_step(tmp_path):
    with claims.claimed(tmp_path / "stage") as held:
        steps = held.watched(silent)("", range(3), 3, str)
        assert next(steps) == 0
        leased_by_another(tmp_path / "stage", 0)
        held._last_beat -= 2 * lease.BEAT_SECONDS
        with pytest.raises(LeaseLostError):
            next(steps)
    assert holder_of(tmp_path / "stage").host == "node7"

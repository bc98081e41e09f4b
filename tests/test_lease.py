"""A process that has lost its lease stops before its next step."""

import json
import os
import time

import pytest

from notetune import claims, lease, ownership
from notetune.lease import LeaseLostError, holder_of
from notetune.progress import silent


def of_another_machine(folder, seconds_ago, **changes):
    """A lease that another machine touched last so long ago."""
    values = vars(lease.this_process()) | {"host": "node7", "token": "of node7"} | changes
    path = ownership.lease_of(folder)
    path.write_text(json.dumps(values))
    then = time.time() - seconds_ago
    os.utime(path, (then, then))


def test_watching_a_lease_that_is_lost_stops_before_the_next_step(tmp_path):
    with claims.claimed(tmp_path / "stage") as held:
        steps = held.watched(silent)("", range(3), 3, str)
        assert next(steps) == 0
        of_another_machine(tmp_path / "stage", 0)
        held._last_beat -= 2 * lease.BEAT_SECONDS
        with pytest.raises(LeaseLostError):
            next(steps)
    assert holder_of(tmp_path / "stage").host == "node7"

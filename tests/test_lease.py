"""A process that has lost its lease stops before its next step."""

import dataclasses
import subprocess
from pathlib import Path

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


@pytest.mark.skipif(not Path("/proc/self/ns/pid").is_symlink(), reason="Linux alone has namespaces")
def test_a_process_of_another_container_is_not_known_to_have_ended(tmp_path):
    gone = subprocess.Popen(["true"])
    gone.wait()
    mine = dataclasses.replace(lease.this_process(), process=gone.pid)
    assert mine.has_ended
    namespace = str(Path("/proc/self/ns/pid").readlink())
    assert mine.boot.endswith(f" {namespace}")
    assert not dataclasses.replace(mine, boot=mine.boot.replace(namespace, "pid:[1]")).has_ended

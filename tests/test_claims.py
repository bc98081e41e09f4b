"""Who makes what: one process at a time, whichever of them dies or stands still."""

import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest
from other_machine import leased_by_another

from notetune import claims, lease, manifest, ownership, runs
from notetune.errors import RunError
from notetune.lease import holder_of, holders_below


def run_python(code):
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def holding(folder, beat=20):
    """A process that holds the lease of `folder`, and says whether it is lost when it goes on."""
    process = run_python(f"""
        import sys
        from pathlib import Path
        from notetune import claims, lease
        from notetune.progress import silent

        def steps():
            yield 1
            sys.stdin.readline()
            yield 2

        lease.BEAT_SECONDS = {beat}
        try:
            with claims.claimed(Path({str(folder)!r})) as held:
                for step in held.watched(silent)("", steps(), 2, str):
                    print(step, flush=True)
        except lease.LeaseLostError:
            print("lost", flush=True)
    """)
    assert process.stdout.readline() == "1\n"
    return process


def kill(process):
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL


def can_claim(folder):
    with claims.claimed(folder) as held:
        return held is not None


class TestClaimed:
    def test_one_process_at_a_time_has_it_and_the_others_see_which(self, tmp_path):
        folder = tmp_path / "run" / "stage"
        process = holding(folder)
        assert not can_claim(folder)
        assert holder_of(folder).name.startswith(f"process {process.pid} on ")
        assert [h.process for h in holders_below(tmp_path)] == [process.pid]
        process.communicate("go on\n")
        assert holder_of(folder) is None
        assert can_claim(folder)
        assert not ownership.lease_of(folder).exists()

    def test_is_free_after_its_process_was_killed(self, tmp_path):
        kill(holding(tmp_path / "stage"))
        assert ownership.lease_of(tmp_path / "stage").exists()
        assert holder_of(tmp_path / "stage") is None
        assert can_claim(tmp_path / "stage")

    def test_is_free_before_anyone_waited_for_its_killed_process(self, tmp_path):
        process = holding(tmp_path / "stage")
        process.send_signal(signal.SIGKILL)
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert can_claim(tmp_path / "stage")
        process.communicate()

    def test_is_free_after_an_error_inside(self, tmp_path):
        with pytest.raises(ValueError, match="inside"), claims.claimed(tmp_path / "stage"):
            raise ValueError("inside")
        assert can_claim(tmp_path / "stage")

    def test_is_not_given_twice_to_one_process(self, tmp_path):
        with claims.claimed(tmp_path / "stage"):
            assert not can_claim(tmp_path / "stage")

    @pytest.mark.parametrize("missed", [0, 1, 2, 2.9, 3.1, 100])
    def test_is_taken_from_another_machine_after_three_missed_beats(self, tmp_path, missed):
        leased_by_another(tmp_path / "stage", missed * lease.BEAT_SECONDS)
        assert can_claim(tmp_path / "stage") == (missed > 3)

    @pytest.mark.parametrize("hours", [-1000, 1000])
    def test_does_not_ask_the_clock_of_the_other_machine(self, tmp_path, hours):
        leased_by_another(tmp_path / "fresh", 0, since=time.time() + 3600 * hours)
        leased_by_another(tmp_path / "dead", 1000, since=time.time() + 3600 * hours)
        assert not can_claim(tmp_path / "fresh")
        assert can_claim(tmp_path / "dead")

    @pytest.mark.parametrize("content", [b"", bytes(150), b'{"token": "5f'])
    def test_a_lease_without_content_is_taken_until_it_is_old(self, tmp_path, content):
        path = ownership.lease_of(tmp_path / "stage")
        path.write_bytes(content)  # it is being written, or a power loss took what was
        assert not can_claim(tmp_path / "stage")
        os.utime(path, (time.time() - 1000,) * 2)
        assert can_claim(tmp_path / "stage")

    def test_a_process_that_stood_still_finds_that_another_took_over(self, tmp_path, monkeypatch):
        monkeypatch.setattr(lease, "BEAT_SECONDS", 1)
        folder = tmp_path / "stage"
        process = holding(folder, beat=1)
        time.sleep(1.5)
        assert not can_claim(folder)
        process.send_signal(signal.SIGSTOP)
        time.sleep(4)
        with claims.claimed(folder) as held:
            assert held is not None
            process.send_signal(signal.SIGCONT)
            assert process.communicate("go on\n")[0] == "lost\n"
            assert not held.is_lost
            assert holder_of(folder).process == os.getpid()
        assert not ownership.lease_of(folder).exists()

    def test_a_process_that_stood_still_goes_on_if_nobody_took_over(self, tmp_path):
        process = holding(tmp_path / "stage", beat=0.3)
        process.send_signal(signal.SIGSTOP)
        time.sleep(1)
        process.send_signal(signal.SIGCONT)
        assert process.communicate("go on\n")[0] == "2\n"

    def test_many_processes_that_die_never_have_it_at_once(self, tmp_path):
        code = f"""
            import os, random, signal, time
            from pathlib import Path
            from notetune import claims
            place, claims_left = Path({str(tmp_path)!r}), 8
            random.seed(os.getpid())

            def is_alive(pid):
                try:
                    return bool(Path("/proc", pid, "cmdline").read_bytes())  # a zombie has none
                except OSError:
                    return False

            while claims_left:
                with claims.claimed(place / "stage") as held:
                    if held is None:
                        time.sleep(0.01)
                        continue
                    claims_left -= 1
                    inside = place / f"inside-{{os.getpid()}}"
                    inside.touch()
                    others = [p.name[7:] for p in place.glob("inside-*") if p != inside]
                    print("two" if any(map(is_alive, others)) else "one", flush=True)
                    if random.random() < 0.02:
                        os.kill(os.getpid(), signal.SIGKILL)
                    inside.unlink()
        """
        processes = [run_python(code) for _ in range(4)]
        said = [line for process in processes for line in process.communicate()[0].split()]
        assert {process.returncode for process in processes} <= {0, -signal.SIGKILL}
        assert set(said) == {"one"}
        assert len(said) >= 8

    def test_clears_what_a_killed_process_left_half_written(self, tmp_path):
        killed = run_python(f"""
            import time
            from pathlib import Path
            from notetune import claims, runs
            stage = Path({str(tmp_path / "run" / "stage")!r})
            with claims.claimed(stage), runs.work_folder(stage, 1) as work:
                with runs.new_folder(work / "step", 1) as part:
                    (part / "notes.txt").write_text("secret")
                    print("half", flush=True)
                    time.sleep(60)
        """)
        assert killed.stdout.readline() == "half\n"
        kill(killed)
        assert len(list(tmp_path.rglob("notes.txt"))) == 1
        with claims.claimed(tmp_path / "run" / "stage"):
            assert not list(tmp_path.rglob("notes.txt"))
            assert len(list((tmp_path / "run").glob(".stage.*.work"))) == 1

    def test_says_that_it_cannot_write(self, tmp_path, monkeypatch):
        def refused(*_):
            raise OSError(30, "Read-only file system")

        monkeypatch.setattr(lease.os, "open", refused)
        with pytest.raises(RunError, match="cannot be written"):
            can_claim(tmp_path / "stage")


class TestClearParts:
    @pytest.fixture
    def parts(self, tmp_path):
        """A part of a folder, and one inside its work folder, of an hour ago."""
        work = ownership.work_of(tmp_path / "stage", "0" * 16)
        found = [place / ".stage.abc12_7z.notetune.part" for place in (tmp_path, work)]
        for part in found:
            part.mkdir(parents=True)
            os.utime(part, (time.time() - 3600,) * 2)
        return found

    def test_removes_what_was_left_long_ago(self, tmp_path, parts):
        claims.clear_parts(tmp_path)
        assert not any(part.exists() for part in parts)

    def test_leaves_what_is_new(self, tmp_path, parts):
        for part in parts:
            os.utime(part)
        claims.clear_parts(tmp_path)
        assert all(part.exists() for part in parts)

    def test_leaves_what_another_process_works_on(self, tmp_path, parts):
        leased_by_another(tmp_path / "stage", 0)
        claims.clear_parts(tmp_path)
        assert all(part.exists() for part in parts)

    def test_leaves_what_is_made_one_at_a_time(self, tmp_path):
        shared = tmp_path / "one" / "prepared"
        with claims.one_at_a_time(shared), runs.new_folder(shared, "notes") as part:
            (part / "notes.csv").write_text("x")
            os.utime(part, (time.time() - 3600,) * 2)
            claims.clear_parts(tmp_path)
            assert (part / "notes.csv").exists()
        assert manifest.is_finished(shared, "notes")

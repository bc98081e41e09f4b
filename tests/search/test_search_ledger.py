"""The ledger of a search: nothing recorded is lost, nothing damaged is believed."""

import errno
import os
import random
import resource
import stat
from concurrent.futures import ThreadPoolExecutor

import pytest

from notetune import storage
from notetune.errors import RunError
from notetune.journal import _line
from notetune.search.ledger import FORMAT, Failed, Finished, Ledger, Proposed, Trial

STUDY = "0123456789abcdef"


def point(n):
    return {"adapter.rank": 2**n, "optim.peak_lr": 1e-4 / (n + 3), "adapter.init": "Zürich"}


def events(trials):
    for n in range(trials):
        yield Proposed(n, point(n), "gp")
        yield Finished(n, 1 / (n + 7), 0.25)


def filled(path, trials=4):
    ledger = Ledger(path, STUDY)
    for event in events(trials):
        ledger.append(event)
    return ledger


def test_trials_come_back_as_they_were_recorded(tmp_path):
    path = tmp_path / "search" / "ledger.jsonl"
    ledger = Ledger(path, STUDY)
    assert ledger.trials() == []
    ledger.append(Proposed(0, point(0), "random"), Proposed(1, point(1), "random"))
    ledger.append(Proposed(2, point(2), "random"))
    ledger.append(Finished(1, 0.1 + 0.2, 3.5), Failed(2, "TrainingError"))
    expected = [
        Trial(0, point(0), "running"),
        Trial(1, point(1), "finished", 0.1 + 0.2, 3.5),
        Trial(2, point(2), "failed"),
    ]
    assert ledger.trials() == Ledger(path, STUDY).trials() == expected
    assert list(ledger.trials()[0].point) == list(point(0))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_first_score_of_a_trial_counts_and_a_failed_trial_may_still_finish(tmp_path):
    ledger = Ledger(tmp_path / "ledger", STUDY)
    ledger.append(Proposed(0, {"a": 1}, "gp"), Failed(0, "DataError"))
    ledger.append(Finished(0, 0.5, 1), Finished(0, 0.75, 1), Failed(0, "DataError"))
    assert ledger.trials() == [Trial(0, {"a": 1}, "finished", 0.5, 1)]


REFUSED = {
    "a number proposed twice": (Proposed(0, {"a": 2}, "gp"), "trial 0 is proposed already"),
    "a trial that never began": (Finished(7, 0.5, 1), "trial 7 ends, but was never proposed"),
    "no number": (Finished(0, float("nan"), 1), "has a number that is not finite"),
}


@pytest.mark.parametrize(("event", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_an_event_that_makes_no_sense_is_refused_and_nothing_recorded(tmp_path, event, message):
    ledger = filled(tmp_path / "ledger")
    before = ledger.path.read_bytes()
    with pytest.raises(RunError, match=message):
        ledger.append(Proposed(4, point(4), "gp"), event)
    assert ledger.path.read_bytes() == before


def test_the_text_of_an_error_is_refused_and_not_repeated():
    with pytest.raises(RunError) as error:
        Failed(3, "no room for canary in the row")
    assert "trial 3" in str(error.value)
    assert "canary" not in str(error.value)


def test_a_ledger_torn_at_any_byte_of_its_last_records_goes_on(tmp_path):
    ledger = filled(tmp_path / "ledger")
    whole = ledger.path.read_bytes()
    lines = whole.splitlines(keepends=True)
    everything = ledger.trials()
    cuts = range(len(whole) - sum(map(len, lines[-3:])), len(whole))
    assert len(cuts) > 200
    for cut in cuts:
        ledger.path.write_bytes(whole[:cut])
        kept = whole[:cut].count(b"\n") - 1
        lost = list(events(4))[kept:]
        assert len(lost) in (1, 2, 3)
        assert len(ledger.trials()) == (kept + 1) // 2
        assert ledger.path.read_bytes() == whole[:cut]
        assert ledger.append(*lost) == ledger.trials() == everything
        assert ledger.path.read_bytes() == whole


@pytest.mark.parametrize("torn", [b"\xc3", b"\0" * 5000, b'{"event":"finished","n":"Z\xc3'])
def test_a_torn_line_may_hold_any_bytes(tmp_path, torn):
    ledger = filled(tmp_path / "ledger")
    before = ledger.path.read_bytes()
    ledger.path.write_bytes(before + torn)
    assert len(ledger.trials()) == 4
    ledger.append(Proposed(4, point(4), "gp"))
    assert ledger.path.read_bytes().startswith(before + b'{"event":"proposed","n":4,')
    assert len(ledger.trials()) == 5


def test_a_header_torn_at_any_byte_is_an_empty_ledger(tmp_path):
    path = tmp_path / "ledger"
    header = _line({"format": FORMAT, "search": STUDY}).encode()
    for cut in range(len(header)):
        path.write_bytes(header[:cut])
        ledger = Ledger(path, STUDY)
        assert ledger.trials() == []
        ledger.append(Proposed(0, {"a": 1}, "gp"))
        assert ledger.trials() == [Trial(0, {"a": 1})]


def flipped(data, bit):
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def is_detected(path, whole, bit):
    path.write_bytes(flipped(whole, bit))
    number = whole[: bit // 8].count(b"\n") + 1
    with pytest.raises(RunError, match=rf"line {number} is damaged"):
        Ledger(path, STUDY).trials()
    return True


def test_forty_of_forty_flipped_bits_are_found_by_line(tmp_path):
    ledger = filled(tmp_path / "ledger", 20)
    whole = ledger.path.read_bytes()
    inner = len(whole) - len(whole.splitlines(keepends=True)[-1])
    bits = random.Random(0).sample(range(8 * inner), 40)
    assert sum(is_detected(ledger.path, whole, bit) for bit in bits) == 40
    damaged = ledger.path.read_bytes()
    with pytest.raises(RunError, match=r"line \d+ is damaged"):
        ledger.append(Proposed(20, {"a": 1}, "gp"))
    assert ledger.path.read_bytes() == damaged != whole


def test_every_flipped_bit_of_a_short_ledger_is_found_up_to_the_last_byte(tmp_path):
    ledger = filled(tmp_path / "ledger", 1)
    whole = ledger.path.read_bytes()
    found = sum(is_detected(ledger.path, whole, bit) for bit in range(8 * (len(whole) - 1)))
    assert found > 2000


def test_a_line_of_another_version_with_a_right_checksum_is_named(tmp_path):
    ledger = filled(tmp_path / "ledger")
    for line in ({"event": "paused", "n": 1}, {"event": "failed", "n": 1, "why": "x"}, {"n": 1}):
        before = ledger.path.read_bytes()
        ledger.path.write_bytes(before + _line(line).encode())
        with pytest.raises(RunError, match="line 10 is damaged"):
            ledger.trials()
        ledger.path.write_bytes(before)


def test_the_ledger_of_another_search_is_refused_by_name(tmp_path):
    ledger = filled(tmp_path / "ledger")
    before = ledger.path.read_bytes()
    other = Ledger(ledger.path, "fedcba9876543210")
    for attempt in (other.trials, lambda: other.append(Proposed(9, {"a": 1}, "gp"))):
        with pytest.raises(RunError, match=f"search {STUDY}, and this is search fedcba98"):
            attempt()
    assert ledger.path.read_bytes() == before


def test_another_format_is_refused_by_number(tmp_path):
    path = tmp_path / "ledger"
    path.write_text(_line({"format": 2, "search": STUDY}))
    with pytest.raises(RunError, match="has format 2; this version reads format 1"):
        Ledger(path, STUDY).trials()


@pytest.mark.parametrize("text", ["my notes", "my notes\n", "[1, 2]\n", '{"format": 1}\n', "\n"])
def test_a_file_that_is_no_ledger_is_left_as_it_is(tmp_path, text):
    path = tmp_path / "ledger"
    path.write_text(text)
    with pytest.raises(RunError, match="ledger"):
        Ledger(path, STUDY).append(Proposed(0, {"a": 1}, "gp"))
    assert path.read_text() == text


@pytest.mark.parametrize("room", [0, 1, 50])
def test_a_full_disk_is_one_error_and_the_file_is_as_before(tmp_path, room):
    ledger = filled(tmp_path / "ledger")
    before = ledger.path.read_bytes()
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + room, old[1]))
    try:
        with pytest.raises(RunError, match="ledger cannot be written"):
            ledger.append(Proposed(4, point(4), "gp"), Proposed(5, point(5), "gp"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert ledger.path.read_bytes() == before
    assert len(ledger.append(Proposed(4, point(4), "gp"))) == 5


@pytest.mark.parametrize("code", [errno.EROFS, errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("trials", [0, 2])
def test_a_disk_that_fails_is_one_error_and_the_file_is_as_before(
    tmp_path, monkeypatch, code, trials
):
    ledger = filled(tmp_path / "ledger", trials)
    before = ledger.path.read_bytes() if trials else None

    def fail(handle):
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fail)
        with pytest.raises(RunError, match=os.strerror(code)):
            ledger.append(Proposed(trials, point(1), "gp"))
    assert (ledger.path.read_bytes() if ledger.path.exists() else None) == before


def test_every_append_is_on_the_disk_before_it_returns(tmp_path, monkeypatch):
    ledger = filled(tmp_path / "ledger")
    synced = []
    monkeypatch.setattr(os, "fsync", lambda handle: synced.append(os.fstat(handle).st_size))
    ledger.append(Proposed(4, point(4), "gp"))
    assert synced == [ledger.path.stat().st_size]


def test_a_place_that_cannot_be_is_named(tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    with pytest.raises(RunError, match="is not a folder"):
        Ledger(tmp_path / "file" / "ledger", STUDY).append(Proposed(0, {"a": 1}, "gp"))
    for path in (tmp_path / "file" / "ledger", tmp_path / "folder"):
        with pytest.raises(RunError, match=f"{path.name} cannot be read"):
            Ledger(path, STUDY).trials()


def test_several_writers_lose_nothing(tmp_path):
    def work(worker):
        ledger = Ledger(tmp_path / "ledger", STUDY)
        for n in range(worker, 40, 4):
            ledger.append(Proposed(n, {"a": n}, "gp"))
            ledger.append(Finished(n, n, 1))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    expected = [Trial(n, {"a": n}, "finished", n, 1) for n in range(40)]
    assert Ledger(tmp_path / "ledger", STUDY).trials() == expected


def test_of_two_writers_with_one_number_one_is_told(tmp_path):
    def claim(worker):
        try:
            Ledger(tmp_path / "ledger", STUDY).append(Proposed(0, {"a": worker}, "gp"))
        except RunError as error:
            return str(error)
        return worker

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(claim, range(4)))
    winners = [answer for answer in answers if isinstance(answer, int)]
    assert len(winners) == 1
    assert Ledger(tmp_path / "ledger", STUDY).trials()[0].point == {"a": winners[0]}
    assert sum("is proposed already" in str(answer) for answer in answers) == 3


def test_the_checksum_is_that_of_the_rest_of_the_line(tmp_path):
    first = filled(tmp_path / "ledger").path.read_text().splitlines()[0]
    digest = storage.fingerprint({"format": FORMAT, "search": STUDY})
    assert first == f'{{"format":1,"search":"{STUDY}","digest":"{digest}"}}'

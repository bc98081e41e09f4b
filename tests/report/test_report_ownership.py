"""A report takes the place of an earlier report, also of one without a manifest."""

import pytest

from notetune.errors import RunError
from notetune.metrics.results import Results
from notetune.report.page import write_report

RESULTS = Results(title="Small", created="today")


def test_an_earlier_report_is_replaced_with_a_manifest_or_without(tmp_path):
    folder = tmp_path / "report"
    write_report(RESULTS, folder)
    html = (folder / "report.html").read_bytes()
    (folder / "manifest.json").unlink()
    (folder / "report.html").write_text("old")
    for _ in range(2):
        write_report(RESULTS, folder)
        assert (folder / "report.html").read_bytes() == html
        assert (folder / "manifest.json").is_file()


@pytest.mark.parametrize("found", ["another file", "another value", "not JSON"])
def test_what_is_no_report_is_not_replaced(found, tmp_path):
    folder = tmp_path / "report"
    write_report(RESULTS, folder)
    (folder / "manifest.json").unlink()
    match found:
        case "another file":
            (folder / "mine.txt").write_text("mine")
        case "another value":
            (folder / "report.json").write_text('{"mine": 1}')
        case "not JSON":
            (folder / "report.json").write_text("mine")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(RunError, match="report"):
        write_report(RESULTS, folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before

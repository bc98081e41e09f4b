import html
import re
from html.parser import HTMLParser

import pytest
from report_values import binary_task, cells_of, full_results, multilabel_task, read_results

from notetune.errors import RunError
from notetune.metrics.results import ModelRow, Results
from notetune.report.adaptation import perplexity_table
from notetune.report.page import report_sections, write_report
from notetune.report.summary import summary
from notetune.report.table import Table

NUMBERS = re.compile(r"\d[\d,]*\.?\d*")
RESULTS = Results(title="Small", created="today")


class Page(HTMLParser):
    """What a browser would load, and the words that a reader sees outside figures and scripts."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.ids, self.links, self.words, self.inside = [], [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.ids += [value for name, value in attrs if name == "id"]
        self.links += [v for name, v in attrs if name in ("src", "href", "xlink:href", "action")]
        if tag in ("svg", "script", "style"):
            self.inside.append(tag)

    def handle_endtag(self, tag):
        if self.inside and self.inside[-1] == tag:
            self.inside.pop()

    def handle_data(self, data):
        if not self.inside:
            self.words.append(data)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("written") / "report"
    write_report(full_results(), folder)
    return folder


@pytest.fixture(scope="module")
def page(written):
    return Page((written / "report.html").read_text(encoding="utf-8"))


def fractions_in(value):
    """Every float that a value holds."""
    if isinstance(value, dict | list | tuple):
        parts = value.values() if isinstance(value, dict) else value
        return [fraction for part in parts for fraction in fractions_in(part)]
    return [value] if isinstance(value, float) else []


def numbers_of_row(row):
    hidden = {"auroc_per_run"} if row.is_deterministic else set()
    return [f"{abs(value):.3f}" for value in fractions_in(row.model_dump(exclude=hidden))]


def numbers_of_task(task):
    shown = [number for row in task.rows for number in numbers_of_row(row)]
    for item in (*task.primary, *task.exploratory):
        if item.difference:
            found = item.difference
            shown += [f"{v:.3f}" for v in (found.value, found.low, found.high)]
            shown += [f"{v:.3f}" for v in (item.p_value, item.p_holm, item.detectable) if v]
    if task.kind != "binary":
        shown += [f"{label.positives:,}" for label in task.labels]
        shown += [f"{v:.3f}" for label in task.labels for v in label.aurocs.values() if v]
    return shown


def numbers_in(value):
    """The numbers that the tables must show, as the report writes them."""
    shown = [number for task in value.tasks for number in numbers_of_task(task)]
    shown += [f"{row.auroc.value:.3f}" for row in value.headline if row.auroc]
    for stage in value.flow:
        counts = (*stage.rejected.values(), *stage.changed.values())
        shown += [f"{n:,}" for n in (stage.read, stage.kept, *counts)]
    shown += [f"{n:,}" for split in value.splits for n in (split.notes, split.patients)]
    for row in value.perplexity:
        shown += [f"{row.perplexity:.3f}", f"{row.bits_per_byte:.3f}", f"{row.tokens:,}"]
    for cost in value.costs:
        shown += [f"{cost.trainable_parameters:,}", f"{cost.total_parameters:,}"]
        shown += [f"{v:,.0f}" for v in (cost.tokens_per_second, cost.peak_memory_mib) if v]
    return shown + [str(finding.count) for finding in value.leakage]


def test_every_figure_of_a_model_is_in_these_results():
    rows = [row for task in full_results().tasks for row in task.rows]
    missing = {key for key in ModelRow.model_fields if not any(getattr(r, key) for r in rows)}
    assert missing == set()


def test_every_number_of_the_results_is_in_the_page_and_in_its_twin(written, page):
    found = set(NUMBERS.findall(" ".join(page.words)))
    twin = set(NUMBERS.findall((written / "report.md").read_text(encoding="utf-8")))
    expected = set(numbers_in(full_results()))
    assert len(expected) > 100
    assert expected - found == set()
    assert expected - twin == set()


def test_page_and_twin_hold_the_same_cells(written, page):
    words = html.unescape(" ".join(" ".join(page.words).split()))
    twin = (written / "report.md").read_text(encoding="utf-8").replace("\\|", "|")
    cells = [cell for cell in cells_of(full_results()) if cell.text]
    assert len(cells) > 200
    for cell in cells:
        assert cell.plain in words
        assert cell.plain in twin


def test_trained_parameters_are_shown_with_their_share():
    texts = [cell.plain for cell in cells_of(full_results())]
    assert "8,392,705 (0.12 % of 6,755,196,929)" in texts
    assert "20,001 (100.00 % of 20,001)" in texts


def test_json_is_the_value(written):
    assert read_results(written / "report.json") == full_results()


def test_the_same_results_give_the_same_bytes(written, tmp_path):
    again = tmp_path / "report"
    write_report(full_results(), again)
    names = sorted(path.name for path in again.iterdir())
    assert names == ["manifest.json", "report.html", "report.json", "report.md"]
    for name in names:
        assert (again / name).read_bytes() == (written / name).read_bytes()


def test_the_page_loads_nothing(written, page):
    text = (written / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"https?://|url\(\s*['\"]?[^#'\")]|@import|//[a-z]+\.", text)
    assert len(page.links) > 10
    assert all(link.startswith("#") for link in page.links)
    tags = {tag for tag, _ in page.tags}
    assert {"svg", "table", "script", "style"} <= tags
    assert not tags & {"link", "img", "iframe", "object", "embed", "base", "form"}
    assert [attrs for tag, attrs in page.tags if tag == "script"] == [{}]


def test_all_sections_are_there_and_every_link_has_its_place(page):
    sections = [attrs["id"] for tag, attrs in page.tags if tag == "section"]
    assert sections == [
        *("summary", "cohort", "splits", "adaptation", "task-1", "task-2", "task-3"),
        *("training", "costs", "leakage", "caveats", "provenance", "recipe"),
    ]
    targets = [link.removeprefix("#") for link in page.links]
    assert set(sections) <= set(targets)
    assert set(targets) <= set(page.ids)


def test_markup_in_names_is_shown_and_not_run(written):
    text = (written / "report.html").read_text(encoding="utf-8")
    assert "A &lt;small&gt; study &amp; its report" in text
    assert "<small>" not in text
    assert "D05 &lt;&amp;|" in text
    twin = (written / "report.md").read_text(encoding="utf-8")
    assert "D05 <&\\|" in twin
    assert "# A \\<small> study & its report" in twin


def test_twin_tables_have_as_many_cells_as_headings(written):
    lines = (written / "report.md").read_text(encoding="utf-8").splitlines()
    widths = {0}
    tables = 0
    for line in lines:
        if not line.startswith("|"):
            widths = set()
            continue
        tables += not widths
        widths.add(len(re.findall(r"(?<!\\)\|", line)))
        assert len(widths) == 1
    assert tables == len(
        [b for s in report_sections(full_results()) for b in s.blocks if isinstance(b, Table)]
    )
    assert tables >= 12


def test_figures_have_a_description_and_a_caption(page):
    drawn = [attrs for tag, attrs in page.tags if tag == "svg"]
    captions = [tag for tag, _ in page.tags if tag == "figcaption"]
    # Headline, learning, AUROC of two tasks, differences, ROC, reliability.
    assert len(drawn) == len(captions) == 7
    assert all(attrs["role"] == "img" and attrs["aria-label"] for attrs in drawn)


def test_perplexity_by_source_is_collapsed_where_it_is_long():
    rows = full_results().perplexity
    assert not perplexity_table(rows).is_collapsed
    assert perplexity_table(rows * 9).is_collapsed


def test_long_label_tables_are_collapsed_and_sortable(page):
    details = [attrs for tag, attrs in page.tags if tag == "details"]
    sortable = [attrs for tag, attrs in page.tags if attrs.get("class") == "sortable"]
    assert len(details) == len(sortable) == 1
    short = report_sections(full_results(tasks=(multilabel_task(labels=15),)))
    assert not any(
        block.is_collapsed for s in short for block in s.blocks if isinstance(block, Table)
    )


def test_a_task_that_cannot_be_judged_is_named_under_the_table(tmp_path):
    task = binary_task()
    rows = tuple(row.model_copy(update={"standing": None}) for row in task.rows)
    few = {"task": "falls", "rows": rows, "why_not_judged": "too few: 4 patients"}
    results = full_results(tasks=(task, task.model_copy(update=few)), headline=())
    write_report(results, tmp_path / "report")
    twin = (tmp_path / "report/report.md").read_text(encoding="utf-8")
    assert "Not judged, so without marks: falls." in twin
    assert "cannot be judged: too few: 4 patients with the rarer value." in twin
    said = statements(results)
    assert said["falls"].endswith("It cannot be judged which is better: too few: 4 patients.")
    assert "is best" in said["mortality"]


def test_what_does_not_exist_is_not_available_with_its_reason(written):
    twin = (written / "report.md").read_text(encoding="utf-8")
    assert "n/a (no label has both values in this split)" in twin
    assert "n/a (no scores on diagnoses)" in twin
    assert "| task-lora | 0.747" not in twin.split("readmission")[-1]
    assert not re.search(r"\b(nan|None|inf)\b", twin)


def statements(results):
    return {item.about: item.text for item in summary(results)}


def test_a_report_of_almost_nothing_says_so(tmp_path):
    report = tmp_path / "report"
    write_report(Results(title="Empty", created="today"), report)
    twin = (report / "report.md").read_text(encoding="utf-8")
    assert twin.count("Nothing recorded.") == 6
    assert "No domain adapter was trained." in twin
    assert Page((report / "report.html").read_text(encoding="utf-8")).tags


def test_an_earlier_report_is_replaced(tmp_path):
    folder = tmp_path / "report"
    write_report(Results(title="Empty", created="today"), folder)
    write_report(RESULTS, folder)
    assert RESULTS.title in (folder / "report.html").read_text()


@pytest.mark.parametrize("is_sealed", [True, False])
def test_what_is_no_report_is_not_replaced(is_sealed, tmp_path):
    folder = tmp_path / "report"
    write_report(RESULTS, folder)
    if is_sealed:
        (folder / "mine.txt").write_text("mine")
    else:
        (folder / "manifest.json").unlink()
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(RunError, match="report"):
        write_report(RESULTS, folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_scores_without_suspect_notes_stand_beside_those_with_them():
    without = binary_task().model_copy(update={"notes": 1_380})
    found = {"mortality": {"words that tell the outcome": 24}}
    sections = report_sections(full_results(unsuspected=(without,), suspects=found))
    (section,) = [section for section in sections if section.title == "Without suspect notes"]
    intro, table = section.blocks
    assert "mortality: 24 with words that tell the outcome" in intro
    assert isinstance(table, Table)
    assert "suspects" not in {section.anchor for section in report_sections(full_results())}

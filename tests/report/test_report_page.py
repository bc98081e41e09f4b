import html
import re
from html.parser import HTMLParser

import pytest
from report_values import binary_task, estimate, full_results, multilabel_task

from notetune.metrics.results import Results, read_results
from notetune.report.page import report_sections, write_report
from notetune.report.summary import summary
from notetune.report.tables import Table

NUMBERS = re.compile(r"\d[\d,]*\.?\d*")


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


def cells_of(results):
    return [
        cell
        for section in report_sections(results)
        for block in section.blocks
        if isinstance(block, Table)
        for row in block.rows
        for cell in row
    ]


def numbers_of_row(row):
    estimates = [item for item in (row.auroc, row.brier) if item]
    shown = [f"{v:.3f}" for item in estimates for v in (item.value, item.low, item.high)]
    shown += [f"{v:.3f}" for v in row.auroc_per_seed if len(row.auroc_per_seed) > 1]
    shown += [f"{v:.3f}" for v in (row.average_precision, row.auroc_micro) if v]
    shown += [f"{v:.3f}" for v in row.average_precision_interval or ()]
    figures = row.calibration.model_dump().values() if row.calibration else ()
    return shown + [f"{abs(v):.3f}" for v in figures if v is not None]


def numbers_of_task(task):
    shown = [number for row in task.rows for number in numbers_of_row(row)]
    for item in task.comparisons:
        if item.difference:
            shown += [f"{item.difference.value:.3f}", f"{item.p_value:.3f}", f"{item.p_holm:.3f}"]
    if task.kind != "binary":
        shown += [f"{label.positives:,}" for label in task.labels]
        shown += [f"{v:.3f}" for label in task.labels for v in label.aurocs.values() if v]
    return shown


def numbers_in(value):
    """The numbers that the tables must show, as the report writes them."""
    shown = [number for task in value.tasks for number in numbers_of_task(task)]
    shown += [f"{row.auroc.value:.3f}" for row in value.headline if row.auroc]
    for stage in value.flow:
        shown += [f"{n:,}" for n in (stage.read, stage.kept, *stage.rejected.values())]
    shown += [f"{n:,}" for split in value.splits for n in (split.notes, split.patients)]
    for row in value.perplexity:
        shown += [f"{row.perplexity:.3f}", f"{row.bits_per_byte:.3f}", f"{row.tokens:,}"]
    for cost in value.costs:
        shown += [f"{cost.trainable_parameters:,}", f"{cost.total_parameters:,}"]
        shown += [f"{v:,.0f}" for v in (cost.tokens_per_second, cost.peak_memory_mib) if v]
    return shown + [str(finding.count) for finding in value.leakage]


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


def test_long_label_tables_are_collapsed_and_sortable(page):
    details = [attrs for tag, attrs in page.tags if tag == "details"]
    sortable = [attrs for tag, attrs in page.tags if attrs.get("class") == "sortable"]
    assert len(details) == len(sortable) == 1
    short = report_sections(full_results(tasks=(multilabel_task(labels=15),)))
    assert not any(
        block.is_collapsed for s in short for block in s.blocks if isinstance(block, Table)
    )


def test_best_is_bold_and_a_tie_is_marked():
    bold = [cell.plain for cell in cells_of(full_results()) if cell.is_strong]
    # The best model in the headline table (task and mean) and in its task, and a blocking finding.
    assert bold == [
        "0.747 [0.696, 0.789]",
        "0.680 [0.628, 0.722]",
        "0.747 [0.696, 0.789]",
        "blocks training",
    ]
    tied = full_results(tasks=(binary_task(tied=("tf-idf", "task-lora")),), headline=(), leakage=())
    cells = cells_of(tied)
    assert not any(cell.is_strong for cell in cells)
    assert [c.text for c in cells if "≈" in c.text] == ["0.623 ≈", "0.747 ≈"] * 2


def test_what_does_not_exist_is_not_available_with_its_reason(written):
    twin = (written / "report.md").read_text(encoding="utf-8")
    assert "n/a (no label has both values in this split)" in twin
    assert "n/a (no scores on diagnoses)" in twin
    assert "| task-lora | 0.747" not in twin.split("readmission")[-1]
    assert not re.search(r"\b(nan|None|inf)\b", twin)


def statements(results):
    return {item.about: item.text for item in summary(results)}


def test_the_summary_names_the_best_model_and_its_difference_to_a_baseline():
    said = statements(full_results())
    assert list(said) == [
        *("All tasks", "mortality", "diagnoses", "readmission"),
        *("Baselines", "Perplexity", "Leakage", "Notice"),
    ]
    assert said["All tasks"] == (
        "Averaged over 2 tasks, task-lora is best: AUROC 0.680 [0.628, 0.722], distinguishable "
        "from every other model."
    )
    assert said["mortality"] == (
        "task-lora is best: AUROC 0.747 [0.696, 0.789], distinguishable from every other model. "
        "The difference between task-lora and tf-idf is +0.123 [+0.046, +0.199], Holm p = 0.047."
    )
    assert said["readmission"].startswith("No model can be judged: 1 of 1 labels have one value")
    assert said["Perplexity"] == (
        "Perplexity on discharge notes (test split) fell: 9.877 before, 5.432 after."
    )
    assert "near-duplicate text between train and test (17 notes)" in said["Leakage"]


def test_the_summary_says_when_nobody_is_best_and_when_the_baseline_ties():
    tied = ("tf-idf", "task-lora")
    said = statements(full_results(tasks=(binary_task(tied=tied),), headline=()))
    assert said["mortality"].startswith(
        "task-lora has the highest AUROC 0.747 [0.696, 0.789], but it is not distinguishable from "
        "tf-idf: their paired intervals contain 0."
    )
    assert said["Baselines"] == (
        "tf-idf is best or not distinguishable from the best model on mortality."
    )


def test_the_summary_says_when_the_baseline_wins_or_loses():
    task = binary_task()
    lost = statements(full_results(tasks=(task,), headline=()))
    assert lost["Baselines"] == (
        "On every task the best model is distinguishable from prevalence and tf-idf."
    )
    better = task.rows[1].model_copy(update={"auroc": estimate(0.9), "is_best": True})
    worse = task.rows[2].model_copy(update={"is_best": False})
    won = task.model_copy(update={"rows": (task.rows[0], better, worse)})
    said = statements(full_results(tasks=(won,), headline=()))
    assert said["mortality"].startswith("tf-idf is best: AUROC 0.900")
    assert said["Baselines"] == (
        "tf-idf wins on mortality: it is distinguishable from every other model there."
    )


def test_the_summary_says_where_the_domain_adapter_helps():
    task = binary_task()
    pairs = [("domain-frozen", "head-only"), ("domain-frozen+task-lora", "task-lora")]

    def said(*tests):
        comparisons = tuple(
            task.comparisons[0].model_copy(
                update={"model": m, "against": a, "difference": estimate(value), "p_holm": p}
            )
            for (m, a), (value, p) in zip(pairs, tests, strict=True)
        )
        tested = task.model_copy(update={"comparisons": (*task.comparisons, *comparisons)})
        changed = full_results(tasks=(tested,), headline=(), domain_pairs=tuple(pairs))
        return statements(changed)["Domain adapter"]

    end = " (Paired tests, Holm p < 0.05.)"
    assert said((0.1, 0.049), (-0.1, 0.001)) == (
        "On mortality it raises the AUROC of domain-frozen. On mortality it lowers the AUROC of "
        "domain-frozen+task-lora." + end
    )
    assert said((0.1, 0.01), (0.1, 0.04)) == (
        "On mortality it raises the AUROC of domain-frozen and domain-frozen+task-lora." + end
    )
    assert said((0.1, 0.05), (-0.1, 0.9)) == (
        "On mortality no model can be told from one that learns without it." + end
    )
    assert "Domain adapter" not in statements(full_results())


def test_a_baseline_that_leads_by_nothing_does_not_win():
    task = binary_task()
    alike = {"auroc": estimate(1.0), "is_best": False, "ties_with_best": True}
    rows = tuple(row.model_copy(update=alike) for row in task.rows)
    said = statements(full_results(tasks=(task.model_copy(update={"rows": rows}),), headline=()))
    assert "wins" not in said["Baselines"]
    assert "tf-idf is best or not distinguishable" in said["Baselines"]


def test_a_report_of_almost_nothing_says_so(tmp_path):
    report = tmp_path / "report"
    write_report(Results(title="Empty", created="today"), report)
    twin = (report / "report.md").read_text(encoding="utf-8")
    assert twin.count("Nothing recorded.") == 6
    assert "No domain adapter was trained." in twin
    assert Page((report / "report.html").read_text(encoding="utf-8")).tags

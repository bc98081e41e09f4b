"""The paper's tables with ours beside: what one side lacks is shown, never dropped."""

import re

import pytest
from report_values import estimate, full_results, multilabel_task, read_results

from notetune.metrics.published import publication
from notetune.metrics.results import (
    HeadlineRow,
    MethodRow,
    SearchRow,
    TrialRow,
)
from notetune.report.page import report_sections, write_report

GEMA_2023 = publication("gema-2023")
OURS = ("tf-idf", "llama-7b/task-lora", "bluebert+full", "bluebert+lora")
TASKS = ("ventilation", "mortality", "length_of_stay", "diagnoses", "procedures")


def search(model, task, trials, seconds):
    rows = tuple(
        TrialRow(number=n, point={"adapter.rank": n}, state="finished", seconds=seconds, score=0.5)
        for n in range(trials)
    )
    return SearchRow(
        search=f"search · {model}",
        model=model,
        task=task,
        objective="auroc" if task else "perplexity",
        space={"adapter.rank": "0, 1, 2"},
        proposer="gp",
        trials=rows,
        winner=0,
        point=rows[0].point,
        validation=0.5,
        corrected=0.4,
    )


def task(name):
    base = multilabel_task()
    rows = tuple(
        base.rows[0].model_copy(
            update={
                "model": model,
                "auroc": estimate(0.61 + place / 100),
                "standing": "best" if place == 1 else "tied",
            }
        )
        for place, model in enumerate(OURS)
    )
    return base.model_copy(update={"task": name, "rows": rows})


def paper_results(tasks=TASKS, **changes):
    values = {
        "published": GEMA_2023,
        "tasks": tuple(map(task, tasks)),
        "headline": tuple(
            HeadlineRow(model=model, tasks=tasks, auroc=estimate(0.66), standing="tied")
            for model in OURS
        ),
        "methods": (
            MethodRow(method="llama-7b/none", perplexity={"train": 8.1234, "test": 9.1234}),
            MethodRow(
                method="llama-7b/lora",
                trainable_parameters=8_388_608,
                total_parameters=6_746_804_224,
                perplexity={"train": 1.8765, "validation": 2.1, "test": 2.2345},
                intervals={"test": (2.1234, 2.3456)},
                standing="best",
                seconds=43_210,
                processes=2,
            ),
            MethodRow(method="pmc-llama-7b/lora", perplexity={"train": 1.9}),
        ),
        "searches": (
            search("llama-7b/lora", "", 20, 36_000),
            search("llama-7b/task-lora", "mortality", 20, 60),
            search("llama-7b/task-lora", "diagnoses", 12, 60),
        ),
    }
    return full_results(**values | changes)


def tables(results):
    (section,) = (s for s in report_sections(results) if s.anchor == "published")
    assert section.title == "The paper's tables"
    return section.blocks


def rows_of(table):
    """Cells by our name of the row, each on one line."""
    names = [row[0].detail if "(" not in row[0].detail else row[0].text for row in table.rows]
    assert len(set(names)) == len(names)
    texts = [[cell.plain for cell in row] for row in table.rows]
    assert all(len(row) == len(table.columns) for row in texts)
    return dict(zip(names, texts, strict=True))


def test_step_1_stands_beside_table_2():
    table, _ = tables(paper_results())
    rows = rows_of(table)
    assert len(rows) == 11 + 1  # all of theirs, and our backbone without a method
    assert rows["llama-7b/lora"] == [
        "LLaMA, LoRA llama-7b/lora",
        *("8,388,608 (0.12 % of 6,746,804,224)", "8.4M (0.12 %)"),
        *("1.877", "1.858", "2.235 ★ [2.123, 2.346]", "2.244"),
        *("12 h 00 min", "21:37:42", "2", "1", "20", "200 h 00 min"),
    ]
    assert rows["llama-7b/none"] == [
        "llama-7b/none (not in the paper)",
        *("0", "n/a", "8.123", "n/a", "9.123", "n/a"),
        *("n/a", "n/a", "n/a", "n/a", "none", "none"),
    ]
    assert rows["clinical-llama-7b/full"] == [
        "Clinical LLaMA, full fine-tuning clinical-llama-7b/full",
        *("n/a (not run)", "6.7B (100 %)"),
        *("n/a (not run)", "1.811", "n/a (not run)", "2.210"),
        *("n/a (not run)", "49:26:38", "n/a (not run)", "4", "n/a", "n/a"),
    ]
    assert rows["pmc-llama-7b/lora"][5] == "n/a"
    assert table.notes[0].startswith("★ and bold: better than every other model.")
    assert table.notes[2].startswith("Perplexities compare only where tokens and averaging")


def test_step_2_stands_beside_table_3_in_its_order_then_what_it_lacks():
    _, table = tables(paper_results())
    rows = rows_of(table)
    assert list(rows) == [*(row.ours for row in GEMA_2023.models), "tf-idf", "bluebert+lora"]
    tasks = ("PMV", "MOR", "LOS", "DIAG", "PROC", "Macro")
    columns = [column for name in tasks for column in (name, "Paper")]
    assert list(table.columns) == ["Model", *columns, "Trials per task"]
    ours = "0.620 ★ [0.569, 0.662]"
    assert rows["llama-7b/task-lora"] == [
        "LLaMA, LoRA llama-7b/task-lora",
        *(ours, "0.5165", ours, "0.7489", ours, "0.6570", ours, "0.7837", ours, "0.8749"),
        *("0.660 ≈ [0.609, 0.702]", "0.7162", "0 to 20"),
    ]
    theirs = rows["pmc-llama-7b/domain-frozen"]
    assert theirs[1::2] == ["n/a (not run)"] * 6 + ["n/a"]
    assert theirs[2::2] == ["0.5133", "0.6719", "0.5813", "0.6359", "0.6826", "0.6006"]
    assert rows["tf-idf"][0] == "tf-idf (not in the paper)"
    assert rows["tf-idf"][2:13:2] == ["n/a"] * 6
    assert rows["bluebert+full"][-1] == "none"
    assert "★ and bold" in table.notes[0]


def test_a_task_that_the_study_lacks_is_not_run_and_a_mean_of_other_tasks_is_none():
    _, table = tables(paper_results(tasks=("mortality", "falls")))
    row = rows_of(table)["llama-7b/task-lora"]
    assert row[1:5] == ["n/a (not run)", "0.5165", "0.620 ★ [0.569, 0.662]", "0.7489"]
    assert row[11:] == ["n/a (other tasks)", "0.7162", "20"]


@pytest.mark.parametrize("part", ["tasks", "headline", "methods", "searches"])
def test_results_without_a_part_still_show_all_published_rows(part):
    changes = {part: ()} if part != "tasks" else {"tasks": (), "headline": ()}
    methods, models = tables(paper_results(**changes))
    assert {row.ours for row in GEMA_2023.methods} <= rows_of(methods).keys()
    assert {row.ours for row in GEMA_2023.models} <= rows_of(models).keys()


def test_published_figures_are_in_the_json_and_in_both_pages(tmp_path):
    write_report(paper_results(), tmp_path / "report")
    assert read_results(tmp_path / "report/report.json") == paper_results()
    for name in ("report.html", "report.md"):
        text = (tmp_path / "report" / name).read_text(encoding="utf-8")
        assert text.index("Summary") < text.index("paper") < text.index("Domain adaptation")
        for row in GEMA_2023.models:
            assert all(f"{value:.4f}" in text for value in (*row.aurocs, row.mean))
        assert all(row.time in text and row.trained in text for row in GEMA_2023.methods)


def style(folder, selector):
    """What the page says of how something looks on a screen."""
    write_report(paper_results(), folder)
    text = (folder / "report.html").read_text(encoding="utf-8")
    (found,) = re.findall(rf"^{re.escape(selector)} \{{([^}}]*)\}}", text, re.MULTILINE)
    return found


def test_a_caption_is_as_wide_as_the_page_where_its_table_is_wider(tmp_path):
    assert "container-type: inline-size" in style(tmp_path / "report", ".scroll")
    caption = style(tmp_path / "report", "caption")
    assert "max-width: 100cqw" in caption
    assert "position: sticky; left: 0" in caption


def test_wide_tables_wrap_their_cells_before_they_scroll(tmp_path):
    columns = [len(table.columns) for table in tables(paper_results())]
    assert min(columns) >= 10
    wide = style(tmp_path / "report", "table:has(thead th:nth-child(10)) :is(th, td)")
    assert "white-space: normal" in wide
    for selector in ("tbody th", ".detail"):
        assert "nowrap" not in style(tmp_path / "report", selector)


def test_a_report_that_does_not_ask_for_them_has_no_such_section():
    assert "published" not in [s.anchor for s in report_sections(full_results())]

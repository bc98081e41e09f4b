"""Tables mark who is best, say how many runs there are and show all that was declared."""

from report_values import binary_task, cells_of, full_results, multilabel_task, read_results

from notetune.report.page import report_sections, write_report
from notetune.report.table import Table


def test_best_is_bold_with_a_star_and_a_tie_is_marked():
    bold = [cell.plain for cell in cells_of(full_results()) if cell.is_strong]
    # The best model in the headline table (task and mean), a primary comparison that is found, the
    # best model in its task, and a blocking finding.
    assert bold == [
        "0.747 ★ [0.696, 0.789]",
        "0.680 ★ [0.628, 0.722]",
        "yes",
        "0.747 ★ [0.696, 0.789]",
        "blocks training",
    ]
    tied = full_results(tasks=(binary_task(tied=("tf-idf", "task-lora")),), headline=(), leakage=())
    cells = cells_of(tied)
    assert not any("★" in cell.text for cell in cells)
    assert [c.text for c in cells if "≈" in c.text] == ["0.623 ≈", "0.747 ≈"] * 2


def captions(results):
    return " ".join(
        block.caption
        for section in report_sections(results)
        for block in section.blocks
        if isinstance(block, Table)
    )


def test_the_head_of_a_table_says_how_many_runs_there_are(tmp_path):
    assert "every task: mean over 2 runs, 95 % interval over patients and runs." in captions(
        full_results()
    )
    task = binary_task()
    single = tuple(
        row.model_copy(update={"runs": (0,), "is_deterministic": row.model != "task-lora"})
        for row in task.rows
    )
    one_run = full_results(tasks=(task.model_copy(update={"rows": single}),), headline=())
    assert "every task: ONE run of each model, 95 % interval over patients alone." in captions(
        one_run
    )
    write_report(one_run, tmp_path / "one")
    twin = (tmp_path / "one/report.md").read_text(encoding="utf-8")
    assert "8, 15 or 25 % instead of 5 %" in twin
    fixed = tuple(row.model_copy(update={"is_deterministic": True}) for row in single)
    results = full_results(tasks=(task.model_copy(update={"rows": fixed}),), headline=())
    assert "every task: 95 % interval over patients." in captions(results)
    mixed = (single[0], task.rows[1], single[2])
    results = full_results(tasks=(task.model_copy(update={"rows": mixed}),), headline=())
    write_report(results, tmp_path / "mixed")
    twin = (tmp_path / "mixed/report.md").read_text(encoding="utf-8")
    assert "One run only, and an interval over patients alone: task-lora." in twin


def test_the_primary_table_shows_all_that_was_declared():
    texts = [cell.plain for cell in cells_of(full_results())]
    assert texts.count("best-validated: task-lora") == 1
    assert "n/a (no label has both values in this split)" in texts
    assert texts.count("no") == 1


def test_a_label_stands_with_its_words_on_the_page_in_the_twin_and_in_json(tmp_path):
    task = multilabel_task(labels=3).described({"D01 <&|": "Chest pain <b>", "X": "no label"})
    write_report(full_results(tasks=(task,)), tmp_path / "report")
    page = (tmp_path / "report/report.html").read_text(encoding="utf-8")
    assert 'D01 &lt;&amp;| <span class="detail">Chest pain &lt;b&gt;</span>' in page
    assert "D02 &lt;&amp;|<" in page
    twin = (tmp_path / "report/report.md").read_text(encoding="utf-8")
    assert "| D01 <&\\| Chest pain \\<b> |" in twin
    (found,) = read_results(tmp_path / "report/report.json").tasks
    assert [row.description for row in found.labels] == ["", "Chest pain <b>", ""]

"""Errors, bugs and interrupts as a person sees them, and progress."""

import io
import re
import sys
from types import SimpleNamespace

import pytest
from report_values import full_results

from notetune.cli import dry_runs, load, main, terminal, terminal_tables
from notetune.cli.keys import keys
from notetune.recipe.recipe import Recipe
from notetune.study.costs import Costs, JobCost, TaskCount
from notetune.study.status import Progress, Status


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["notetune", *arguments])
    with pytest.raises(SystemExit) as done:
        main()
    return done.value.code or 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pred"], "Did you mean 'predict'?"),
        (["predict"], "Missing argument"),
        (["study", "run", "nowhere.yaml"], "nowhere.yaml is not a file"),
        (["convert", "a.gguf", "out"], "a.gguf is not a file"),
        (["convert", __file__, "out"], "is not a GGUF file"),
        (["convert", __file__, "/"], "/ was not made by notetune"),
        (["predict", "nowhere", "notes.csv"], "nowhere is not a bundle"),
        (["demo", "--patients", "7"], "50"),
        (
            ["synthesize", "h", "--signal", "nan"],
            "signal is nan: it should be a finite",
        ),
        (["synthesize", "h", "--seed", "-1"], "synthesize: seed is -1: it should be greater than"),
    ],
)
def test_what_a_user_can_mend_is_one_line_and_exit_code_2(monkeypatch, capsys, arguments, message):
    assert run(monkeypatch, *arguments) == 2
    captured = capsys.readouterr()
    (line,) = captured.err.strip().splitlines()
    assert line.startswith("error: ")
    assert message in line
    assert captured.out == ""


def test_a_bug_is_exit_code_1_and_its_message_is_not_shown(monkeypatch, capsys):
    def fail(*_, **__):
        raise ValueError("note text: zyxcanary")

    monkeypatch.setattr(load, "study", fail)
    assert run(monkeypatch, "study", "run", "recipe.yaml") == 1
    captured = capsys.readouterr()
    assert "unexpected ValueError at " in captured.err
    assert "test_cli_terminal.py" in captured.err
    assert "zyxcanary" not in captured.err + captured.out


def test_an_interrupt_says_how_to_go_on(monkeypatch, capsys):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(load, "study", interrupt)
    assert run(monkeypatch, "study", "run", "recipe.yaml") == 130
    assert "The same command run again goes on" in capsys.readouterr().err


def test_progress_passes_every_step_through_and_ends_with_a_line(capsys):
    steps = list(terminal.track("pretrain", iter(range(5)), 5, lambda n: f"loss {n}"))
    assert steps == [0, 1, 2, 3, 4]
    assert "pretrain 5/5 · loss 4 · 0 s left" in capsys.readouterr().err


NAME = "[red]notes[/] :warning: \x1b[31m\x07 \\[b]"


def test_names_with_marks_of_other_tools_are_shown_as_they_are(capsys):
    terminal.tell(NAME)
    terminal.show_table("Jobs", ("job", "state"), [(NAME, "done")])
    terminal.fail(NAME)
    terminal.say(NAME)
    captured = capsys.readouterr()
    shown = "[red]notes[/] :warning: \\x1b[31m\\x07 \\[b]"
    assert captured.out.count(shown) == 2
    assert captured.err.count(shown) == 2
    assert "\x1b" not in captured.out + captured.err


@pytest.mark.parametrize("width", [45, 60, 80, 140])
def test_a_table_is_never_cut_within_a_word_and_says_what_has_no_room(width, capsys, monkeypatch):
    monkeypatch.setattr(terminal, "out", terminal.Console(width=width, **terminal._AS_IT_IS))
    columns = ["Model", "length_of_stay", "mortality", "Mean of 2 tasks", "Peak MiB"]
    rows = [
        [f"domain-frozen+{n}", f"0.51{n}\n[0.400, 0.612]", "0.7 ≈", "0.6", "1,110"] for n in "ab"
    ]
    terminal.show_table("AUROC", columns, rows)
    lines = capsys.readouterr().out.splitlines()
    said = [line for line in lines if "have no room for" in line]
    assert max(len(line) for line in lines if line not in said) <= width
    hidden = said[0].partition(": ")[2].rstrip(".").split(", ") if said else []
    assert bool(hidden) == (width < 80)
    shown = columns[: len(columns) - len(hidden)]
    assert columns[len(shown) :] == hidden
    words = " ".join(line for line in lines if line not in said).split()
    assert len(shown) >= 2
    for text in (*shown, *(cell for row in rows for cell in row[: len(shown)])):
        assert set(text.split()) <= set(words)


def a_console(width, file=None):
    return terminal.Console(
        width=width, file=file, force_terminal=True, color_system=None, **terminal._AS_IT_IS
    )


JOB = "hospital_mortality_of_all · domain-trainable+adaptation-prompts"
COST = JobCost("", JOB, None, tuple(range(12)), 1_234_567, 9_876_543_210, 345_678,
               6_738_415_616, 6_738_415_616, 1_234.5, 1e20, 1e7)  # fmt: skip
TASK = TaskCount("hospital_mortality_of_all_admissions", 1_266, 339_945, 48_564, 97_127)
STATUS = Status(JOB, "running", "process 12345 on a-host.of.the.hospital since 2026-11-28")
SHOWN = {
    "costs": lambda: dry_runs.tell(
        SimpleNamespace(name="study", studies={}),
        Costs("h100", 80, "assumed", ("counted",), (COST,), (COST,), (TASK,)),
        as_json=False,
    ),
    "progress": lambda: terminal_tables.progress(
        Progress(terminal.Path("runs/x"), (STATUS,), 1, 1e5, 0, 1), as_json=False
    ),
    "results": lambda: terminal_tables.results(
        full_results(), terminal.Path("runs"), as_json=False
    ),
    "keys": lambda: terminal_tables.keys(keys(Recipe), as_json=False),
}


@pytest.mark.parametrize("show", SHOWN.values(), ids=SHOWN)
def test_at_80_columns_no_word_or_number_is_cut(show, capsys, monkeypatch):
    def shown(width):
        monkeypatch.setattr(terminal, "out", a_console(width))
        show()
        return re.sub(
            r"\d+ characters\s+have\s+no\s+room\s+for:[^.]*\.", "", capsys.readouterr().out
        )

    narrow, wide = shown(80), shown(1000)
    assert max(map(len, narrow.splitlines())) <= 80
    words = {word for word in narrow.split() if not set(word) <= {"─"}}
    assert words - set(wide.split()) == set()
    assert len(words) > 10


@pytest.mark.parametrize("width", [40, 80, 200])
def test_a_bar_keeps_all_its_figures(width, monkeypatch):
    screen = io.StringIO()
    monkeypatch.setattr(terminal, "err", a_console(width, screen))
    figures = "loss 3.142 · 12,345 tokens/s · validation loss 0.271, AUROC 0.828"
    list(terminal.track(f"{JOB} · seed 0", iter(range(3)), 3, lambda _: figures))
    last = screen.getvalue().rpartition(JOB[:24])[2]
    assert "…" not in screen.getvalue()
    assert set(f"3/3 0:00:00 left {figures}".split()) <= set(last.split())
    assert ("━" in last) == (width == 200)


def test_lines_break_between_words_on_a_terminal_and_not_in_a_file(capsys, monkeypatch):
    path = "/a/" + "long" * 30
    monkeypatch.setattr(terminal, "out", a_console(80))
    terminal.tell(f"{'word ' * 30}{path}")
    *lines, last = capsys.readouterr().out.splitlines()
    assert {word for line in lines for word in line.split()} == {"word"}
    assert last == path

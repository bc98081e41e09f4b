"""Arguments and options that several commands take."""

from pathlib import Path
from typing import Annotated, Literal

import typer

RecipePath = Annotated[Path, typer.Argument(metavar="RECIPE", help="YAML recipe.")]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Recipe keys to change.")
]
DataFolder = Annotated[
    Path | None,
    typer.Option("--data", envvar="NOTETUNE_DATA", help="Replaces `data` of the recipe."),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would be done, and stop.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
Only = Annotated[
    str | None, typer.Option("--only", help="One of the recipe's `backbones`, by its name.")
]
CodesTable = Annotated[
    Path | None, typer.Option("--codes", help="Table of ICD codes beside the notes, to predict.")
]
CodesId = Annotated[
    str | None, typer.Option(help="Its column with an id that a column of the notes has too.")
]
CodeColumn = Annotated[str | None, typer.Option(help="Its column with the codes.")]
CodesVersion = Annotated[
    Literal["icd9", "icd10", "as-is"] | None,
    typer.Option(help="What its codes are; as-is makes each a class of its own."),
]
NoteId = Annotated[
    str | None,
    typer.Option(help="Column with the note id; if there is none, lines name the notes."),
]
StayId = Annotated[
    str | None, typer.Option(help="Column with the stay, where several notes are of one.")
]
Policy = Annotated[
    Literal["strict", "quarantine"],
    typer.Option(help="strict: stop at a row that cannot be used. quarantine: leave it out."),
]
CombineStays = Annotated[
    Literal["none", "mean", "max", "last"],
    typer.Option(help="One row per stay: what the scores of its notes become."),
]
Explain = Annotated[
    Path | None,
    typer.Option(help="A new .csv or .parquet: what each sentence and word adds to a score."),
]
Labels = Annotated[
    list[str] | None,
    typer.Option(help="With --explain: which score; default: the highest of each note."),
]
RayAddress = Annotated[
    str | None,
    typer.Option(
        "--ray",
        metavar="ADDRESS",
        help="Let this Ray cluster make the jobs; `local` starts one on this machine.",
    ),
]
Scores = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        help="A new .csv or .parquet; default: CSV on stdout. In a CSV, text that a spreadsheet "
        "would compute (=, +, -, @ first) begins with an apostrophe.",
    ),
]

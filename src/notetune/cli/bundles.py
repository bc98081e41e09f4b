"""The commands about bundles and backbones: score notes, merge adapters, convert weights."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final, Literal

import typer

from notetune import storage
from notetune.cli import options, terminal
from notetune.errors import ConfigError
from notetune.missing_column import MissingColumnError
from notetune.ownership import refuse_foreign

_COLUMNS: Final = ("text", "note_id", "patient_id", "stay_id", "time")
_OPTIONS: Final[Mapping[str, str]] = {
    **{f"columns.{key}": "--" + key.replace("_", "-") for key in _COLUMNS},
    "source.features": "the bundle reads columns beside the text",
}


def predict(
    bundle: Annotated[Path, typer.Argument(help="Folder of a trained cell.")],
    notes: Annotated[Path, typer.Argument(help="Notes: CSV, CSV.GZ, JSONL or Parquet.")],
    output: options.Scores = None,
    text: Annotated[str | None, typer.Option(help="Column with the note text.")] = None,
    note_id: options.NoteId = None,
    patient_id: Annotated[str | None, typer.Option(help="Column with the patient id.")] = None,
    stay_id: options.StayId = None,
    time: Annotated[str | None, typer.Option(help="Column with the time of a note.")] = None,
    combine: options.CombineStays = "none",
    backbone: Annotated[str | None, typer.Option(help="Folder of the bundle's backbone.")] = None,
    policy: options.Policy = "strict",
    device: Annotated[Literal["auto", "cpu", "cuda"], typer.Option()] = "auto",
    explain: options.Explain = None,
    label: options.Labels = None,
) -> None:
    """Score new notes with a bundle: one line per note and class, never the text.

    A column that no option names is that of the study, if the file has it; the text is else `text`.
    The file of --explain alone holds text of the notes.
    """
    with terminal.busy():
        from notetune.model.cards import read_card
        from notetune.serve.files import check_output, predict_file, source_of, write_predictions

    _refuse_misfit(output, explain, label)
    for path in (output, explain):
        check_output(path)
    explained = (label or ()) if explain else None
    ids = {"patient_id": patient_id, "note_id": note_id, "stay_id": stay_id}
    card = read_card(bundle)
    source = source_of(card, notes, {**ids, "text": text, "time": time}, policy)
    with terminal.busy("scoring"), _as_options():
        found = predict_file(bundle, source, backbone, device, combine, explained, card)
    write_predictions(found.scores, output)
    if explain and found.reasons is not None:
        write_predictions(found.reasons, explain)
        terminal.say(f"{explain} holds text of the notes: keep it as private as they are")
    if output:
        typer.echo(f"{output}: {len(found.scores):,} scores")


def _refuse_misfit(output: Path | None, explain: Path | None, label: list[str] | None) -> None:
    if output and explain and output.resolve() == explain.resolve():
        raise ConfigError(f"--output and --explain are both {output}; give each its own file.")
    if label and not explain:
        raise ConfigError("--label says which score --explain explains; give --explain a file.")


@contextmanager
def _as_options() -> Iterator[None]:
    """Name the option that says which column is read, where an error names the recipe's key."""
    try:
        yield
    except MissingColumnError as error:
        key, _, said = str(error).partition(": ")
        raise MissingColumnError(f"{_OPTIONS.get(key, key)}: {said}", error.column) from None


def merge(
    source: Annotated[
        Path, typer.Argument(metavar="BUNDLE_OR_ADAPTER", help="Folder of a cell or an adapter.")
    ],
    out: Annotated[Path, typer.Argument(help="Folder to write; it must not exist.")],
    backbone: Annotated[str | None, typer.Option(help="Folder of its backbone.")] = None,
) -> None:
    """Add adapters to the weights of their backbone, where the method allows it (lora, full)."""
    with terminal.busy():
        from notetune.serve.merge import merge as run

    with terminal.busy("merging"):
        merged = run(source, out, backbone)
    weights = sum(tensor.numel() for tensor in merged.tensors.values())
    typer.echo(
        f"{out}: {weights:,} weights in float32, with {' and '.join(merged.adapters) or 'no'} "
        f"adapter; hidden states differ by {merged.difference:.1e} from the parts in float32"
    )


def convert(
    model: Annotated[Path, typer.Argument(help="GGUF file.")],
    out: Annotated[Path, typer.Argument(help="Hugging Face folder to write; it must not exist.")],
) -> None:
    """Convert a GGUF into a backbone folder."""
    refuse_foreign(out)  # before anything is read
    storage.refuse_unwritable(out)
    with terminal.busy():
        from notetune.model.gguf_file import convert as run

    with terminal.busy("converting"):
        backbone = run(model, out)
    heads = backbone.heads
    typer.echo(
        f"{out}: {backbone.layers} layers, hidden size {backbone.hidden_size}, {heads.heads} heads "
        f"({heads.kv_heads} for keys), context {backbone.max_positions}"
    )

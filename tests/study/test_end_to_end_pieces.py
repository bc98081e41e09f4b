"""Long notes in pieces: trained, kept, scored and predicted the same, and the output says so."""

import numpy as np
import polars as pl
import pytest
import torch
from builders import random_encoder
from one_job import find, jobs_on, model_job, train
from small_study import small_study
from transformers import AutoModelForCausalLM

from notetune import config
from notetune.errors import ConfigError
from notetune.metrics.scores import read_scores
from notetune.model.cards import read_card
from notetune.prepare.build import prepare
from notetune.recipe.recipe import Recipe
from notetune.serve.files import predict_file
from notetune.sources.tables.source import TableSource
from notetune.study import notices
from notetune.study.evaluate import Made
from notetune.study.features import FixedFeatures
from notetune.study.listing import notes_here

MAX_TOKENS, MAX_PIECES = 16, 4
SETTINGS = [
    f"prepare.max_tokens={MAX_TOKENS}",
    f"downstream.max_pieces={MAX_PIECES}",
    "downstream.tokens_per_row=128",
    "downstream.adapter={kind: prompt, virtual_tokens: 2}",
]
COLUMNS = {"text": "text", "note_id": "note", "patient_id": "patient"}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return small_study(tmp_path_factory.mktemp("pieces"))


def load(place, *settings):
    return config.load(Recipe, place / "recipe.yaml", [*SETTINGS, *settings])


@pytest.fixture(scope="module")
def prepared(place):
    recipe = load(place)
    return recipe, prepare(recipe.preparation)


def test_kept_features_are_the_mean_over_all_tokens_that_are_read(prepared):
    recipe, opened = prepared
    store, note_ids = opened.store, opened.tasks["died"].note_ids_N.tolist()
    features = FixedFeatures(model_job(recipe, "died", "head-only"), opened)
    found = features.of_notes(store.first_documents(note_ids))
    plain = AutoModelForCausalLM.from_pretrained(recipe.backbone).eval().model
    numbers = {note_id: n for n, note_id in enumerate(store.note_ids.tolist())}
    expected, pieces = [], []
    with torch.inference_mode():
        for note_id in note_ids:
            documents = np.flatnonzero(store.note_number_D == numbers[note_id])
            ids = [torch.from_numpy(store.document(d))[None] for d in documents[:MAX_PIECES]]
            expected.append(torch.cat([plain(one)[0][0] for one in ids]).mean(0))
            pieces.append(len(documents))
    assert min(pieces) < MAX_PIECES < max(pieces)
    assert (found - torch.stack(expected)).abs().max() < 1e-5


@pytest.mark.parametrize("variant", ["head-only", "task-lora"])
def test_a_note_is_predicted_as_it_was_scored_alone_and_together(place, prepared, variant):
    bundle = train(prepared[0], "codes", variant)
    assert read_card(bundle).max_pieces == MAX_PIECES
    test = read_scores(bundle / "test.parquet")
    told = pl.read_parquet(bundle / "test.parquet").select(
        "note_id", "tokens", "pieces", "truncated"
    )
    notes = pl.read_csv(place / "notes.csv", infer_schema=False)
    asked = notes.filter(pl.col("note").is_in(test.note_ids_N.tolist()))
    for table in (asked.reverse(), asked.head(1)):
        table.write_csv(place / "asked.csv")
        source = TableSource(kind="table", path=place / "asked.csv", columns=COLUMNS, tasks=())
        got = predict_file(bundle, source, str(place / "backbone")).scores
        assert got.height == table.height * 4
        expected = dict(zip(test.note_ids_N.tolist(), test.scores_NK, strict=True))
        for (note_id,), part in got.group_by("note_id"):
            assert part["score"].to_numpy() == pytest.approx(expected[note_id], abs=1e-5)
        reading = got.select("note_id", "tokens", "pieces", "truncated").unique()
        assert reading.join(told.unique(), on=reading.columns, how="anti").is_empty()
    bytes_of = dict(zip(notes["note"], notes["text"].str.len_bytes(), strict=True))
    for note_id, tokens, pieces, is_truncated in told.unique().iter_rows():
        has_end = bytes_of[note_id] % (MAX_TOKENS - 1) > 0
        whole = bytes_of[note_id] + has_end  # a token per byte, and the end where it has room
        wanted = -(-whole // (MAX_TOKENS - 1))
        assert pieces == min(wanted, MAX_PIECES)
        assert is_truncated == (wanted > MAX_PIECES)
        assert is_truncated or tokens == whole + pieces


def test_an_encoder_reads_as_many_pieces(place):
    random_encoder(place / "encoder")
    given = f"encoders={{models: {{bert: {place / 'encoder'}}}, variants: [lora]}}"
    recipe = load(place, given)
    told = pl.read_parquet(train(recipe, "died", "bert+lora") / "test.parquet")
    assert told["pieces"].max() == MAX_PIECES
    jobs = tuple(jobs_on(recipe))
    done = frozenset(job for job in jobs if job.is_made())
    (said,) = notices.of_encoders(Made("", recipe, notes_here(recipe), jobs, done))
    assert f"longer than {MAX_PIECES} pieces of {MAX_TOKENS} of its tokens" in said
    of_one_piece = find(load(place, given, "downstream.max_pieces=1"), "encode")
    assert find(recipe, "encode").inputs != of_one_piece.inputs


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ("downstream.tokens_per_row=71", "below 4 pieces of prepare.max_tokens 16 . 2 virtual"),
        (
            "encoders={tokens_per_row: 63, models: {e: bert}}",
            "encoders.tokens_per_row 63 .* must hold the longest note",
        ),
        ("prepare.long_notes=first", "needs prepare.long_notes pieces"),
    ],
)
def test_pieces_that_cannot_be_read_are_refused(place, setting, named):
    load(place, "encoders.tokens_per_row=1")  # there are none
    load(place, "downstream.tokens_per_row=72", "encoders={tokens_per_row: 64, models: {e: bert}}")
    with pytest.raises(ConfigError, match=named):
        load(place, setting)

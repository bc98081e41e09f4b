"""`study run --dry-run --gpu NAME`: every cell of a study, without weights and without notes."""

import csv
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from builders import random_encoder, random_llama

from notetune import config
from notetune.cli import main
from notetune.errors import ConfigError, NotetuneError
from notetune.model.backbone import outline_backbone
from notetune.model.stack import DOMAIN, Layer, stack
from notetune.recipe.recipe import Recipe
from notetune.sources.mimic import published
from notetune.study.costs import ENCODERS, costs
from notetune.study.counts import without_text
from notetune.train.gpus import ASSUMED_SHARE, GPUS

ROOT = Path(__file__).parents[2]
PAPER = ROOT / "recipes/paper.yaml"
TASKS = ["mortality", "length_of_stay", "ventilation", "diagnoses", "procedures"]
TABLE_2 = {  # trained parameters, as far as the paper prints them
    ("llama-7b", "lora"): "8.4M",
    ("llama-7b", "adaptation-prompts"): "1.2M",
    ("llama-7b", "prefix-tuning"): "5.2M",
    ("llama-7b", "prompt-tuning"): "61.4K",
    ("llama-7b", "p-tuning"): "16.1M",
    ("pmc-llama-7b", "lora"): "2.1M",
    ("pmc-llama-7b", "adaptation-prompts"): "1.2M",
    ("pmc-llama-7b", "prefix-tuning"): "2.6M",
    ("pmc-llama-7b", "prompt-tuning"): "41.0K",
    ("pmc-llama-7b", "p-tuning"): "2.2M",
    ("clinical-llama-7b", "full"): "6738.4M",
}


@pytest.fixture(autouse=True)
def _in_the_repository(monkeypatch):
    monkeypatch.chdir(ROOT)


def load(*overrides):
    return config.load(Recipe, PAPER, overrides)


def as_printed(count):
    return f"{count / 1e6:.1f}M" if count >= 1e6 else f"{count / 1e3:.1f}K"


def test_the_recipe_trains_as_many_parameters_as_table_2_says():
    counts = {}
    for backbone, one in load().studies.items():
        for method, of_method in {one.pretrain.adapter.kind: one, **one.compared}.items():
            adapter = without_text(of_method.pretrain.adapter)
            outline = outline_backbone(str(ROOT / one.backbone), one.dtype)
            model = stack(outline, [Layer(DOMAIN, adapter, is_trained=True)])
            counts[backbone, method] = as_printed(model.trainable_count)
    assert counts == TABLE_2


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Overrides that put a small shape in the place of every backbone."""
    folder = tmp_path_factory.mktemp("shapes")
    shapes = {"llama-7b": "llama", "bluebert": "bert"}
    for shape, name in shapes.items():
        values = json.loads((ROOT / "recipes/backbones" / shape / "config.json").read_text())
        values |= {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2}
        values |= {"num_attention_heads": 4, "num_key_value_heads": 4, "vocab_size": 99}
        (folder / name).mkdir()
        (folder / name / "config.json").write_text(json.dumps(values))
    names = ("llama-7b", "pmc-llama-7b", "clinical-llama-7b")
    encoders = ("bluebert", "umlsbert", "bio-clinical-bert", "core")
    shallow = "pretrain.compare.adaptation-prompts.adapter.layers=2"
    return [
        *(f"backbones.{name}.backbone={folder}/llama" for name in names[1:]),
        f"backbones.{names[0]}={folder}/llama",
        *(f"encoders.models.{name}={folder}/bert" for name in encoders),
        shallow,
        *(f"{stage}.tokens_per_row=540" for stage in ("pretrain", "downstream", "encoders")),
    ]


def test_every_cell_of_the_study_is_estimated_from_published_counts(small):
    found = costs(load(*small), "h100")
    cells = {(t.backbone, t.model, t.task): t for t in found.trainings}
    trainings = [t for t in found.trainings if not t.model.endswith(" · trial")]
    assert len(trainings) == 5 + 5 + 1 + 5 * (6 + 6 + 1 + 8)
    searches = 5 + 5 + 5 * (3 + 3)  # of adapters alone
    assert len(cells) == len(found.trainings) == len(trainings) + searches
    # Three runs, but one of the further methods of step 1 and of heads on what never changes.
    assert sum(len(t.seeds) for t in trainings) == 3 * 3 + 8 + 5 * (3 * (21 - 2) + 2)
    assert {t.task for t in found.trainings} == {None, *TASKS}
    assert {t.backbone for t in found.trainings} == {*load().backbones, ENCODERS}
    assert all(found.fits(t) and t.seconds > 0 for t in found.trainings)
    assert "published counts" in found.counts[0]
    diagnoses = cells["llama-7b", "head-only", "diagnoses"]
    assert (diagnoses.documents, diagnoses.trainable_parameters) == (33_994, 65 * 1_266)
    assert diagnoses.steps == 0  # a head is solved
    assert cells["pmc-llama-7b", "pretrain · lora", None].trainable_parameters == 2 * 2 * 4 * 2 * 64
    assert cells[ENCODERS, "core+full", "procedures"].trainable_parameters > 65 * 711
    full = cells["clinical-llama-7b", "pretrain · full", None]  # weights that train are float32
    rate = ASSUMED_SHARE * GPUS["h100"].rates["float32"]
    assert full.seconds == pytest.approx(full.flops / rate)
    # One forward pass over all notes, which the head, three runs and 20 trials of 5 tasks share,
    # against ten there and back over those of training.
    head, task = (cells["llama-7b", v, "mortality"].seconds for v in ("head-only", "task-lora"))
    assert 10 < task / (5 * (1 + 3 + 20) * head) < 25
    assert sum(found.seconds.values()) == pytest.approx(
        sum(job.seconds * len(job.seeds) for job in (*found.trainings, *found.perplexities))
    )
    assert [job.name for job in found.perplexities if job.backbone == "clinical-llama-7b"] == [
        "perplexity · backbone alone",
        "perplexity · full",
    ]
    assert len(found.perplexities) == 3 + 11  # of each backbone alone, and of each method


def test_a_dry_run_of_the_paper_counts_20_trials_of_each_cell_that_it_searches(small):
    found = costs(load(*small), "h100").trainings
    trials = " · trial"
    searched = {
        (t.backbone, t.model.removesuffix(trials), t.task): len(t.seeds)
        for t in found
        if t.model.endswith(trials)
    }
    small_spaces = {"adaptation-prompts": 6, "prefix-tuning": 10, "prompt-tuning": 10}
    expected = {
        (backbone, f"pretrain · {method}", None): small_spaces.get(method, 20)
        for backbone, method in TABLE_2
        if method != "full"
    }
    adapters = ("task-lora", "domain-frozen+task-lora", "domain-trainable+task-lora")
    expected |= {
        (backbone, variant, task): 20
        for backbone in ("llama-7b", "pmc-llama-7b")
        for variant in adapters
        for task in TASKS
    }
    assert len(expected) == 10 + 30
    assert searched == expected


@pytest.fixture(scope="module")
def llama():
    overrides = ["tune={}", "pretrain.compare={}", "downstream.variants=[]", "encoders.models={}"]
    overrides += ["recompute=false"]  # else a step takes more, where its memory is short
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        one = load(*overrides, "backbones={llama-7b: recipes/backbones/llama-7b}")
        return {gpu: costs(one, gpu) for gpu in ("h100", "a10")}


def test_step_1_of_llama_7b_takes_the_operations_that_a_formula_gives(llama):
    layers, hidden, middle, vocabulary, longest = 32, 4096, 11_008, 32_000, 512
    weights = layers * (4 * hidden**2 + 3 * hidden * middle) + hidden * vocabulary
    scores = layers * 2 * hidden * longest / 2  # two products, half of them behind the token
    # There, back without gradients of frozen weights, and the adapter's share of less than 1 %.
    per_token = 2 * (weights + scores) + 2 * (weights + 2.5 * scores)
    assert 26e9 < per_token < 27.2e9
    tokens = 0.89 * 0.715e9
    seconds = tokens * per_token / (ASSUMED_SHARE * GPUS["h100"].rates["bfloat16"])
    h100, a10 = (llama[gpu].trainings[0] for gpu in ("h100", "a10"))
    assert h100.seconds == pytest.approx(seconds, rel=0.02)
    assert a10.seconds == pytest.approx(h100.seconds * 989 / 125)


def test_perplexity_before_and_after_step_1_takes_its_passes_forward(llama):
    layers, hidden, middle, vocabulary, longest = 32, 4096, 11_008, 32_000, 512
    weights = layers * (4 * hidden**2 + 3 * hidden * middle) + hidden * vocabulary
    scores = layers * 2 * hidden * longest / 2
    before, after = llama["h100"].perplexities
    # 2,000 notes of each of three splits and two sources, as long as they are read.
    radiology = min(longest, published.ASSUMED_TOKENS["radiology"])
    tokens = 3 * 2_000 * (longest + radiology)
    assert (before.documents, before.tokens, before.steps) == (12_000, tokens, 0)
    seconds = tokens * 2 * (weights + scores) / (ASSUMED_SHARE * GPUS["h100"].rates["bfloat16"])
    assert before.seconds == pytest.approx(seconds, rel=0.01)
    assert 1 < after.seconds / before.seconds < 1.01  # the adapter, of less than 1 %
    trained = sum(t.seconds * len(t.seeds) for t in llama["h100"].trainings)
    total = trained + before.seconds + after.seconds
    assert sum(llama["h100"].seconds.values()) == pytest.approx(total, rel=1e-9)


def test_what_is_larger_than_the_memory_does_not_fit(llama):
    h100, a10 = (llama[gpu].trainings[0] for gpu in ("h100", "a10"))
    assert llama["h100"].fits(h100)
    assert not llama["a10"].fits(a10)
    assert a10.ways
    assert replace(a10, seconds=0, ways=()) == replace(h100, seconds=0)


def prepare_of(folder):
    return f"""
prepare:
  source:
    kind: table
    path: {folder}/notes.csv
    columns: {{text: text}}
    tasks: [{{name: died, kind: binary, column: died}}]
  split: {{kind: fractions, validation: 0.2, test: 0.2}}""".lstrip()


def test_notes_that_are_here_are_counted(tmp_path):
    random_llama(tmp_path / "backbone")
    random_encoder(tmp_path / "bert")
    with (tmp_path / "notes.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "died"])
        writer.writerows([[f"note {number} " + "ill " * 12, number % 2] for number in range(50)])
    (tmp_path / "general.txt").write_text("\n\n\n".join(["Once.", "Upon.", "A time."]))
    (tmp_path / "recipe.yaml").write_text(f"""
name: here
runs: {tmp_path}/runs
backbone: {tmp_path}/backbone
{prepare_of(tmp_path)}
  max_tokens: 32
pretrain: {{general_text: {tmp_path}/general.txt, always: true}}
downstream: {{variants: [head-only]}}
encoders: {{models: {{small: {tmp_path}/bert}}, variants: [lora]}}
""")
    found = costs(config.load(Recipe, tmp_path / "recipe.yaml"), "a100-40")
    assert found.counts == ("counted in the notes",)
    step_1, head_only, encoder = found.trainings
    assert (step_1.documents, head_only.documents, encoder.documents) == (60, 30, 30)
    assert [t.backbone for t in found.trainings] == ["", "", ENCODERS]
    # Two documents of each of 50 notes, and three passages.
    assert [job.documents for job in found.perplexities] == [2 * 50 + 3] * 2
    assert not (tmp_path / "runs").exists()


def test_weights_in_two_types_have_two_clocks(tmp_path, monkeypatch):
    random_llama(tmp_path / "backbone")
    rows = "".join(f"{' '.join([str(number)] * 12)},{number % 2}\n" for number in range(50))
    (tmp_path / "notes.csv").write_text(f"text,died\n{rows}")
    (tmp_path / "recipe.yaml").write_text(f"""
name: here
runs: {tmp_path}/runs
backbones:
  whole: {tmp_path}/backbone
  half: {{backbone: {tmp_path}/backbone, dtype: bfloat16}}
{prepare_of(tmp_path)}
pretrain: {{leaked_texts: drop, always: true}}
downstream: {{variants: [head-only]}}
""")
    seconds = {"float32": 3.0, "bfloat16": 1.0}
    monkeypatch.setattr(
        "notetune.study.clocks.step_seconds", lambda model, *_, **__: seconds[model.backbone.dtype]
    )
    of = {
        each.backbone: each
        for each in costs(config.load(Recipe, tmp_path / "recipe.yaml")).perplexities
    }
    assert of["whole"].seconds == pytest.approx(3 * of["half"].seconds)


@pytest.mark.parametrize(
    ("overrides", "gpu", "message"),
    [
        ([], "h1000", "gpu h1000 is unknown; known are h200, h100, a100-80"),
        (["pretrain.corpus=null"], "h100", "counts are published for step 1 on mimic4"),
        (["downstream.tasks=[mortalty]"], "h100", "the source has no task mortalty; it has"),
        (["encoders.models.nope=nowhere"], "h100", "encoders.models.nope: backbone nowhere is"),
    ],
)
def test_an_estimate_that_cannot_be_says_why(small, overrides, gpu, message):
    one = load(*small, *overrides, "backbones.clinical-llama-7b={backbone: tiny}")
    with pytest.raises(NotetuneError) as raised:
        costs(one, gpu)
    assert message in str(raised.value)


def test_notes_that_are_missing_are_said_first(tmp_path):
    (tmp_path / "recipe.yaml").write_text("""
name: here
prepare: {source: {kind: table, path: ours/notes.csv, columns: {text: text}}}
""")
    with pytest.raises(ConfigError) as raised:
        costs(config.load(Recipe, tmp_path / "recipe.yaml", [f"data={tmp_path}"]), "h100")
    assert str(raised.value).startswith(f"{tmp_path}/ours/notes.csv is not a file.")
    assert f"name with --data the folder that the recipe's paths start from (now {tmp_path})" in (
        str(raised.value)
    )


def test_a_backbone_without_weights_is_said_where_the_notes_are_there(tmp_path):
    (tmp_path / "notes.csv").write_text("text\nFever.\n")
    random_llama(tmp_path / "backbone")
    (tmp_path / "backbone/model.safetensors").unlink()
    (tmp_path / "recipe.yaml").write_text(f"""
name: here
backbone: {tmp_path}/backbone
prepare: {{source: {{kind: table, path: {tmp_path}/notes.csv, columns: {{text: text}}}}}}
""")
    with pytest.raises(ConfigError, match=r"backbone has no weights\. A dry run needs them"):
        costs(config.load(Recipe, tmp_path / "recipe.yaml"), "h100")


def test_the_command_prints_the_cells_and_what_they_rest_on(small, capsys, monkeypatch):
    def notetune(*words):
        monkeypatch.setattr("sys.argv", ["notetune", "study", "run", str(PAPER), *small, *words])
        with pytest.raises(SystemExit) as exit_:
            main()
        return exit_.value.code or 0, capsys.readouterr()

    few = ["downstream.variants=[head-only]", "encoders.models={}"]
    code, said = notetune(*few, "--dry-run", "--gpu", "l40s", "--only", "llama-7b")
    assert code == 0
    text = " ".join(said.out.split())
    assert re.search(r"length_of_stay · head-only [0-9.]+ (s|min) 1 [0-9.]+ 30,421", text)
    assert "40% of the card's highest rate, which is assumed" in text
    assert "published counts (MIMIC-IV-Note 2.2" in text
    assert "78 trainings and 6 measurements of perplexity" in text  # 12, and 66 trials
    code, said = notetune(*few, "--dry-run", "--only", "llama-7b")
    assert code == 0
    assert "one h100 with 80 GiB" in " ".join(said.out.split())
    code, said = notetune("--gpu", "l40s")
    assert code == 2
    assert "--gpu and --show go with --dry-run" in said.err
    code, said = notetune("--dry-run", "--show", "recipe", "--gpu", "l40s")
    assert (code, "leave --show out" in said.err) == (2, True)
    code, said = notetune("--dry-run", "--workers", "2")
    assert (code, "--ray and --workers go without --dry-run" in said.err) == (2, True)


def _shape(folder, **sizes):
    """A folder of LLaMA's build with a config.json alone."""
    config = json.loads((ROOT / "src/notetune/backbones/tiny/config.json").read_text())
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({**config, **sizes}))
    return folder


def test_a_dry_run_says_which_switch_makes_an_8b_backbone_fit(tmp_path):
    llama = _shape(
        tmp_path / "llama-8b", hidden_size=4096, intermediate_size=14336, num_hidden_layers=32,
        num_attention_heads=32, num_key_value_heads=8, head_dim=128, vocab_size=128256,
        max_position_embeddings=8192, tie_word_embeddings=False,
    )  # fmt: skip
    one = load(
        f"backbones={{llama: {{backbone: {llama}, dtype: bfloat16}}}}", "encoders.models={}",
        "evaluate.primary=null", "evaluate.published=null", "pretrain.compare={}",
        "pretrain.tokens_per_row=2048", "prepare.max_tokens=512", "tune.pretrain=null",
        "tune.downstream=null", "downstream.variants=[domain-frozen]", "recompute=false",
    )  # fmt: skip
    found = costs(one, "a10")
    job = next(job for job in found.trainings if job.model.startswith("pretrain"))
    # By hand: 8.03e9 weights in two bytes; in nf4 6.98e9 of them in 0.516 bytes, the embeddings
    # and the token head, 1.05e9, in two.
    assert not found.fits(job)
    assert job.memory_gib > 8.03e9 * 2 / 2**30
    ways = {way.keys: way for way in job.ways}
    assert list(ways) == ["recompute: true", "dtype: nf4", "both"]
    packed = (6.98e9 * (2 - 0.516)) / 2**30
    assert job.memory_gib - ways["dtype: nf4"].memory_gib == pytest.approx(packed, rel=0.02)
    assert ways["recompute: true"].memory_gib == pytest.approx(16.1, abs=0.2)
    assert 1.3 < ways["recompute: true"].times < 1.36
    (sentence,) = found.advice
    assert "does not fit a10, which has room for 21.6 GiB" in sentence
    assert "with dtype: nf4" in sentence
    again = costs(one.model_copy(update={"recompute": "auto"}), "a10")
    assert any(training.recomputes for training in again.trainings)
    assert all(again.fits(training) for training in again.trainings)
    assert again.advice == ()

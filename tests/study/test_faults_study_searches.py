"""Searches that cannot be are refused before any trial, and what stops one stops it alone."""

import pytest
from searched_study import load, searched_study, searches_of

from notetune.errors import ConfigError, DataError, RunError, RunWarning
from notetune.ownership import lease_of
from notetune.study.run import is_of_searches, prepare_notes, run_study, work
from notetune.study.status import progress
from notetune.study.trials import place_of, trials_of


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return searched_study(tmp_path_factory.mktemp("small"))


def test_what_is_no_lease_in_the_place_of_a_trial_stops_its_search_alone(place, tmp_path):
    recipe = load(place, f"runs={tmp_path}", "tune.downstream=null")
    prepare_notes(recipe)
    (job,) = searches_of(recipe)
    lease = lease_of(place_of(job) / "trial-000")
    lease.mkdir(parents=True)
    with pytest.raises(RunError, match=lease.name):
        work(recipe)
    failed = [stage.name for stage in progress(recipe).jobs if stage.state == "failed"]
    assert failed == [job.name]
    assert (recipe.folder.root / "perplexity-before/manifest.json").is_file()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("tune.pretrain=null", "no label of task died has both values on its 18 validation notes"),
        ("tune.downstream=null", "tune.pretrain needs validation notes of step 1"),
    ],
)
def test_a_search_that_no_validation_note_can_judge_trains_nothing(
    place, tmp_path, override, message
):
    rows = (place / "notes.csv").read_text().splitlines()
    judged = "tune.downstream=null" not in override
    splits = ["validation" if number < 18 and judged else "train" for number in range(70)]
    splits += ["test"] * (len(rows) - 1 - len(splits))
    alive = [row.replace(",1,", ",0,") for row in rows[1:19]]  # all of validation
    table = [f"{row},{split}" for row, split in zip([*alive, *rows[19:]], splits, strict=True)]
    (tmp_path / "notes.csv").write_text("\n".join([f"{rows[0]},split", *table]) + "\n")
    recipe = load(
        place,
        f"runs={tmp_path}/runs",
        f"prepare.source.path={tmp_path}/notes.csv",
        "prepare.split={kind: column, column: split}",
        "seeds=1",
        override,
    )
    with pytest.raises(DataError, match=message):
        work(recipe, is_wanted=is_of_searches)
    assert not list((tmp_path / "runs").rglob("trial-*"))


def test_a_search_over_virtual_tokens_has_rows_that_hold_the_most_of_them(place, tmp_path):
    recipe = load(
        place,
        f"runs={tmp_path}/runs",
        "seeds=1",
        "pretrain.adapter={kind: prompt, virtual_tokens: 3}",
        "pretrain.tokens_per_row=64",
        "downstream.adapter={kind: prompt, virtual_tokens: 2}",
        "downstream.tokens_per_row=auto",
        "tune.trials=2",
        "tune.pretrain={adapter.virtual_tokens: [2, 16]}",
        "tune.downstream={adapter.virtual_tokens: [1, 9]}",
    )
    assert recipe.virtual_tokens == 16 + 9
    run_study(recipe)
    trials = [trial for job in searches_of(recipe) for trial in trials_of(job)]
    assert {trial.state for trial in trials} == {"finished"}
    with pytest.raises(ConfigError, match=r"pretrain.tokens_per_row 64 .* \+ 17 virtual tokens"):
        load(
            place,
            "pretrain.adapter={kind: prompt, virtual_tokens: 3}",
            "pretrain.tokens_per_row=64",
            "tune.pretrain={adapter.virtual_tokens: [2, 17]}",
        )


def test_a_search_without_a_trial_that_works_says_so(place, tmp_path):
    space = "tune.pretrain={optim.peak_lr: [1e20, 1e25]}"
    recipe = load(place, f"runs={tmp_path}", space, "tune.downstream=null", "tune.trials=2")
    with (
        pytest.raises(DataError, match="none of 2 trials could be trained"),
        pytest.warns(RunWarning, match=r"search · lora · trial \d: .* is not finite"),
    ):
        work(recipe, is_wanted=is_of_searches)
    states = {job.name: job.state for job in progress(recipe).jobs}
    assert states["search · lora"] == "failed"


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ("{adapter.dropout: [0.0, 1.5]}", "dropout is 1.5"),
        ("{epochs: [a, b]}", "tune: epochs is a: it should be a number above 0"),
        ("{epochs: [true, false]}", "tune: epochs is True: it should be"),
        ("{epochs: {low: -1, high: 1}}", "tune: epochs is -1.0: it should be"),
        ("{optim.peak_lr: [1e-3, x]}", "peak_lr is 'x'"),
    ],
)
def test_a_value_that_cannot_be_is_refused_before_any_trial(place, tmp_path, space, message):
    recipe = load(place, f"runs={tmp_path}", f"tune.pretrain={space}", "tune.downstream=null")
    with pytest.raises(ConfigError, match=message):
        work(recipe, is_wanted=is_of_searches)
    assert not list(tmp_path.rglob("trial-*"))


BAD = {
    "no key": ("tune.pretrain={}", "at least one key"),
    "one value": (
        "tune.pretrain={adapter.rank: [4]}",
        r"tune\.pretrain\.adapter\.rank: 1 values leave nothing",
    ),
    "an unknown objective": ("tune.objective=accuracy", "tune.objective"),
    "an unknown word": ("tune.pretrain=everything", "tune.pretrain"),
    "more starts than there can be": ("tune.starts=0", "tune.starts"),
}


@pytest.mark.parametrize(("override", "message"), BAD.values(), ids=BAD.keys())
def test_a_space_that_is_none_is_refused_at_once(place, override, message):
    with pytest.raises(ConfigError, match=message):
        load(place, override)


@pytest.mark.parametrize("key", ["adapter.lenght", "optim.peek_lr", "domain_lr", "variants"])
def test_a_key_that_the_training_lacks_is_named_before_any_trial(place, tmp_path, key):
    keys = f"runs={tmp_path}", f"tune.pretrain={{{key}: [1, 2]}}"
    with pytest.raises(ConfigError, match=f"tune.*{key.rpartition('.')[2]}"):
        work(load(place, *keys), is_wanted=is_of_searches)

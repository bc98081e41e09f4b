"""Settings are searched on validation notes: every trial once, the winner trained in all runs."""

import dataclasses
import json
import shutil
import time

import numpy as np
import pytest
from searched_study import STACKED, load, searched_study, searches_of
from sklearn.metrics import log_loss, roc_auc_score
from small_study import notetune

from notetune.errors import ConfigError, RunError, RunWarning, TrainingMemoryError
from notetune.lease import this_process
from notetune.metrics.scores import read_scores
from notetune.model.adapters.files import read_adapter
from notetune.ownership import lease_of
from notetune.study import search
from notetune.study.costs import costs
from notetune.study.evaluate import evaluate
from notetune.study.listing import jobs
from notetune.study.run import is_of_searches, is_of_step_1, prepare_notes, run_study, work
from notetune.study.status import progress
from notetune.study.step1 import train_domain
from notetune.study.trials import identity, place_of, trials_of
from notetune.study.wanted import (
    cell_spec,
    domain_spec,
    facts_of,
    search_of_step_1,
    search_of_step_2,
    with_point,
)
from notetune.train import processes


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return searched_study(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="module")
def results(place):
    return run_study(load(place))


def untimed(row):
    trials = tuple(trial.model_copy(update={"seconds": None}) for trial in row.trials)
    return row.model_copy(update={"trials": trials})


class TestAStudy:
    def test_every_training_but_heads_is_searched(self, place, results):
        step_1, step_2 = searches_of(load(place))
        assert [row.search for row in results.searches] == [step_1.label, step_2.label]
        assert step_2.label == "search · died · domain-frozen+task-lora"
        found = [(row.model, row.task) for row in results.searches]
        assert found == [("lora", ""), ("domain-frozen+task-lora", "died")]
        assert {"lora"} <= {row.method for row in results.methods}
        assert "domain-frozen+task-lora" in [row.model for row in results.tasks[0].rows]
        for job, row in zip((step_1, step_2), results.searches, strict=True):
            points = [tuple(trial.point.values()) for trial in row.trials]
            assert len(points) == len(set(points)) == 4
            assert {trial.state for trial in row.trials} == {"finished"}
            best = min if row.objective == "perplexity" else max
            assert row.validation == best(trial.score for trial in row.trials)
            assert row.trials[row.winner].score == row.validation
            assert row.seconds == sum(trial.seconds for trial in trials_of(job)) > 0
            assert not list(job.folder.parent.rglob("test.parquet"))

    def test_no_run_has_the_seed_of_the_trials_whose_luck_chose_the_winner(self, place, results):
        listed = jobs(load(place))
        seeds = {job.spec.seed for job in listed if job.stage in ("pretrain", "model")}
        assert seeds == {0, 1}
        for job in searches_of(load(place)):
            (trial, *_) = trials_of(job)
            assert search.TrialRun(job, trial).job.spec.seed > 1_000
        more = [identity(job) for job in searches_of(load(place, "seeds=3"))]
        assert more == [identity(job) for job in searches_of(load(place))]

    def test_the_winner_is_trained_in_all_runs(self, place, results):
        step_1, step_2 = results.searches
        listed = jobs(load(place))
        domains = [job for job in listed if job.stage == "pretrain"]
        assert len(domains) == 2
        for job in domains:
            assert read_adapter(job.folder).spec.rank == step_1.point["adapter.rank"]
            assert job.spec.optim.peak_lr == step_1.point["optim.peak_lr"]
        cells = [job for job in listed if job.stage == "model" and job.model.parts.has_task]
        assert len(cells) == 2
        rates = {job.spec.training.optim.peak_lr for job in cells}
        assert rates == {step_2.point["optim.peak_lr"]}

    def test_the_scores_of_a_trial_are_those_of_its_validation_notes(self, place, results):
        step_1, step_2 = searches_of(load(place))
        for trial in trials_of(step_2):
            table = read_scores(search.TrialRun(step_2, trial).job.folder / "validation.parquet")
            expected = roc_auc_score(table.targets_NK[:, 0], table.scores_NK[:, 0])
            assert trial.score == pytest.approx(expected)
        for trial, row in zip(trials_of(step_1), results.searches[0].trials, strict=True):
            assert row.score == pytest.approx(np.exp(trial.score))

    def test_the_report_shows_space_trials_winner_and_corrected_score(self, place, results):
        report = place / "runs" / "small" / "report"
        assert notetune("evaluate", place / "recipe.yaml", *overrides_of(place)).returncode == 0
        text = (report / "report.md").read_text()
        assert "Search for settings" in text
        assert "optim.peak_lr: 0.0001 to 0.1, log scale" in text
        assert "adapter.rank: 1, 2, 3" in text
        assert text.count("4 trials, proposed by gp") == 2
        records = place.rglob("search*/**/trial-*/training.json")
        taken = sorted(json.loads(record.read_text())["steps"] for record in records)
        steps = [trial.steps for row in results.searches for trial in row.trials]
        assert sorted(steps) == taken
        few = [row for row in results.searches if np.median([t.steps for t in row.trials]) < 20]
        assert few
        assert text.count("that suit so few may be too high for a longer") == len(few)
        at_end = [row for row in results.searches if row.point.get("adapter.rank") in (1, 3)]
        assert all("adapter.rank" in row.at_ends for row in at_end)
        told = text.count("the winner is at an end of the space in")
        assert told == sum(bool(row.at_ends) for row in results.searches) >= len(at_end)
        winners = [line for line in text.splitlines() if line.startswith("| search ·")]
        (died,) = (row for task in results.tasks for row in task.rows if row.model == STACKED)
        lora = results.methods[-1]
        assert lora.method == "lora"
        scores = f"{lora.perplexity['test']:.2f}", f"{died.auroc.value:.3f}"
        tested = [line.rstrip(" |").rpartition(" | ")[2].split()[0] for line in winners]
        assert tuple(tested) == scores

    def test_everything_is_done_and_a_second_run_trains_nothing(self, place, results):
        recipe = load(place)
        assert {job.state for job in progress(recipe).jobs} == {"done"}
        before = {p: p.stat().st_mtime_ns for p in recipe.folder.root.rglob("manifest.json")}
        assert run_study(recipe).searches == results.searches
        assert {
            p: p.stat().st_mtime_ns for p in recipe.folder.root.rglob("manifest.json")
        } == before

    def test_a_dry_run_counts_the_trials(self, place, results):
        rows = {row.name: row for row in costs(load(place)).trainings}
        trials = rows["died · domain-frozen+task-lora · trial"]
        assert len(trials.seeds) == 4
        assert trials.steps == rows["died · domain-frozen+task-lora"].steps
        half = {row.name: row for row in costs(load(place, "tune.share=0.5")).trainings}
        assert half["pretrain · lora · trial"].flops < rows["pretrain · lora · trial"].flops


def overrides_of(place):
    return ["downstream.tasks=[died]", "downstream.variants=[head-only,domain-frozen+task-lora]"]


def test_more_trials_go_on_with_those_that_were_made(place, results, tmp_path, monkeypatch):
    trained = []

    def train(job, *arguments):
        trained.append(job.label)
        train_domain(job, *arguments)

    monkeypatch.setattr(search, "train_domain", train)
    recipe = load(place, "tune.trials=5", "tune.downstream=null")
    work(recipe, is_wanted=is_of_searches)
    (row,) = [search.read(job) for job in searches_of(recipe)]
    assert row.trials[:4] == results.searches[0].trials
    assert trained == ["search · lora · trial 4"]
    work(load(place))  # back to how the others find it: the first trials alone
    (row, _) = [search.read(job) for job in searches_of(load(place))]
    assert row == results.searches[0]


def test_torchrun_trains_once_the_searches_that_it_needs_are_made(
    place, results, tmp_path, monkeypatch
):
    of_step_2 = load(place, f"runs={tmp_path}", "tune.pretrain=null")
    made = work(of_step_2, is_wanted=is_of_step_1)
    monkeypatch.setattr(processes, "are_several", lambda: True)
    monkeypatch.setattr(processes, "told", lambda value: value)
    assert searches_of(load(place))[0] in work(load(place))
    assert work(of_step_2, is_wanted=is_of_step_1) == made
    with pytest.raises(ConfigError, match="run `notetune tune` before torchrun"):
        work(of_step_2)
    with pytest.raises(ConfigError, match="run `notetune tune` before torchrun"):
        work(load(place, f"runs={tmp_path}"), is_wanted=is_of_step_1)


def test_a_search_that_is_stopped_ends_with_the_same_trials_and_winner(
    place, results, tmp_path, monkeypatch
):
    recipe = load(place, f"runs={tmp_path}", "tune.downstream=null")
    count = [0]

    def stopped(*arguments):
        count[0] += 1
        if count[0] % 2 == 0:
            raise KeyboardInterrupt
        train_domain(*arguments)

    monkeypatch.setattr(search, "train_domain", stopped)
    stops = 0
    while True:
        try:
            work(recipe, is_wanted=is_of_searches)
            break
        except KeyboardInterrupt:
            stops += 1
    assert stops == 3
    (row,) = [search.read(job) for job in searches_of(recipe)]
    assert untimed(row) == untimed(results.searches[0])


def test_a_point_that_does_not_work_is_a_failed_trial_and_the_search_goes_on(place, tmp_path):
    space = "tune.pretrain={optim.peak_lr: [1e-3, 1e20], adapter.dropout: [0.0, 0.1]}"
    recipe = load(place, f"runs={tmp_path}", space, "tune.downstream=null")
    with pytest.warns(RunWarning, match=r"search · lora · trial \d: .* is not finite"):
        work(recipe, is_wanted=is_of_searches)
    (row,) = [search.read(job) for job in searches_of(recipe)]
    states = [trial.state for trial in row.trials]
    assert sorted(states) == ["failed", "failed", "finished", "finished"]
    assert row.trials[row.winner].point["optim.peak_lr"] == 1e-3


def test_a_trial_that_memory_does_not_hold_is_tried_again(place, tmp_path, monkeypatch):
    recipe = load(place, f"runs={tmp_path}", "tune.downstream=null", "tune.trials=2")

    def full(*_):
        raise TrainingMemoryError("step 0: does not fit into memory.")

    with monkeypatch.context() as patch:
        patch.setattr(search, "train_domain", full)
        with pytest.raises(TrainingMemoryError):
            work(recipe, is_wanted=is_of_searches)
    (job,) = searches_of(recipe)
    assert [trial.state for trial in trials_of(job)] == ["running"]
    work(recipe, is_wanted=is_of_searches)
    assert [trial.state for trial in trials_of(job)] == ["finished"] * 2


def test_the_time_left_counts_the_trials_that_are_left(place, results, tmp_path):
    shutil.copytree(place / "runs", tmp_path / "runs")
    recipe = load(place, f"runs={tmp_path}/runs")
    job = searches_of(recipe)[0]
    shutil.rmtree(job.folder)
    seconds = [trial.seconds for trial in trials_of(job)]
    journal = place_of(job) / "ledger.jsonl"
    lines = journal.read_text().splitlines(keepends=True)
    assert progress(recipe).seconds_left == pytest.approx(np.mean(seconds), rel=0.01)
    journal.write_text("".join(lines[:5]))  # two trials
    left = 2 * np.mean(seconds[:2])
    assert progress(recipe).seconds_left == pytest.approx(left, rel=0.01)
    ahead = dataclasses.replace(this_process(), host="node7", since=time.time() + 9_000)
    for trial in ("trial-002", "trial-003"):
        lease_of(place_of(job) / trial).write_text(json.dumps(vars(ahead)))
    found = progress(recipe)
    assert found.seconds_left <= left
    (running,) = [one for one in found.jobs if one.state == "running"]
    assert running.detail.startswith("2 of 4 trials are over; ")
    assert running.detail.count(" since ") == 2


def test_a_space_is_searched_by_each_training_as_far_as_it_has_the_setting(place):
    variants = "downstream.variants=[task-lora, domain-trainable+task-lora]"
    recipe = load(
        place,
        variants,
        "pretrain.compare={other: {adapter: {kind: prompt}}}",
        "tune.pretrain={adapter.rank: [1, 2], optim.peak_lr: [1e-4, 1e-3]}",
        "tune.downstream={domain_lr: [1e-5, 1e-4], optim.peak_lr: [1e-4, 1e-3]}",
    )
    facts = facts_of(recipe, prepare_notes(recipe))
    spaces = [
        list(search_of_step_1(one, domain_spec(one, facts, 0)).space)
        for one in (recipe, recipe.compared["other"])
    ]
    spaces += [
        list(search_of_step_2(recipe, cell_spec(recipe, facts, model, "died", 0)).space)
        for model in recipe.models_of("")
        if model.kind == "variant"
    ]
    both = ["adapter.rank", "optim.peak_lr"]
    assert spaces == [both, both[1:], both[1:], ["domain_lr", "optim.peak_lr"]]
    with pytest.raises(ConfigError, match="domain_lr needs a variant that trains on its domain"):
        load(place, "tune.downstream={domain_lr: [1e-5, 1e-4]}")


def test_a_default_space_leaves_part_of_an_epoch_as_it_is(place):
    def searched(*keys):
        variant = "downstream.variants=[task-lora]"
        recipe = load(place, variant, "tune.pretrain=default", "tune.downstream=default", *keys)
        facts = facts_of(recipe, prepare_notes(recipe))
        (model,) = (one for one in recipe.models_of("") if one.kind == "variant")
        step_2 = search_of_step_2(recipe, cell_spec(recipe, facts, model, "died", 0))
        step_1 = search_of_step_1(recipe, domain_spec(recipe, facts, 0))
        return ["epochs" in found.space for found in (step_1, step_2)]

    assert searched("pretrain.epochs=1", "downstream.epochs=1.5") == [True, True]
    assert searched("pretrain.epochs=0.25", "downstream.epochs=0.9") == [False, False]


def test_a_domain_adapter_at_the_rate_of_its_training_is_searched_with_it(place):
    variants = "downstream.variants=[domain-trainable+task-lora]"
    for override, expected in (("downstream.domain_lr=null", 0.5), ("downstream.domain_lr=1", 1)):
        recipe = load(place, variants, override)
        (model,) = (one for one in recipe.models_of("") if one.kind == "variant")
        facts = facts_of(recipe, prepare_notes(recipe))
        spec = cell_spec(recipe, facts, model, "died", 0)
        assert with_point(spec, {"optim.peak_lr": 0.5}).training.domain_lr == expected


def test_the_command_shows_what_was_found(place, results):
    done = notetune("tune", place / "recipe.yaml", *overrides_of(place), "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [row["winner"] for row in found] == [row.winner for row in results.searches]
    none = notetune("tune", place / "recipe.yaml", "tune={}")
    assert none.returncode == 2
    assert "the recipe has no `tune`" in none.stderr


def test_the_log_loss_is_that_of_scikit_learn(place, results):
    step_2 = searches_of(load(place))[1]
    table = read_scores(
        search.TrialRun(step_2, trials_of(step_2)[0]).job.folder / "validation.parquet"
    )
    whole = np.ones((len(table.note_ids_N), 1), np.uint8)
    truth, scores = table.targets_NK[:, 0], table.scores_NK[:, 0]
    weights = np.array([[0.4], [3.0]])
    expected = log_loss(truth, scores, sample_weight=weights[truth, 0], normalize=False)
    found = search._log_loss(table, whole, weights_2K=weights)[0, 0]
    assert found == pytest.approx(expected / len(truth))


def test_evaluating_without_a_finished_search_says_what_is_missing(place, results, tmp_path):
    recipe = load(place, "tune.pretrain={adapter.rank: [7, 8]}")
    assert "search · lora" in [job.name for job in progress(recipe).jobs if job.state == "open"]
    with pytest.raises(RunError, match="holds no result of a search"):
        evaluate(recipe)

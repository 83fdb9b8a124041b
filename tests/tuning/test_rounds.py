"""Tuning: what each arm is tuned to, that it can be resumed, and that the comparison shares no seed with it."""

import sys
from pathlib import Path

import pytest

import fairtrial as ft
from fairtrial.errors import FairtrialError, StudyError, StudyNotFoundError
from fairtrial.scheduler import plan
from fairtrial.spec import Study
from fairtrial.store.sql import SQLStore

TRIALS = 13  # ten at random, and then three that follow from these


def table(**changes):
    """Two arms that are best at different rates."""
    return {
        "name": "t",
        "reference": "low",
        "seeds": 3,
        "training": {"loop": "loops:tunable", "epochs": 2},
        "evidence": {"metric": "final_test_acc", "margin": 0.01},
        "tuning": {"trials": TRIALS, "at_once": 2, "space": {"optimizer": {"lr": {"log": [1e-5, 1e-1]}}}},
        "arms": {"low": {"params": {"best": 1e-4}}, "high": {"params": {"best": 1e-2}}},
    } | changes


def with_tuning(**changes):
    """The same study, tuned otherwise."""
    return Study.from_dict(table(tuning=table()["tuning"] | changes))


def run(study, **options):
    return ft.run(study, executor=ft.InlineExecutor(), **options)


def interrupt(study, at, monkeypatch):
    """Run the study until the first trial of an arm or candidate is interrupted."""
    with monkeypatch.context() as patch:
        patch.setenv("FAIRTRIAL_TEST_INTERRUPT", at)
        with pytest.raises(KeyboardInterrupt):
            run(study)


def seeds_trained():
    """What each trial trained with: arm, seed as the loop sees it, seeds of weights and order."""
    lines = [line.split() for line in Path("seeds.txt").read_text().splitlines()]
    return [(arm, *map(int, seeds)) for arm, *seeds in lines]


@pytest.fixture
def study():
    return Study.from_dict(table())


def test_each_arm_gets_the_rate_that_is_best_on_the_validation_split(study):
    runs = run(study)
    rates = {arm.name: arm.settings.optimizer.lr for arm in runs.study.arms}
    assert 3e-5 < rates["low"] < 3e-4
    assert 3e-3 < rates["high"] < 3e-2
    assert runs.study.tuning.found == {name: {"optimizer.lr": rate} for name, rate in rates.items()}
    assert runs.trained == 2 * TRIALS + 6
    assert len(runs.results) == 6


def test_the_comparison_uses_none_of_the_seeds_that_tuned(study):
    run(study)
    tuned = {tuple(seeds) for arm, *seeds in seeds_trained() if "-" in arm}
    compared = {tuple(seeds) for arm, *seeds in seeds_trained() if "-" not in arm}
    assert tuned == {(100_000,) * 3}
    assert compared == {(seed,) * 3 for seed in range(3)}


def test_every_arm_has_the_same_budget_and_begins_with_the_same_values(study):
    run(study)
    with SQLStore("fairtrial.db") as store:
        rounds = [Study.from_toml(one.toml) for one in reversed(store.studies()) if "-tuning-" in one.name]
    assert [one.name for one in rounds] == ["t-tuning-1", "t-tuning-2", "t-tuning-3"]
    tried = {
        name: [arm.settings.optimizer.lr for one in rounds for arm in one.arms if arm.name.startswith(f"{name}-")]
        for name in ("low", "high")
    }
    assert len(tried["low"]) == len(tried["high"]) == TRIALS
    assert tried["low"][:10] == tried["high"][:10]
    assert tried["low"][10:] != tried["high"][10:]


@pytest.mark.parametrize("at", ["low-1", "high-4", "low-10", "high-12", "high"])
def test_a_tuning_that_was_interrupted_is_resumed_to_the_same_digest(study, at, monkeypatch, tmp_path):
    whole = run(study, store=tmp_path / "whole.db")
    interrupt(study, at, monkeypatch)
    Path("seeds.txt").unlink()
    resumed = run(study)
    assert (resumed.study.hash, resumed.digest()) == (whole.study.hash, whole.digest())
    assert 0 < resumed.trained < whole.trained or at == "low-1"
    assert len(seeds_trained()) == resumed.trained


def test_a_study_that_was_tuned_is_not_tuned_again_and_is_found_by_its_file(study):
    first = run(study)
    again = run(study)
    assert (again.trained, again.study) == (0, first.study)
    Path("t.toml").write_text(study.to_toml())
    assert ft.open_results("t.toml").study.hash == first.study.hash
    assert ft.open_results(study).digest() == first.digest()
    assert ft.load("t", store="fairtrial.db").hash == first.study.hash


def test_more_seeds_and_another_margin_tune_nothing_again(study):
    before = run(study)
    more = run(Study.from_dict(table(seeds=5, evidence={"metric": "final_test_acc", "margin": 0.02})))
    assert more.trained == 4
    assert more.study.tuning.found == before.study.tuning.found


def test_results_can_not_be_read_before_the_arms_are_tuned(study):
    with SQLStore("fairtrial.db"), pytest.raises(StudyNotFoundError, match=r"has not been tuned to the end in this"):
        ft.open_results(study)


def meeting(eps):
    """Two arms that share one of three candidates: the first is tuned in the setting that the second differs in."""
    own = {"plain": {"optimizer": {"lr": [1e-3], "eps": eps}}}
    tuning = {"sampler": "grid", "space": {"optimizer": {"lr": [1e-3, 1e-4]}}, "arms": own}
    arms = {"plain": {}, "smooth": {"optimizer": {"eps": 1e-5}}}
    return Study.from_dict(table(reference="plain", arms=arms, tuning=tuning, seeds=2))


def test_a_candidate_that_two_arms_share_is_trained_once_and_counts_for_both():
    runs = run(meeting(eps=[1e-8, 1e-5]))
    assert runs.trained == 3 + 4
    found = {"plain": {"optimizer.lr": 1e-3, "optimizer.eps": 1e-8}, "smooth": {"optimizer.lr": 1e-3}}
    assert runs.study.tuning.found == found


def test_arms_that_are_tuned_to_the_same_settings_are_not_compared():
    with pytest.raises(StudyError, match=r"^tuning: the best settings of smooth are the very ones of plain, so"):
        run(meeting(eps=[1e-5, 1e-8]))
    assert len(seeds_trained()) == 3


def test_an_arm_may_have_a_range_of_its_own():
    own = {"high": {"optimizer": {"lr": {"log": [1e-3, 1.0]}}}}
    runs = run(with_tuning(arms=own, trials=4))
    with SQLStore("fairtrial.db") as store:
        rates = [arm.settings.optimizer.lr for arm in Study.from_toml(store.studies()[-1].toml).arms]
    assert max(rates[:4]) < 1e-1 < max(rates[4:])
    assert runs.study.tuning.budget("high") == 4


def test_values_that_failed_or_diverged_are_the_worst_and_are_counted():
    arms = {"low": {"params": {"fatal": 1e-3}}, "high": {"params": {"fails": 1e-3}}}
    runs = run(Study.from_dict(table(arms=arms)))
    assert all(arm.settings.optimizer.lr < 1e-3 for arm in runs.study.arms)
    assert runs.study.tuning.lost["low"] > 2
    assert runs.study.tuning.lost["high"] > 2
    assert "of low gave no number" in runs.verdict().write("text").replace("\n", " ")


def test_an_arm_without_any_value_is_an_error():
    study = Study.from_dict(table(arms={"low": {"params": {"fatal": 1e-9}}, "high": {}}))
    with pytest.raises(StudyError, match=r"none of the 13 tuning trials of low has a value of final_val_acc"):
        run(study)


def test_a_measure_that_is_better_lower_is_minimized():
    found = run(with_tuning(metric="final_val_loss")).study.tuning.found
    assert 3e-3 < found["high"]["optimizer.lr"] < 3e-2


def test_a_round_by_hand_is_refused_because_its_looks_would_count_for_nothing():
    by_hand = {key: value for key, value in table().items() if key != "tuning"}
    by_hand |= {"tuning_round": 1, "evidence": {"metric": "final_val_acc"}}
    with pytest.raises(StudyError, match=r"tuning_round = 1: rounds are run by \[tuning\]; run the study that"):
        run(Study.from_dict(by_hand))
    assert not Path("fairtrial.db").exists()


def test_the_mean_over_seeds_decides_and_any_lost_seed_is_no_value():
    runs = run(with_tuning(trials=3, seeds={"first": 50, "count": 2}))
    assert {seed for arm, seed, *_ in seeds_trained() if "-" in arm} == {50, 51}
    assert runs.trained == 2 * 3 * 2 + 6


@pytest.mark.parametrize("sampler", ["random", "qmc"])
def test_optunas_other_samplers_propose_the_same_in_every_run(sampler, tmp_path):
    study = with_tuning(sampler=sampler, trials=5)
    one, two = (run(study, store=tmp_path / name) for name in ("1.db", "2.db"))
    assert one.study.hash == two.study.hash
    assert one.trained == 2 * 5 + 6


def test_a_grid_tries_every_combination():
    space = {"optimizer": {"lr": [1e-4, 1e-3, 1e-2], "weight_decay": [0.0, 0.1]}}
    runs = run(Study.from_dict(table(tuning={"sampler": "grid", "space": space})))
    assert runs.trained == 2 * 6 + 6
    assert [arm.settings.optimizer.lr for arm in runs.study.arms] == [1e-4, 1e-2]
    assert [arm.settings.optimizer.weight_decay for arm in runs.study.arms] == [0.0, 0.0]  # the first of equals


def test_values_that_are_proposed_twice_are_trained_once():
    study = with_tuning(sampler="random", trials=12, space={"optimizer": {"lr": [1e-4, 1e-2]}})
    assert run(study).trained == 2 * 2 + 6


def test_an_aa_arm_gets_the_settings_of_its_twin():
    arms = table()["arms"] | {"again": {"params": {"best": 1e-4}}}
    evidence = {"metric": "final_test_acc", "aa": True}
    runs = run(Study.from_dict(table(arms=arms, evidence=evidence)))
    assert runs.study.arm("again").settings == runs.study.arm("low").settings
    assert runs.study.twins == {"again": "low"}
    assert runs.trained == 2 * TRIALS + 9


def test_a_confirmation_keeps_what_was_found():
    runs = run(with_tuning(arms={"high": {"optimizer": {"lr": {"log": [1e-4, 1.0]}}}}, trials=3))
    again = runs.confirmation()
    assert again.arm("high").settings == runs.study.arm("high").settings
    assert run(again).trained == len(plan(again))


def test_a_comparison_on_the_measure_that_tuned_is_no_second_look():
    runs = run(Study.from_dict(table(evidence={"metric": "final_val_acc", "margin": 0.01})))
    assert not runs.verdict().data.exploratory


def test_who_tunes_again_after_a_look_is_told():
    assert not run(with_tuning(trials=3)).verdict().data.exploratory
    again = run(with_tuning(trials=3, sampler_seed=1))
    assert again.verdict().data.exploratory == ("these arms were tuned to other values, and compared, before",)
    moved = with_tuning(trials=3, sampler_seed=2).to_dict() | {"seeds": {"first": 300, "count": 3}}
    assert run(Study.from_dict(moved)).verdict().data.exploratory


def test_a_loop_that_is_a_function_stays_one():
    from loops import tunable

    def loop(trial):
        yield from tunable(trial)

    runs = run(Study.from_dict(table(training={"loop": loop, "epochs": 1}, seeds=1)))
    assert runs.trained == 2 * TRIALS + 2


def test_without_optuna_a_grid_can_be_tuned_and_plan_still_counts(study, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(FairtrialError, match=r'tuning needs Optuna: pip install "fairtrial\[tune\]", or write tuning'):
        run(study)
    assert ft.estimate_cost(study).missing == 2 * TRIALS + 6
    grid = {"sampler": "grid", "space": {"optimizer": {"lr": [1e-3]}}}
    assert run(Study.from_dict(table(tuning=grid, seeds=1))).trained == 4


def test_plan_counts_tuning_trials(study):
    cost = ft.estimate_cost(study)
    assert (cost.trials, cost.tuning_trials, cost.missing) == (2 * TRIALS + 6, 2 * TRIALS, 2 * TRIALS + 6)
    runs = run(study)
    cost = ft.estimate_cost(runs.study)
    assert (cost.trials, cost.tuning_trials, cost.missing) == (6, 0, 0)
    assert ft.estimate_cost(study) == cost


def test_plan_knows_how_far_an_interrupted_tuning_is(study, monkeypatch):
    interrupt(study, "high-12", monkeypatch)
    ended = sum("-" in arm for arm, *_ in seeds_trained()) - 1
    assert ft.estimate_cost(study).missing == 2 * TRIALS + 6 - ended


def test_fairtrials_own_loop_is_tuned_on_the_images_that_it_holds_out():
    runs = run(
        Study.from_dict(
            {
                "name": "own",
                "reference": "adam",
                "seeds": 1,
                "data": {"name": "digits", "train": 64, "test": 50, "validation": 50},
                "model": {"name": "small_cnn", "width": 4},
                "training": {"epochs": 1, "batch_size": 32},
                "tuning": {"sampler": "grid", "space": {"optimizer": {"lr": [1e-6, 1e-2]}}, "metric": "final_val_loss"},
                "arms": {"adam": {}, "sgd": {"optimizer": {"name": "sgd"}}},
            }
        )
    )
    assert runs.trained == 2 * 2 + 2
    assert {arm.settings.optimizer.lr for arm in runs.study.arms} <= {1e-6, 1e-2}
    assert all("val_loss" in record.metrics for result in runs.results for record in result.epochs)

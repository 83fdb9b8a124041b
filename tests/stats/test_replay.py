"""Replaying sequential studies: the same stops as look by look, from a number of looks that grows as the seeds."""

from dataclasses import replace

import numpy as np
import pytest

from fairtrial.history import History, Registered
from fairtrial.question import Question
from fairtrial.scheduler import Scheduler
from fairtrial.spec import Study
from fairtrial.stats import sequential
from fairtrial.stats.comparison import compare, stops
from fairtrial.stats.looks import LookPlan
from fairtrial.stats.replay import Replay, Stops, replayed
from fairtrial.stats.sequential import Looks, judge_many
from fairtrial.testing import simulated_results, simulated_study

ARMS = {
    "a": {},
    "up": {"mean": 0.83},
    "slow": {"mean": 0.804},
    "wild": {"diverge_rate": 0.4},
    "lost": {"mean": 0.83, "fail_seeds": [1]},
    "same": {},
}


@pytest.fixture
def looks_taken(monkeypatch):
    """The looks that are taken while a test runs."""
    taken, look = [], sequential._look
    monkeypatch.setattr(sequential, "_look", lambda *args: taken.append(args[3]) or look(*args))
    return taken


def equal_arms(seeds):
    return simulated_study({"a": {"noise_sd": 1e-3}, "b": {}}, seeds={"min": 3, "max": seeds})


@pytest.mark.parametrize("seeds", [20, 40])
def test_a_rerun_with_nothing_to_do_takes_each_look_once(seeds, looks_taken):
    study = equal_arms(seeds)
    results = simulated_results(study)
    reads = []
    scheduler = Scheduler(study, Stops(lambda: None))
    step = scheduler.advance({one.trial for one in results}, lambda: reads.append(1) or results)
    assert (step.trials, step.stopped, reads) == ((), (), [1])
    assert looks_taken == list(range(seeds - 3))  # none after the last seed, when nothing is left to decide


def test_so_does_a_study_that_runs(looks_taken):
    study = equal_arms(20)
    _, have = played(study, simulated_results(study), Stops(lambda: None))
    assert len(have) == 40
    assert looks_taken == list(range(17))


def test_verdicts_cost_as_many_looks_as_a_replay_and_one_judgment(looks_taken):
    study = equal_arms(30)
    compare(study, simulated_results(study))
    assert len(looks_taken) == 2 * 28


def test_looks_that_continue_are_those_of_a_new_beginning():
    plan = LookPlan.of(3, range(3, 16))
    differences = np.random.default_rng(1).normal(size=(20, 15, 3)) + np.array([0.0, 1.5, 4.0])
    differences[np.random.default_rng(2).random(differences.shape) < 0.1] = np.nan
    for study in differences:
        looks = Looks(plan, margin=1.0)
        for seeds in (2, 3, 4, 8, 8, 15):
            found, whole = looks.take(study[:seeds]), judge_many(study[None, :seeds], plan, margin=1.0)
            for part, expected in zip(found, whole, strict=True):
                np.testing.assert_array_equal(part, expected[0])


def test_looks_begin_anew_where_earlier_rows_have_changed():
    plan = LookPlan.of(2, range(3, 9))
    before, after = np.random.default_rng(3).normal(size=(2, 8, 2)) + np.array([0.0, 3.0])
    looks = Looks(plan)
    looks.take(before[:5])
    np.testing.assert_array_equal(looks.take(after).finding, judge_many(after[None], plan).finding[0])


def played(study, results, rule):
    """Stop arms as a running study would."""
    known = {one.trial: one for one in results}
    scheduler, ended, stopped = Scheduler(study, rule), set(), []

    def stored():
        return [known[trial] for trial in known if trial in ended]

    while True:
        step = scheduler.advance(ended, stored)
        stopped += step.stopped
        if not step.trials:
            return {stop.arm: (stop.seeds, stop.reason) for stop in stopped}, stored()
        ended.update(trial.hash for trial in step.trials)


@pytest.mark.parametrize("evidence", [{}, {"margin": 0.01}, {"margin": 0.01, "aa": True}])
def test_a_running_study_a_rerun_and_its_verdicts_agree(evidence):
    table = simulated_study(ARMS, seeds={"min": 3, "max": 12}).to_dict()
    arms = table["arms"] | ({"again": table["arms"]["a"]} if evidence.get("aa") else {})
    study = Study.from_dict(table | {"arms": arms, "evidence": evidence})
    everything = simulated_results(study)
    by_looks, have = played(study, everything, stops)
    running, _ = played(study, everything, Stops(lambda: None))
    assert running == by_looks
    assert running["up"] == (3, "its verdict is settled")
    ended = {one.trial for one in everything}
    again = Scheduler(study, Stops(lambda: None)).advance(ended, lambda: everything).stopped
    assert {stop.arm: (stop.seeds, stop.reason) for stop in again} == running
    assert compare(study, have).seeds == compare(study, everything).seeds == replayed(study, have).seeds == 12


def test_what_another_study_trained_further_moves_no_look():
    """An arm that stopped, and whose later trials conflict, or fail, or are outlying."""
    study = simulated_study({"a": {}, "up": {"mean": 0.9}, "c": {}}, seeds={"min": 3, "max": 8})
    results = simulated_results(study)
    have = [one for one in results if one.arm != "up" or one.seed < 3]
    expected = replayed(study, have).stopped, compare(study, have).seeds

    def spoiled(one, how):
        if (one.arm, one.seed) != ("up", 5):
            return one
        bad = {"test_acc": 0.1} if how == "outlying" else {}
        epochs = tuple(replace(record, metrics=record.metrics | bad) for record in one.epochs)
        prints = {"initial_weights": "others"} if how == "conflicting" else one.fingerprints
        outcome = "diverged" if how == "lost" else one.outcome
        return replace(one, epochs=epochs, fingerprints=prints, outcome=type(one.outcome)(outcome))

    for how in ("outlying", "conflicting", "lost"):
        further = [spoiled(one, how) for one in results]
        assert (replayed(study, further).stopped, compare(study, further).seeds) == expected


def test_a_replay_in_parts_is_one_replay():
    study = simulated_study(ARMS, seeds={"min": 3, "max": 12})
    results = simulated_results(study)
    whole, parts = replayed(study, results), Replay(study)
    for seed in range(12):
        parts.add([one for one in results if one.seed == seed])
    assert (parts.seeds, parts.stopped, parts.over) == (whole.seeds, whole.stopped, whole.over)


def test_a_rule_begins_anew_when_the_history_has_changed(looks_taken):
    study = equal_arms(8)
    results = [one for one in simulated_results(study) if one.seed < 6]
    question = Question.of(study)
    histories = [History(Registered(number, question, results[0].started, {})) for number in (1, 1, 2)]
    rule = Stops(iter(histories).__next__)
    counts = []
    for _ in histories:
        rule(study, results)
        counts.append(len(looks_taken))
    assert counts == [4, 4, 8]

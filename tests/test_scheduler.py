"""Scheduling: which trials a study needs, whichever ends first and however many run at a time."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders import make_results, make_study
from fairtrial.scheduler import Scheduler, makespan, plan

ARMS = ("reference", "b", "c", "d")


def study_of(least, most, arms=ARMS):
    return make_study(arms, seeds={"min": least, "max": most})


def play(study, settled, *, workers=1, shuffle=None, already=frozenset()):
    """Run a study whose trials end in any order; return the hashes of its trials and when arms stopped."""
    results = make_results(study)
    scheduler, ended, stopped = Scheduler(study, settled), set(already), {}
    running, waiting, trained = [], [], []

    def advance():
        step = scheduler.advance(ended, lambda: results)
        waiting.extend(step.trials)
        stopped.update({stop.arm: stop.seeds for stop in step.stopped})

    advance()
    while waiting or running:
        while waiting and len(running) < workers:
            running.append(waiting.pop(0))
        trial = running.pop(shuffle.randrange(len(running)) if shuffle else 0)
        trained.append(trial.hash)
        ended.add(trial.hash)
        advance()
    assert len(set(trained)) == len(trained)
    return {trial.hash for trial in scheduler.possible} & ended, stopped


def by_table(table):
    """Make a rule that stops arms after the numbers of seeds in a table; others never stop."""

    def settled(study, results):
        seen = {result.seed for result in results}
        assert seen == set(range(len(seen)))  # whole seeds, from the first
        return {arm: f"{enough} are enough" for arm, enough in table.items() if len(seen) >= enough}

    return settled


tables = st.dictionaries(st.sampled_from(ARMS[1:]), st.integers(1, 8))


@given(tables, st.integers(1, 4), st.integers(0, 4), st.integers(1, 6), st.randoms(use_true_random=False))
def test_workers_and_order_do_not_matter(table, least, more, workers, shuffle):
    study = study_of(least, least + more)
    alone = play(study, by_table(table))
    assert play(study, by_table(table), workers=workers, shuffle=shuffle) == alone


@given(tables, st.integers(1, 4), st.integers(0, 4))
def test_every_arm_gets_the_seeds_that_it_needs(table, least, more):
    most = least + more
    hashes, stopped = play(study_of(least, most), by_table(table))
    wanted = {arm: min(max(least, table.get(arm, most)), most) for arm in ARMS[1:]}
    wanted["reference"] = max(wanted.values())
    got = {arm: sum(t.hash in hashes for t in plan(study_of(least, most)) if t.arm == arm) for arm in ARMS}
    assert got == wanted
    assert {arm: seeds for arm, seeds in stopped.items() if arm != "reference"} == {
        arm: wanted[arm] for arm in table if wanted[arm] < most
    }


@given(tables, st.sets(st.integers(0, 31)))
def test_earlier_results_change_nothing(table, there):
    study = study_of(2, 8)
    known = frozenset(plan(study)[number].hash for number in there)
    hashes, stopped = play(study, by_table(table), already=known)
    alone = play(study, by_table(table))
    assert stopped == alone[1]
    assert hashes == alone[0]


def test_the_rule_sees_no_more_of_an_arm_than_it_had_when_it_stopped():
    seen = []

    def settled(study, results):
        seen.append([(result.arm, result.seed) for result in results])
        return {"b": "settled"}

    study = study_of(1, 3, ARMS[:3])
    play(study, settled, shuffle=random.Random(1), workers=3)
    assert seen == [
        [("reference", 0), ("b", 0), ("c", 0)],
        [("reference", 0), ("b", 0), ("c", 0), ("reference", 1), ("c", 1)],
    ]


def test_a_verdict_that_is_taken_back_does_not_start_an_arm_again():
    study = study_of(1, 4, ARMS[:3])
    answers = iter([{"b": "settled"}, {}, {"c": "settled"}])
    hashes, stopped = play(study, lambda study, results: next(answers))
    assert stopped == {"b": 1, "c": 3, "reference": 3}
    assert len(hashes) == 1 + 3 + 3


@pytest.mark.parametrize(("seeds", "settled"), [(3, by_table({"b": 1})), ({"min": 1, "max": 3}, None)])
def test_a_fixed_number_of_seeds_is_wanted_at_once_without_the_rule(seeds, settled):
    study = make_study(ARMS, seeds=seeds)
    scheduler = Scheduler(study, settled)
    step = scheduler.advance(set(), lambda: pytest.fail("asked for results"))
    assert (step.trials, step.stopped) == (plan(study), ())
    last = scheduler.advance({trial.hash for trial in step.trials}, lambda: pytest.fail("asked for results"))
    assert (last.trials, last.stopped) == ((), ())


def test_a_study_of_one_arm_stops_at_the_least_number_of_seeds():
    hashes, stopped = play(study_of(2, 5, ARMS[:1]), by_table({}))
    assert (len(hashes), stopped) == (2, {"reference": 2})


def test_results_are_read_only_when_a_seed_is_complete():
    study = study_of(1, 2, ARMS[:2])
    scheduler = Scheduler(study, by_table({}))
    first, second = scheduler.advance(set(), list).trials
    assert scheduler.advance({first.hash}, lambda: pytest.fail("not complete")).trials == ()
    assert [t.seed for t in scheduler.advance({first.hash, second.hash}, lambda: make_results(study)).trials] == [1, 1]


def test_whole_seeds_finish_first(make_study):
    assert [(t.seed, t.arm) for t in plan(make_study())] == [(0, "a"), (0, "b"), (1, "a"), (1, "b")]


def test_all_seeds_of_a_sequential_study_are_planned(make_study):
    assert plan(make_study(seeds={"min": 1, "max": 2})) == plan(make_study(seeds=2))


@pytest.mark.parametrize(
    ("seconds", "workers", "expected"),
    [([], 2, 0), ([3, 3, 3], 1, 9), ([3, 3, 3], 2, 6), ([1, 5, 1, 1], 2, 5), ([1, 2], 8, 2)],
)
def test_makespan(seconds, workers, expected):
    assert makespan(seconds, workers) == expected


@given(st.lists(st.floats(0, 100), min_size=1), st.integers(1, 8))
def test_makespan_lies_between_its_bounds(seconds, workers):
    bound = max(sum(seconds) / workers, *seconds)
    assert bound * (1 - 1e-9) <= makespan(seconds, workers) <= sum(seconds) / workers + max(seconds) + 1e-9

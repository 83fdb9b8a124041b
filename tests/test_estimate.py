"""Estimates of costs."""

import pytest
from statsmodels.stats.power import TTestIndPower

from builders import make_results, make_study
from fairtrial.errors import FairtrialError
from fairtrial.estimate import EPOCH_BYTES, TRIAL_BYTES, estimate
from fairtrial.report.costs import plan_text
from fairtrial.spec import Study
from fairtrial.stats.comparison import paired_spread
from fairtrial.stats.power import detectable_differences
from fairtrial.stats.welch import detectable
from fairtrial.testing import simulated_results, simulated_study
from fairtrial.trial import Outcome

LOOP = {"training": {"loop": "loops:good"}}


@pytest.fixture
def study():
    return make_study({"a": {}, "b": {"params": {"pace": 2}}}, seeds=3, epochs=4, **LOOP)


def test_a_users_loop_that_never_ran_is_unknown(study):
    cost = estimate(study, [], workers=2, threads=1)
    assert (cost.trials, cost.missing, cost.seconds, cost.step_ms) == (6, 6, None, None)
    assert cost.bytes == 6 * (TRIAL_BYTES + 4 * EPOCH_BYTES)
    assert "unknown: this training loop has not finished a trial" in plan_text(study, cost, "s.db")


def test_a_users_loop_is_judged_by_what_its_arm_took(study):
    results = [r for r in make_results(study, ended={}) if r.seed == 0]
    took = {r.arm: (r.ended - r.started).total_seconds() for r in results}
    assert all(seconds > 0 for seconds in took.values())
    cost = estimate(study, results, workers=2, threads=1)
    assert cost.missing == 4
    assert cost.seconds == pytest.approx(2 * max(took.values()))
    assert estimate(study, results, workers=1, threads=1).seconds == pytest.approx(2 * sum(took.values()))


def test_only_what_is_missing_costs(study):
    cost = estimate(study, make_results(study))
    assert (cost.missing, cost.seconds, cost.bytes) == (0, 0, 0)
    assert plan_text(study, cost, "s.db") == f"{study.label}: 6 trials, 6 done, 0 to train"


def test_a_sequential_study_costs_at_most_so_much():
    study = make_study({"a": {}, "b": {"params": {"pace": 2}}}, seeds={"min": 1, "max": 3}, **LOOP)
    results = [result for result in make_results(study) if result.seed == 0]
    first, second, _ = plan_text(study, estimate(study, results, workers=1, threads=1), "s.db").splitlines()
    assert first == f"{study.label}: at most 6 trials, 2 done, 4 to train"
    assert second == "time: at most about 40 min 00 s with 1 worker of 1 thread"


def test_trials_that_settled_arms_are_spared_cost_nothing():
    arms = {"a": {}, "up": {"mean": 0.9}, "same": {}}
    study = simulated_study(arms, seeds={"min": 3, "max": 6})
    three = [result for result in simulated_results(study) if result.seed < 3]
    cost = estimate(study, three, workers=1, threads=1)
    assert (cost.trials, cost.missing) == (15, 6)  # of the reference and of the arm that continues
    over = simulated_study(arms | {"same": {"mean": 0.6}}, seeds={"min": 3, "max": 6})
    done = estimate(over, [r for r in simulated_results(over) if r.seed < 3], workers=1, threads=1)
    assert (done.trials, done.missing, done.bytes) == (9, 0, 0)
    assert plan_text(over, done, "s.db") == f"{over.label}: 9 trials, 9 done, 0 to train"


def test_a_diverged_trial_is_done_and_an_interrupted_one_is_not(study):
    ended = {("a", 0): Outcome.DIVERGED, ("b", 1): None}
    assert estimate(study, make_results(study, ended=ended)).missing == 1


TINY = {
    "name": "s",
    "reference": "a",
    "arms": {"a": {}, "b": {"optimizer": {"eps": 1e-6}}},
    "data": {"name": "digits", "train": 64, "test": 20},
    "model": {"width": 0.25},
    "training": {"epochs": 3, "batch_size": 32},
}


def test_our_own_loop_is_timed():
    study = Study.from_dict(TINY)
    cost = estimate(study, [], workers=1, threads=1)
    assert cost.step_ms is not None
    assert cost.seconds is not None
    assert cost.seconds >= 2 * 3 * 2 * cost.step_ms / 1e3  # two arms, three epochs, two steps
    text = plan_text(study, cost, "s.db")
    assert "with 1 worker of 1 thread (" in text
    assert "kB more in s.db" in text


def test_seed_options_are_the_power_of_the_study_and_the_time_of_what_is_missing(study):
    results = [r for r in make_results(study) if r.seed == 0]
    rows = estimate(study, results, spread=0.01, seeds=(2, 4), workers=1, threads=1).seed_options
    assert [row.seeds for row in rows] == [2, 4]
    assert {row.seeds: row.difference for row in rows} == pytest.approx(
        detectable_differences(0.01, 1, (2, 4), alpha=0.7 * 0.05)
    )
    assert [row.seconds for row in rows] == [pytest.approx(1200), pytest.approx(3600)]
    assert estimate(study, results).seed_options[0].difference is None


def test_the_spread_is_that_of_the_results_unless_it_is_given(study):
    results = make_results(study)
    assert estimate(study, results).spread == paired_spread(study, results)
    assert estimate(study, results, spread=0.25).spread == 0.25


def test_a_study_of_one_arm_compares_nothing():
    assert estimate(make_study(("a",), **LOOP), [], spread=0.01).seed_options == ()


def test_a_crossed_design_has_the_number_of_seeds_that_it_has():
    study = make_study(("a", "b"), seeds=6, noise={"initial_weights": 2, "batch_orders": 3}, **LOOP)
    assert [row.seeds for row in estimate(study, [], spread=0.01).seed_options] == [6]


def test_what_was_timed_once_is_not_timed_again(monkeypatch):
    from fairtrial.training import bench

    timed, pace = [], bench.pace
    monkeypatch.setattr(bench, "pace", lambda trial, **options: timed.append(trial) or pace(trial, **options))
    cost = estimate(Study.from_dict(TINY), [], seeds=(2, 3), workers=1, threads=1)
    assert cost.seed_options[0].seconds > 0
    assert len(timed) == 1


def test_unpaired_runs_need_more_seeds_for_the_same_difference():
    study = make_study(("a", "b"), evidence={"paired": False}, **LOOP)
    found = {row.seeds: row.difference for row in estimate(study, [], spread=0.01, seeds=(3, 40)).seed_options}
    assert found[3] == pytest.approx(0.01 / 3**0.5 * detectable(2, 2, 0.5, 0.05))
    assert found[40] == pytest.approx(
        TTestIndPower().solve_power(nobs1=40, alpha=0.05, power=0.8) * 0.01 / 2**0.5, rel=0.01
    )


@pytest.fixture
def gpus(monkeypatch):
    """Make a machine with so many GPUs; returns the numbers of trials that were timed there."""
    from fairtrial.training import bench_gpu, devices

    timed = []

    def rate(trials):
        return 100.0 * min(trials, 8)

    def measure_each(trial, counts, seconds):
        for number in counts:
            timed.append((trial.arm, number))
            yield bench_gpu.SideBySide(number, rate(number), 10 * rate(number), 0.0, 0.25, 3 << 20, 5 << 20)

    def make(number):
        monkeypatch.setattr(devices, "gpus", lambda: number)
        monkeypatch.setattr(bench_gpu, "measure_each", measure_each)
        return timed

    return make


def test_on_gpus_trials_take_turns_and_as_many_as_pay_off(gpus):
    timed = gpus(2)
    study = Study.from_dict(TINY | {"seeds": 10})
    cost = estimate(study, [], seeds=())
    assert timed == [("b", number) for number in (1, 2, 4, 8, 16)]
    assert (cost.missing, cost.workers, cost.gpus, cost.trials_per_gpu) == (20, 2, 2, 8)
    assert (cost.steps_per_second, cost.step_ms, cost.trial_gpu_bytes) == (800, pytest.approx(10), 3 << 20)
    # Six steps and three evaluations of 20 images a trial; each GPU has eight trials and then two.
    of_trial = {number: 0.25 + 6 / (100 * number) + 60 / (1000 * number) for number in (8, 2)}
    assert cost.seconds == pytest.approx(8 * of_trial[8] + 2 * of_trial[2])
    _, time, memory, _ = plan_text(study, cost, "s.db").splitlines()
    assert time.endswith("with 8 trials side by side on each of 2 GPUs (800 steps a second on each, timed just now)")
    assert memory == "memory: about 3 MiB of the GPU a trial"


def test_a_number_of_the_users_is_not_doubted(gpus):
    timed = gpus(1)
    cost = estimate(Study.from_dict(TINY | {"seeds": 20}), [], trials_per_gpu=12, seeds=())
    assert [number for _, number in timed] == [1, 2, 4, 8, 12]
    assert cost.trials_per_gpu == 12
    assert "with 12 trials side by side on a GPU (800 steps a second, timed just now)" in plan_text(
        Study.from_dict(TINY), cost, "s.db"
    )


def test_other_kinds_of_trials_are_timed_with_one_and_as_many(gpus):
    timed = gpus(1)
    arms = {"a": {}, "b": {"model": {"width": 0.5}}}
    estimate(Study.from_dict(TINY | {"arms": arms, "seeds": 5}), [])
    assert [number for arm, number in timed if arm == "a"] == [1, 2, 4, 8, 16]
    assert [number for arm, number in timed if arm == "b"] == [1, 8]
    assert {arm for arm, _ in timed} == {"a", "b"}


def test_no_more_trials_are_side_by_side_than_are_missing(gpus):
    gpus(2)
    cost = estimate(Study.from_dict(TINY | {"seeds": 1}), [], seeds=())
    assert (cost.workers, cost.trials_per_gpu, cost.steps_per_second) == (2, 1, 100)


def test_with_workers_or_a_loop_of_ones_own_a_process_has_a_trial(gpus, study, monkeypatch):
    from fairtrial.training import bench

    timed = gpus(2)
    monkeypatch.setattr(bench, "pace", lambda trial, threads: bench.Pace(0.5, 0.0, 0.0))
    cost = estimate(Study.from_dict(TINY | {"seeds": 3}), [], workers=4, seeds=())
    assert (cost.workers, cost.gpus, cost.trials_per_gpu, timed) == (4, 2, None, [])
    assert cost.seconds == pytest.approx(3 * 6 * 0.5)  # four workers on two GPUs get no more done than two
    assert estimate(study, []).workers == 2  # one for each GPU
    assert estimate(study, [r for r in make_results(study) if r.seed == 0], workers=4).seconds == pytest.approx(600)


def test_trials_a_gpu_need_a_gpu(gpus):
    gpus(0)
    with pytest.raises(FairtrialError, match=r"^trials_per_gpu: there is no GPU to train on; leave it out$"):
        estimate(Study.from_dict(TINY), [], trials_per_gpu=4)
    with pytest.raises(FairtrialError, match=r"^trials_per_gpu: excludes workers"):
        estimate(Study.from_dict(TINY), [], trials_per_gpu=4, workers=2)

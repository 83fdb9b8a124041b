"""The simulated workload: what it promises of its numbers, and that it runs like any other."""

import subprocess
import sys
import textwrap
import unittest

import numpy as np
import pytest

import fairtrial
from fairtrial.scheduler import plan
from fairtrial.spec import Study
from fairtrial.testing import (
    SimulatedArm,
    assert_not_worse,
    draw,
    executor,
    simulate,
    simulated_results,
    simulated_study,
)
from fairtrial.trial import Outcome, TrialContext
from workloads import run


def finals(study):
    """Final test accuracy by arm and seed."""
    return {(r.arm, r.seed): r.epochs[-1].metrics["test_acc"] for r in simulated_results(study)}


def test_the_same_trial_has_the_same_records():
    study = simulated_study({"a": {}, "b": {"mean": 0.82}}, seeds=2)
    records = [[list(simulate(TrialContext(trial))) for trial in plan(study)] for _ in range(2)]
    assert records[0] == records[1]


def test_an_arm_keeps_its_numbers_whatever_stands_beside_it():
    few, many = simulated_study({"a": {}}, seeds=2), simulated_study({"z": {}, "a": {}}, seeds=5)
    assert finals(few) == {key: value for key, value in finals(many).items() if key[0] == "a" and key[1] < 2}


def test_arms_of_a_seed_share_its_effects_and_differ_by_their_means():
    arms = {"a": {"noise_sd": 0.0}, "b": {"noise_sd": 0.0, "mean": 0.85}}
    values = finals(simulated_study(arms, seeds=5))
    assert [values["b", seed] - values["a", seed] for seed in range(5)] == pytest.approx([0.05] * 5)
    assert np.std([values["a", seed] for seed in range(5)]) > 0.001


def test_best_is_final_and_training_accuracy_lies_above():
    (result,) = simulated_results(simulated_study({"a": {"gap": 0.1, "gap_sd": 0.0}}, seeds=1, epochs=5))
    accuracies = [record.metrics["test_acc"] for record in result.epochs]
    assert accuracies == sorted(accuracies)
    assert result.epochs[-1].metrics["train_acc"] == pytest.approx(accuracies[-1] + 0.1)


def test_gaps_and_times_spread_about_their_means():
    results = simulated_results(simulated_study({"a": {}}, seeds=200, epochs=2))
    last = [result.epochs[-1].metrics for result in results]
    gaps = [metrics["train_acc"] - metrics["test_acc"] for metrics in last]
    seconds = [metrics["train_seconds"] + metrics["eval_seconds"] for metrics in last]
    assert (np.mean(gaps), np.std(gaps)) == pytest.approx((0.05, 0.003), rel=0.2)
    assert np.mean(seconds) == pytest.approx(10.0, rel=0.01)
    assert np.std(seconds) == pytest.approx(0.1, rel=0.2)


def test_weights_and_order_have_effects_of_their_own():
    arm = {"noise_sd": 0.0, "weights_sd": 0.01, "order_sd": 0.0}
    study = simulated_study({"a": arm}, seeds=None, noise={"initial_weights": 2, "batch_orders": 3})
    values = {study.noise.of(seed): value for (_, seed), value in finals(study).items()}
    assert len(values) == 6
    assert len(set(values.values())) == 2
    assert all(values[0, order] == values[0, 0] for order in range(3))


def test_trials_diverge_and_fail_where_they_are_told_to():
    study = simulated_study({"a": {}, "b": {"diverge_seeds": [1], "fail_seeds": [2]}}, seeds=4, epochs=4)
    ends = [result.outcome for result in simulated_results(study) if result.arm == "b"]
    assert ends == [Outcome.FINISHED, Outcome.DIVERGED, Outcome.FAILED, Outcome.FINISHED]
    diverged = next(result for result in simulated_results(study) if result.outcome is Outcome.DIVERGED)
    assert 0 < len(diverged.epochs) < 4


def test_rates_are_rates():
    study = simulated_study({"a": {"diverge_rate": 0.25}}, seeds=400, epochs=1)
    diverged = sum(result.outcome is Outcome.DIVERGED for result in simulated_results(study))
    assert 70 < diverged < 130


@pytest.mark.parametrize("noise", ["normal", "heavy", "skewed"])
def test_arrays_have_the_means_and_spreads_that_were_asked_for(noise):
    arms = {"a": SimulatedArm(), "b": SimulatedArm(mean=0.9, noise=noise, noise_sd=0.02)}
    values = draw(arms, seeds=10, studies=20_000, rng=np.random.default_rng(1))
    assert values.shape == (20_000, 10, 2)
    differences = values[..., 1] - values[..., 0]
    assert differences.mean() == pytest.approx(0.1, abs=3e-4)
    assert differences.std() == pytest.approx(np.hypot(0.02, 0.005), rel=0.05)
    assert values[..., 0].std() == pytest.approx(np.sqrt(0.008**2 + 0.006**2 + 0.005**2), rel=0.02)


def test_arrays_have_gaps_where_trials_are_lost():
    arms = {"a": SimulatedArm(), "b": SimulatedArm(diverge_rate=0.2, fail_rate=0.1, diverge_seeds=(1, 9))}
    lost = np.isnan(draw(arms, seeds=4, studies=5_000, rng=np.random.default_rng(2)))
    assert not lost[..., 0].any()
    assert lost[:, 1, 1].all()
    assert lost[:, 0, 1].mean() == pytest.approx(0.28, abs=0.03)


def test_a_misspelled_parameter_is_told():
    (result,) = simulated_results(simulated_study({"a": {"maen": 0.5}}, seeds=1))
    assert result.outcome is Outcome.FAILED
    assert "params.maen: the simulated workload has mean, gap" in result.detail
    with pytest.raises(ValueError, match='noise = "white": must be one of normal, heavy, skewed'):
        SimulatedArm.of({"noise": "white"})


def test_it_runs_into_a_store_like_any_study():
    study = simulated_study({"a": {}, "b": SimulatedArm(mean=0.7, diverge_seeds=(0,))}, seeds=2)
    with fairtrial.SQLStore("fairtrial.db") as store:
        done = run(study, store=store, executor=executor())
    expected = simulated_results(study)
    assert [(r.arm, r.seed, r.epochs, r.fingerprints) for r in done.results] == [
        (r.arm, r.seed, r.epochs, r.fingerprints) for r in expected
    ]
    assert done.results[0].fingerprints == done.results[1].fingerprints


def test_it_needs_no_torch():
    code = (
        "import sys\nfrom fairtrial.testing import *\nsimulated_results(simulated_study({'a': {}}))\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_the_study_in_the_docstring_is_one():
    block = fairtrial.testing.__doc__.split("::\n")[1].split("In Python")[0]
    study = Study.from_toml('name = "simulated"\n' + textwrap.dedent(block))
    assert [arm.name for arm in study.arms] == ["baseline", "better", "wild"]
    assert SimulatedArm.of(study.arm("wild").settings.params).mean == 0.8


def results_of(**arm):
    study = simulated_study({"adam": {}, "sgd": arm}, seeds=4, evidence={"metric": "final_test_acc"})
    return fairtrial.StudyResults(study, simulated_results(study))


def test_a_gate_in_a_test_fails_with_its_summary():
    with pytest.raises(AssertionError, match=r"^Gate failed: simulated-gate@\w+, final test accuracy\n +sgd is worse"):
        assert_not_worse(results_of(mean=0.7), 0.01)
    assert assert_not_worse(results_of(mean=0.83), 0.01).exit_code == 0


def test_an_undecided_gate_fails_a_test_skips_it_or_lets_it_pass():
    runs = results_of(mean=0.815, noise_sd=0.01)
    with pytest.raises(AssertionError, match=r"^Gate undecided: "):
        assert_not_worse(runs, 0.001)
    with pytest.raises(unittest.SkipTest, match=r"^Gate undecided: "):
        assert_not_worse(runs, 0.001, undecided="skip")
    assert assert_not_worse(runs, 0.001, undecided="pass").exit_code == 2
    with pytest.raises(fairtrial.FairtrialError, match="undecided = 'ignore': must be"):
        assert_not_worse(runs, 0.001, undecided="ignore")


def test_a_gate_in_a_test_trains_what_is_missing():
    study = simulated_study({"adam": {}, "sgd": {"mean": 0.83}}, seeds={"min": 3, "max": 6})
    assert assert_not_worse(study, 0.01, executor=executor(), store="tests.db").trained == 6

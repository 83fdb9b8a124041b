"""The gate as it runs: what it trains, when it stops, what it says first, and what it refuses."""

import itertools
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import fairtrial
from fairtrial.callbacks import Callback
from fairtrial.errors import FairtrialError
from fairtrial.executors.inline import InlineExecutor
from fairtrial.gate import gate, gate_runs, save_baseline
from fairtrial.spec import Study, override
from fairtrial.stats.gate import Decision
from fairtrial.store.sql import SQLStore
from fairtrial.testing import executor, simulated_results, simulated_study

LOOP = """
import numpy as np

def train(trial):
    shared = np.random.default_rng([1, trial.weights_seed]).normal()
    own = np.random.default_rng([{stream}, trial.weights_seed]).normal()
    lr = trial.settings.params["lr"]
    trial.fingerprint(initial_weights="{stream}")
    for _ in range(trial.epochs):
        if {diverges}:
            from fairtrial import Diverged
            raise Diverged("as the test asks")
        yield {{"test_acc": 0.8 + 0.01 * shared + 0.003 * own - lr + {better}}}
"""
STUDY = """
name = "digits"
reference = "adam"
seeds = { min = 3, max = 12 }
training = { loop = "gated_loop:train", epochs = 2 }
params.lr = 0.01
[evidence]
metric = "final_test_acc"
[arms.adam]
[arms.sgd]
params.lr = 0.2
"""


VERSIONS = itertools.count()


class Trained(Callback):
    """Keeps the arm and seed of trials that start, in order."""

    def __init__(self):
        self.trials = []

    def on_trial_start(self, trial, machine):
        self.trials.append((trial.arm, trial.seed))


def write_loop(stream=1, better=0.0, diverges="False"):
    size = "#" * next(VERSIONS)  # a module in this process is read again if its file has another size, or second
    Path("gated_loop.py").write_text(LOOP.format(stream=stream, better=better, diverges=diverges) + size)


@pytest.fixture
def study(monkeypatch):
    """A study of a loop of the user's own, in this test's folder."""
    monkeypatch.delitem(sys.modules, "gated_loop", raising=False)  # of another test's folder
    write_loop()
    Path("digits.toml").write_text(STUDY)
    return fairtrial.load("digits.toml")


def gated(study, **options):
    return gate(study, **{"not_worse_than": 0.01, "baseline": "b.parquet", "executor": InlineExecutor()} | options)


def saved(study, seeds=12):
    return save_baseline(study, "b.parquet", seeds=seeds, executor=InlineExecutor())


def test_each_arm_stops_as_soon_as_it_is_decided():
    study = simulated_study(
        {"adam": {}, "much_worse": {"mean": 0.7}, "same": {"mean": 0.8005}}, seeds={"min": 3, "max": 12}
    )
    trained = Trained()
    found = gate(study, not_worse_than=0.01, executor=executor(), callbacks=[trained])
    assert found.decisions == {"much_worse": Decision.WORSE, "same": Decision.PASSED}
    assert (found.decision, found.exit_code) == (Decision.WORSE, 1)
    seeds = {row.arm: row.seeds for row in found.verdict.comparisons}
    assert seeds["much_worse"] == 3 < seeds["same"] < 12
    assert [arm for arm, _ in trained.trials].count("adam") == seeds["same"]
    assert [arm for arm, _ in trained.trials].count("much_worse") == 3
    assert found.trained == len(trained.trials)


def test_a_gate_shares_the_trials_of_its_study():
    study = simulated_study({"adam": {}, "sgd": {"mean": 0.7}}, seeds=3)
    fairtrial.run(study, store="s.db", executor=executor())
    assert gate(study, not_worse_than=0.01, store="s.db", executor=executor()).trained == 0


def test_the_same_code_passes_at_once_and_is_said_to_be_the_same(study):
    saved(study)
    found = gated(study, store="ci.db")
    assert found.exit_code == 0
    assert found.verdict.seeds == 3
    assert found.said[0].startswith("Nothing known differs from the baseline (b.parquet, 12 seeds saved on ")
    assert (
        "to the bit at all 3 seeds: the change under test changes nothing that is recorded." in found.verdict.alerts[0]
    )


def test_worse_code_fails_and_harmless_code_passes(study):
    saved(study)
    write_loop(stream=22, better=-0.05)
    worse = gated(study)
    assert worse.exit_code == 1
    assert worse.verdict.seeds < 12
    assert "other code: gated_loop.py has changed." in worse.said[0]
    write_loop(stream=333)
    harmless = gated(study)
    assert harmless.exit_code == 0
    assert 3 <= harmless.verdict.seeds <= 12


def test_a_changed_setting_is_said_first(study):
    saved(study)
    write_loop(stream=22)
    found = gated(fairtrial.load("digits.toml", ["arms.adam.params.lr=0.1"]))
    assert found.exit_code == 1
    assert "which may be the change under test: " in found.said[0]
    assert "params.lr 0.01, now 0.1" in found.said[0]


def test_other_initial_weights_at_a_seed_are_no_conflict_where_the_code_is_under_test(study):
    saved(study)
    write_loop(stream=22)
    found = gated(study)
    assert any("initial_weights: not those of adam_before, because the code is under test" in one
               for one in found.verdict.caveats + found.verdict.comparisons[0].caveats)  # fmt: skip


def test_code_that_changed_again_is_trained_again_in_the_same_store(study):
    saved(study)
    write_loop(stream=22, better=-0.05)
    first = gated(study)
    again = gated(study)
    assert (again.trained, again.exit_code) == (0, 1)
    assert f"{first.trained} trials of this code were in the store already" in again.said[1]
    write_loop(stream=4444, better=-0.06)
    assert gated(study).trained > 0


def test_the_plan_ends_with_the_baseline(study):
    saved(study, seeds=3)
    write_loop(stream=22, better=-0.011)
    found = gated(study, max_seeds=9, not_worse_than=0.008)
    assert found.verdict.looks == (3,)
    assert found.said[1] == "The plan ends at 3 seeds: the baseline has no more."
    if found.decision is Decision.UNDECIDED:
        assert found.ended == "all 3 seeds of the plan were trained"


def test_a_candidate_that_always_diverges_is_worse(study):
    saved(study)
    write_loop(stream=22, diverges="True")
    found = gated(study)
    assert found.exit_code == 1
    assert found.verdict.comparisons[0].by_failures


def test_one_diverged_run_keeps_a_change_from_passing(study):
    saved(study)
    write_loop(stream=22, better=0.05, diverges="trial.seed == 1")
    assert gated(study).exit_code == 2


def test_time_that_is_up_leaves_it_undecided_and_is_used_later(study):
    write_loop(stream=22, better=-0.004)
    study = fairtrial.load("digits.toml", ["arms.sgd.params.lr=0.014"])
    options = {"baseline": None, "not_worse_than": 0.002, "store": "s.db"}
    found = gated(study, **options, max_seconds=1e-9)
    assert found.exit_code == 2
    assert found.ended == "the time of 1e-09 s was up"
    ended = {row.outcome for row in fairtrial.open_results(Study.from_dict(_gate_table(study)), store="s.db").results}
    assert ended
    later = gated(study, **options)
    assert later.verdict.seeds > found.verdict.seeds
    assert "the time" not in later.ended


def _gate_table(study):
    from fairtrial.gate.studies import arms_study

    return arms_study(study, 0.002).to_dict()


def test_results_that_there_are_get_one_look():
    study = simulated_study({"adam": {}, "sgd": {"mean": 0.7}}, seeds=5)
    runs = fairtrial.StudyResults(study, simulated_results(study))
    found = gate_runs(runs, not_worse_than=0.01)
    assert (found.verdict.looks, found.exit_code) == ((5,), 1)


def test_lower_is_better_for_a_loss():
    study = simulated_study({"adam": {}, "sgd": {"mean": 0.7}}, seeds=5, evidence={"metric": "final_test_loss"})
    runs = fairtrial.StudyResults(study, simulated_results(study))
    assert gate_runs(runs, not_worse_than=0.01).exit_code == 1
    turned = Study.from_dict(override(study.to_dict(), ["reference=sgd"]))
    assert gate_runs(replace(runs, study=turned), not_worse_than=0.01).exit_code == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["evidence.metric=best_test_acc"], "evidence.metric final_test_acc, now best_test_acc; save a new one"),
        (["noise.first_seed=5"], "noise.first_seed not set, now 5"),
        (["reference=sgd"], "b.parquet: has the runs of arm adam, but the study's reference is sgd"),
    ],
)
def test_a_baseline_that_was_measured_otherwise_is_refused_before_training(study, changes, message):
    saved(study, seeds=3)
    with pytest.raises(FairtrialError, match=message):
        gated(fairtrial.load("digits.toml", changes))


def test_a_study_without_a_second_arm_is_refused():
    study = simulated_study({"adam": {}}, seeds=5)
    with pytest.raises(FairtrialError, match="has no arm but adam; --save stores its runs"):
        gate(study, not_worse_than=0.01, executor=executor())


def test_one_seed_is_refused():
    study = simulated_study({"adam": {}, "sgd": {"mean": 0.7}}, seeds=1)
    with pytest.raises(FairtrialError, match="one seed shows no spread; allow more with --max-seeds"):
        gate(study, not_worse_than=0.01, executor=executor())


def test_the_numbers_are_those_of_a_paired_one_sided_t_test():
    """At a single look of one arm, where no correction is needed."""
    from scipy import stats

    study = simulated_study({"adam": {}, "sgd": {"mean": 0.795}}, seeds=6, evidence={"metric": "final_test_acc"})
    results = simulated_results(study)
    (row,) = gate_runs(fairtrial.StudyResults(study, results), not_worse_than=0.02).verdict.comparisons
    values = {arm: [one.epochs[-1].metrics["test_acc"] for one in results if one.arm == arm] for arm in ("adam", "sgd")}
    differences = np.subtract(values["sgd"], values["adam"])
    expected = stats.ttest_1samp(differences, 0.0).confidence_interval(0.90)
    np.testing.assert_allclose(row.interval, expected, rtol=1e-12)


def test_a_baseline_in_a_store_of_its_own_is_only_read(study):
    saved(study)
    before = Path("b.parquet").read_bytes()
    write_loop(stream=22)
    with SQLStore("ci.db") as store:
        assert gated(study, store=store).exit_code in {0, 2}
    assert Path("b.parquet").read_bytes() == before


def test_runs_that_are_not_paired_are_judged_by_welchs_intervals():
    study = simulated_study(
        {"adam": {}, "sgd": {"mean": 0.7}, "same": {"mean": 0.802}},
        seeds=12,
        evidence={"paired": False, "metric": "final_test_acc"},
    )
    runs = fairtrial.StudyResults(study, simulated_results(study))
    found = gate_runs(runs, not_worse_than=0.03)
    assert found.decisions == {"sgd": Decision.WORSE, "same": Decision.PASSED}
    assert gate_runs(runs, not_worse_than=1e-6).decisions["same"] is Decision.UNDECIDED

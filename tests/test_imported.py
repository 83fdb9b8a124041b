"""Runs from elsewhere as a study: what is said of them, and the same numbers by hand."""

import json
import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import fairtrial as ft
from fairtrial.errors import RunsError, StudyError
from fairtrial.spec import Study
from fairtrial.trial import Outcome

rng = np.random.default_rng(4)
#: Five seeds of two arms.
FRAME = pd.DataFrame(
    [
        {"optimizer": arm, "seed": seed, "test_acc": mean + 0.01 * rng.standard_normal(), "lr": rate}
        for arm, mean, rate in (("adam", 0.80, 0.001), ("sgd", 0.83, 0.1))
        for seed in range(5)
    ]
)
ASKED = {"arm": "optimizer", "seed": "seed", "measure": "test_acc", "reference": "adam"}


def judged(table, **asked):
    return ft.judge_runs(pd.DataFrame(table), **{**ASKED, **asked})


def refusal(table, **asked):
    with pytest.raises(RunsError) as error:
        judged(table, **asked)
    assert "\n" not in str(error.value)
    return str(error.value)


def alerts(view):
    return "\n".join(view.data.alerts)


def test_paired_runs_are_judged_as_by_hand():
    verdict = judged(FRAME, margin=0.01).data
    by_seed = FRAME.pivot_table(index="seed", columns="optimizer", values="test_acc")
    by_hand = stats.ttest_rel(by_seed["sgd"], by_seed["adam"])
    [row] = verdict.comparisons
    assert row.interval == pytest.approx(tuple(by_hand.confidence_interval(0.95)))
    assert row.p_adjusted == pytest.approx(by_hand.pvalue, rel=1e-3)
    assert (row.verdict.value, row.seeds, verdict.margin) == ("better", 5, 0.01)


def test_the_first_lines_say_what_is_unknown():
    view = judged(FRAME)
    first = " ".join(view.text(200).splitlines()[:4])
    assert first.startswith("Exploratory: these runs were made elsewhere, and what was set beforehand is unknown.")
    assert "10 runs of the data frame, made elsewhere: how often they were looked at is unknown" in first
    assert "one look at a number of runs that was fixed beforehand" in first
    assert "Beside optimizer, arms differ in lr (adam 0.001; sgd 0.1)." in view.text(200)
    assert not view.data.set_beforehand
    table = json.loads(view.json())
    assert table["alerts"] == list(view.data.alerts)
    assert table["exploratory"]
    assert view.text(200).count("made elsewhere: how often") == 1


def test_a_study_that_is_not_imported_has_the_hash_that_it_had():
    assert ft.load("quick").label == "quick@943dd38e"
    runs = ft.import_runs(FRAME, **ASKED)
    assert Study.from_toml(runs.study.to_toml()).hash == runs.study.hash
    assert runs.study.imported.seeds == ("0", "1", "2", "3", "4")


def test_other_runs_are_other_trials():
    changed = FRAME.assign(test_acc=FRAME["test_acc"] + 0.001)
    one, other = (ft.import_runs(table, **ASKED) for table in (FRAME, changed))
    assert not {run.trial for run in one.results} & {run.trial for run in other.results}


def test_runs_that_share_no_seeds_are_not_paired():
    table = FRAME.assign(seed=range(10))
    view = judged(table)
    assert "Runs are not paired, because all arms share no seed." in alerts(view)
    arms = [table["test_acc"][table["optimizer"] == arm] for arm in ("sgd", "adam")]
    by_hand = stats.ttest_ind(*arms, equal_var=False).confidence_interval(0.95)
    [row] = view.data.comparisons
    assert row.mean_difference == pytest.approx(arms[0].mean() - arms[1].mean())
    low, high = row.interval
    assert low <= by_hand.low + 1e-9  # at least as wide as Welch's, which errs with few runs
    assert high >= by_hand.high - 1e-9
    unnamed = judged(FRAME, seed=None)
    assert "no column of seeds is named; --seed seed would pair them" in alerts(unnamed)
    assert unnamed.data.comparisons[0].mean_difference == pytest.approx(row.mean_difference)


def test_seeds_that_some_arms_lack_are_left_out_and_named():
    view = judged(FRAME.drop([8, 9]))
    assert view.data.comparisons[0].seeds == 3
    assert (
        "Only 3 of 5 seeds are those of every arm, and only these are compared. Left out: 2 runs of adam ("
        in alerts(view)
    )


def test_a_column_for_each_arm_is_paired_by_row():
    wide = FRAME.pivot_table(index="seed", columns="optimizer", values="test_acc")
    wide = pd.DataFrame({"adam": [*wide["adam"]], "sgd": [*wide["sgd"]]})
    view = judged(wide, arm=None, seed=None, wide="adam,sgd")
    assert view.data.comparisons[0].interval == pytest.approx(judged(FRAME).data.comparisons[0].interval)
    assert "Runs are paired by row; whether those of one row share" in alerts(view)
    assert "there." not in alerts(view)


def test_seeds_with_other_numbers_are_named():
    assert "Seeds 0 to 4 are 42, 43, 44, 45, 46 there." in alerts(judged(FRAME.assign(seed=FRAME["seed"] + 42)))
    assert "there." not in alerts(judged(FRAME))


def test_runs_without_a_value_are_lost():
    broken = FRAME.astype({"test_acc": object})
    broken.loc[5, "test_acc"] = None
    broken.loc[6, "test_acc"] = "inf"
    view = judged(broken)
    assert view.data.lost == {"sgd": {"failed": 1, "not finite": 1}}
    assert "1 run without a value of test_acc lost, like failed ones." in alerts(view)
    [lost] = ft.import_runs(broken, **ASKED).failures()
    assert (lost.outcome, lost.detail) == (Outcome.FAILED, "the data frame: no value of test_acc")


def test_repeated_measurements_do_not_pass_for_runs():
    episodes = pd.concat([FRAME.assign(episode=n, test_acc=FRAME["test_acc"] + 0.001 * n) for n in range(75)])
    view = judged(episodes, group="episode")
    assert view.data.comparisons[0].seeds == 5
    assert view.data.comparisons[0].interval == pytest.approx(judged(FRAME).data.comparisons[0].interval)
    assert "750 rows of 10 runs are repeated measurements (episode)" in alerts(view)
    assert "75 rows" not in refusal(episodes)
    assert "only 5 different values" in refusal(episodes, seed=None)


def test_arms_of_one_run_are_said():
    copied = FRAME.assign(test_acc=list(FRAME["test_acc"][:5]) * 2)
    [line] = [line for line in judged(copied).data.alerts if "identical" in line]
    assert line.endswith("to the bit at all 5 seeds: are they the same runs under two names?")


CURVES = pd.concat([FRAME.assign(epoch=epoch, test_acc=FRAME["test_acc"] * epoch / 3) for epoch in (1, 2, 3)])


def test_measures_over_epochs():
    best, mean = (judged(CURVES, measure=m, epoch="epoch").data for m in ("best_test_acc", "mean_last_2_test_acc"))
    difference = FRAME["test_acc"][5:].mean() - FRAME["test_acc"][:5].mean()
    assert best.comparisons[0].mean_difference == pytest.approx(difference)
    assert mean.comparisons[0].mean_difference == pytest.approx(difference * 5 / 6)
    assert (best.metric, mean.metric) == ("best_test_acc", "mean_last2_test_acc")


def test_a_column_may_be_a_measure_over_epochs_already():
    verdict = judged(FRAME.rename(columns={"test_acc": "best_test_acc"}), measure="best_test_acc").data
    assert (verdict.metric, verdict.unit.name) == ("best_test_acc", "%")


def test_trainings_of_different_lengths_are_said():
    short = CURVES[~((CURVES["epoch"] == 3) & (CURVES["optimizer"] == "sgd") & (CURVES["seed"] < 2))]
    text = alerts(judged(short, measure="final_test_acc", epoch="epoch"))
    assert "Not all runs end at epoch 3: 2 runs of sgd at 2; final values compare" in text
    assert "Trials ended early" not in text
    text = alerts(judged(short, measure="best_test_acc", epoch="epoch"))
    assert "2 runs of sgd at 2; the best of more epochs is better by luck alone." in text
    assert "Not all runs" not in alerts(judged(CURVES, measure="best_test_acc", epoch="epoch"))


def test_records_of_imported_runs_are_not_read_as_jitter():
    many = pd.concat([FRAME.assign(step=step, test_acc=FRAME["test_acc"] + 0.01 * rng.random(10)) for step in range(9)])
    assert "jitter" not in judged(many, measure="final_test_acc", epoch="step").text()


@pytest.mark.parametrize("seed", [None, "episode"])
def test_rows_that_may_be_episodes_are_said(seed):
    episodes = FRAME.rename(columns={"seed": "episode"})
    told = "if episode tells measurements of one run apart, they are no independent runs: write --group episode"
    assert told in alerts(judged(episodes, seed=seed))
    assert "independent" not in alerts(judged(FRAME))


def test_failed_runs_of_seeds_that_are_left_out_are_said():
    extra = pd.DataFrame([{"optimizer": "sgd", "seed": 5, "test_acc": None, "lr": 0.1}])
    text = alerts(judged(pd.concat([FRAME, extra])))
    assert "Of these, 1 run failed, which counts for nothing here." in text
    assert "which counts for nothing" not in alerts(judged(FRAME.drop([8, 9])))


def test_fractions_among_percent_are_said():
    mixed = FRAME.copy()
    mixed.loc[mixed["optimizer"] == "sgd", "test_acc"] *= 100
    assert "All values of adam are at most 1" in alerts(judged(mixed, unit="percent"))
    assert "at most 1" not in alerts(judged(FRAME.assign(test_acc=100 * FRAME["test_acc"]), unit="percent"))


def test_a_table_of_runs_of_mlflow_is_read_as_its_metrics_are_called():
    table = FRAME.rename(columns=lambda name: {"test_acc": "metrics.test_acc"}.get(name, f"params.{name}"))
    table = table.assign(run_id=[f"r{row}" for row in range(10)], experiment_id="0")
    asked = {"arm": "params.optimizer", "measure": "metrics.test_acc"}
    paired, unpaired = (judged(table, seed=seed, **asked).data for seed in ("params.seed", None))
    assert paired.comparisons[0].interval == pytest.approx(judged(FRAME).data.comparisons[0].interval)
    assert (paired.unit.name, unpaired.paired) == ("%", False)


def test_columns_that_were_not_looked_at_are_counted(monkeypatch):
    monkeypatch.setattr("fairtrial.importers.settings.MOST_COLUMNS", 1)
    assert "Whether arms differ in 1 further column was not looked at." in alerts(judged(FRAME.assign(wd=0.1)))


@pytest.mark.parametrize(
    ("column", "factor", "asked", "line"),
    [
        ("test_acc", 100, {}, "looks like percent; write --unit percent, and a margin in points (or --unit plain)"),
        ("eval_f1", 100, {"direction": "higher"}, "looks like percent; write --unit percent"),
        ("test_acc", -1, {}, "must be from 0 to 1; write --unit plain"),
        ("test_acc", 1000, {"unit": "percent"}, "must be from 0 to 100; write --unit plain"),
        ("score", 1, {}, '--direction: is missing; say whether "score" is better higher or lower'),
        ("test_acc", 1, {"direction": "lower"}, '--direction lower: "test_acc" is better higher; leave it out'),
        ("test_acc", 1, {"margin": 1.0}, "--margin = 1: must be below 1: final_test_acc is a fraction; write 0.01"),
        ("test_acc", 1, {"margin": -1.0}, "--margin = -1.0: must be"),
        ("test_acc", 1, {"unit": "points"}, '--unit "points": must be one of fraction, percent, seconds, plain'),
        ("test_acc", 1, {"reference": "adm"}, '--reference "adm": no arm has that name; did you mean `adam`?'),
        ("test_acc", 1, {"reference": None}, "--reference: is missing; the arms are adam, sgd"),
    ],
    ids=range(11),
)
def test_numbers_and_options_that_do_not_fit(column, factor, asked, line):
    table = FRAME.rename(columns={"test_acc": column})
    table[column] *= factor
    assert line in refusal(table, measure=column, **asked)


@pytest.mark.parametrize("column", ["test_acc", "eval/accuracy"])
def test_percent_stays_percent(column):
    table = FRAME.rename(columns={"test_acc": column})
    table[column] *= 100
    view = judged(table, measure=column, unit="percent", margin=0.5)
    [row] = view.data.comparisons
    assert row.mean_difference == pytest.approx(100 * judged(FRAME).data.comparisons[0].mean_difference)
    assert f"by {row.mean_difference:.2f} points" in view.text()
    assert view.data.larger_is_better


def test_a_loss_is_better_lower():
    view = judged(FRAME.rename(columns={"test_acc": "eval_loss"}), measure="eval_loss")
    assert view.data.comparisons[0].verdict.value == "worse"
    lower = judged(FRAME.rename(columns={"test_acc": "perplexity"}), measure="perplexity", direction="lower")
    assert lower.data.comparisons[0].verdict.value == "worse"


HOSTILE = ["=1+1", "a\x1b[2J\nb", "../../x", "\u202ea", "<script>", "A" * 300, "A" * 299, "a b", "a-b", "\\write18{id}"]


def test_hostile_arms_get_safe_names_and_keep_their_labels():
    table = {
        "optimizer": np.repeat(HOSTILE, 2),
        "seed": [0, 1] * len(HOSTILE),
        "test_acc": rng.random(2 * len(HOSTILE)),
    }
    runs = ft.import_runs(pd.DataFrame(table), **{**ASKED, "reference": "=1+1"})
    names = [arm.name for arm in runs.study.arms]
    assert len(set(names)) == len(HOSTILE)
    assert runs.study.arm("a-b").label == ""
    assert runs.study.arm("a-b-2").label == "a b"
    view = runs.verdict()
    for written in (view.text(), view.markdown(), view.latex(), view.html(), view.json()):
        assert not {"\x1b", "\u202e"} & set(written)
    assert "a\\u001b[2J\\nb" in view.text(200)


def test_combinations_of_columns():
    table = pd.concat([FRAME, FRAME.assign(lr=1.0, test_acc=FRAME["test_acc"] + 0.1)])
    view = judged(table, arm="optimizer,lr", reference="adam,0.001")
    assert [row.arm for row in view.labeled.data.comparisons] == ["sgd, 0.1", "adam, 1", "sgd, 1"]


@pytest.mark.slow  # as any study of so many arms
def test_a_thousand_arms_have_verdicts():
    arms = [f"arm {number}" for number in range(1_000)]
    table = {"optimizer": np.repeat(arms, 2), "seed": [0, 1] * 1_000, "test_acc": rng.random(2_000)}
    assert len(judged(table, reference="arm 0").data.comparisons) == 999


def test_what_was_made_elsewhere_is_not_trained():
    runs = ft.import_runs(FRAME, **ASKED)
    with pytest.raises(StudyError, match=r"its runs were made elsewhere, and fairtrial can't train more of them"):
        ft.run(runs.study, store="new.db", executor=ft.InlineExecutor())


def test_results_are_those_of_any_study():
    runs = ft.import_runs(CURVES, **{**ASKED, "measure": "best_test_acc"}, epoch="epoch")
    assert repr(runs).endswith("10 of 10 trials>")
    assert "adam" in runs.table().text()
    frame = runs.to_pandas()
    assert len(frame) == 30
    assert math.isclose(frame["test_acc"].max(), CURVES["test_acc"].max())
    assert {figure.name for figure in runs.plots()} >= {"differences", "test_accuracy"}

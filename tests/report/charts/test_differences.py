"""The picture behind the verdicts: its numbers are theirs, and the drawing shows them all."""

import json
from dataclasses import replace

import pytest

from fairtrial.errors import ReportError
from fairtrial.report.chart_options import ChartOptions
from fairtrial.report.charts import draw
from fairtrial.report.charts.differences import difference_data, words
from fairtrial.stats.comparison import compare
from fairtrial.testing import simulated_results, simulated_study

ARMS = {"ref": {}, "low": {"mean": 0.7}, "near": {"mean": 0.801}, "half": {"mean": 0.7, "diverge_seeds": [1]}}


def make(arms=ARMS, seeds=5, **sections):
    study = simulated_study(arms, seeds=seeds, **sections)
    return study, simulated_results(study)


def layers(study, results, **options):
    """The rows of each layer that draws something, as mark and rows, and the whole specification."""
    (figure,) = draw(["differences"], study, results, options=ChartOptions(**options))
    whole = figure.chart.to_dict()
    return [(layer["mark"], json.loads(whole["datasets"][layer["data"]["name"]])) for layer in whole["layer"]], whole


def rows(found, kind, **mark):
    """All rows of the layers of a kind of mark with such properties."""
    return [
        row
        for own, its in found
        if own["type"] == kind and all(own.get(key) == value for key, value in mark.items())
        for row in its
    ]


def caption(study, results):
    return draw(["differences"], study, results)[0].caption


def test_the_numbers_are_those_of_the_verdicts():
    study, results = make()
    data, found = difference_data(study, results), compare(study, results)
    values = {(one.arm, one.seed): max(record.metrics["test_acc"] for record in one.epochs) for one in results}
    for arm, row in zip(data.arms, found.comparisons, strict=True):
        assert (arm.arm, arm.mean, arm.interval, arm.verdict) == (
            row.arm,
            row.mean_difference,
            row.interval,
            row.verdict.value,
        )
        assert len(arm.by_seed) == row.seeds
        for seed, difference in arm.by_seed.items():
            assert difference == pytest.approx(values[arm.arm, seed] - values["ref", seed])
    assert [arm.arm for arm in data.arms] == ["low", "near", "half"]
    assert 1 not in data.arms[2].by_seed
    assert data.arms[2].lost == ("1 diverged",)


def test_an_arm_that_settled_early_shows_the_seeds_of_its_verdict():
    study, results = make({"ref": {}, "low": {"mean": 0.5}, "near": {}}, seeds={"min": 3, "max": 6})
    low = difference_data(study, results).arms[0]
    assert (low.verdict, list(low.by_seed)) == ("worse", [0, 1, 2])


def test_every_number_is_drawn_in_points():
    study, results = make(evidence={"margin": 0.02})
    found, whole = layers(study, results)
    assert rows(found, "rect") == [{"start": -2.0, "end": 2.0, "margin": "2.00 points"}]
    assert rows(found, "rule", style="ink") == [{"x": 0.0}]
    data = difference_data(study, results)
    seeds = {(row["arm"], row["seed"]): row["x"] for row in rows(found, "point", style="faint")}
    assert seeds == pytest.approx({(a.arm, seed): 100 * v for a in data.arms for seed, v in a.by_seed.items()})
    points = {row["arm"]: row["start"] for row in rows(found, "point", filled=True)}
    assert points == pytest.approx({arm.arm: 100 * arm.mean for arm in data.arms})
    bars = {row["arm"]: (row["start"], row["end"]) for row in rows(found, "rule", strokeWidth=2.4)}
    for arm in data.arms:
        assert bars[arm.arm] == pytest.approx([100 * end for end in arm.interval])
    low, high = next(layer["encoding"]["x"]["scale"]["domain"] for layer in whole["layer"] if "x" in layer["encoding"])
    assert all(low < ends[0] < ends[1] < high for ends in bars.values())
    words = {row["arm"]: row["words"] for row in rows(found, "text", fontWeight="bold")}
    assert words == {"low": "worse", "near": "equivalent", "half": "worse; 1 diverged"}
    numbers = {row["arm"]: row["words"] for row in rows(found, "text", style="text")}
    assert numbers["low"].startswith("−9.")
    assert "within 2.00 points" in whole["title"]["subtitle"][1]


def test_rows_are_in_the_order_of_the_file():
    study, results = make()
    _, whole = layers(study, results)
    scales = [layer["encoding"]["y"]["sort"] for layer in whole["layer"] if "y" in layer["encoding"]]
    assert scales[0] == ["low", "near", "half"]


def test_verdicts_are_told_apart_by_shape_and_by_style():
    found, _ = layers(*make(evidence={"margin": 0.02}))
    looks = {(mark["style"], mark["shape"]) for mark, _ in found if mark["type"] == "point" and mark.get("filled")}
    assert looks == {("worse", "triangle-down"), ("equivalent", "circle")}


def test_an_undecided_arm_says_how_many_more_seeds_it_needs():
    study, results = make({"ref": {}, "a": {"mean": 0.806}}, seeds={"min": 3, "max": 60})
    early = [one for one in results if one.seed < 3]
    (arm,) = difference_data(study, early).arms
    more = compare(study, early).comparisons[0].more_seeds
    assert arm.words == f"undecided: about {more} more seeds"


def test_a_lost_trial_is_a_cross_at_the_worse_edge():
    study, results = make()
    crosses = [row for mark, its in layers(study, results)[0] if str(mark.get("shape")).startswith("M") for row in its]
    assert [row["arm"] for row in crosses] == ["half"]
    assert crosses[0]["at"] < 20
    assert "× at the edge: a trial without a result" in caption(study, results)
    lower, results = make(evidence={"metric": "final_train_loss"})
    crosses = [row for mark, its in layers(lower, results)[0] if str(mark.get("shape")).startswith("M") for row in its]
    assert crosses[0]["at"] > 400


def test_losses_of_the_reference_are_said():
    study, results = make({"ref": {"diverge_seeds": [0]}, "a": {}})
    assert "ref: 1 diverged." in caption(study, results)


def test_an_arm_far_off_does_not_squash_the_others_and_an_arrow_says_so():
    arms = {"ref": {}, "a": {"mean": 0.801}, "b": {"mean": 0.799}, "bad": {"mean": 0.3}}
    study, results = make(arms)
    found, whole = layers(study, results)
    low, high = next(layer["encoding"]["x"]["scale"]["domain"] for layer in whole["layer"] if "x" in layer["encoding"])
    assert high - low < 12
    arrows = [row for row in rows(found, "point", shape="triangle-up") if "turn" in row]
    assert [(row["arm"], row["start"], row["turn"]) for row in arrows] == [("bad", low, -90)]
    (bar,) = [row for row in rows(found, "rule", strokeWidth=2.4) if row["arm"] == "bad"]
    own = difference_data(study, results).arms[-1]
    assert bar["start"] == low
    said = {key: text.replace("−", "-") for key, text in bar.items() if isinstance(text, str)}
    assert said["95% interval (points)"] == "{:.2f} to {:.2f}".format(*(100 * end for end in own.interval))
    assert said["mean difference (points)"] == f"{100 * own.mean:.2f}"
    assert arrows[0]["95% interval (points)"] == bar["95% interval (points)"]
    assert any(
        row["arm"] == "bad" and row["words"].startswith(("−4", "−5")) for row in rows(found, "text", style="text")
    )
    assert "Arrow: goes on beyond the axis" in caption(study, results)


def test_the_title_has_no_hash_and_the_caption_has():
    study, results = make()
    (figure,) = draw(["differences"], study, results)
    assert figure.title == "Best test accuracy: difference from ref"
    assert study.hash[:8] not in json.dumps(figure.chart.to_dict()["title"])
    assert figure.caption.endswith(f"Study: {study.label}.")


def test_the_alternative_text_says_each_verdict():
    study, results = make(evidence={"margin": 0.02})
    alt = draw(["differences"], study, results)[0].alt
    assert alt.startswith(
        "Difference of each arm from ref in points, best test accuracy, with its interval: low is worse,"
    )
    assert "near is equivalent" in alt
    assert "half is worse; 1 diverged" in alt


def subtitle(found, study, results):
    data = replace(difference_data(study, results), found=found)
    return words(study, data).lines


def test_the_lines_say_what_the_first_line_of_the_verdicts_does():
    study, results = make(evidence={"margin": 0.02})
    found = replace(difference_data(study, results).found, set_beforehand=True)
    assert subtitle(found, study, results)[1].endswith("within 2.00 points, the margin that the study set beforehand.")
    late = replace(found, set_beforehand=False, exploratory=("the margin 0.02 was set after 20 trials had ended",))
    first, _, last, *_ = subtitle(late, study, results)
    assert (first, "beforehand" in last) == ("Exploratory.", False)
    alert = "Not one experiment: loop.py changed between trials " + ", then seed 1" * 20
    first, *_ = subtitle(replace(late, alerts=(alert, "Another.")), study, results)
    assert first.startswith("Exploratory. Not one experiment: loop.py changed")
    assert first.endswith(" ...")
    assert len(first) <= 220


def test_without_a_margin_there_is_no_band_and_without_spread_no_bar():
    study, results = make({"ref": {}, "low": {"mean": 0.7}}, seeds=1)
    found, whole = layers(study, results)
    assert (rows(found, "rect"), rows(found, "rule", strokeWidth=2.4)) == ([], [])
    assert "no spread" in whole["title"]["subtitle"][0]
    assert whole["title"]["subtitle"][1] == "Higher is better."


def test_a_margin_on_the_worse_side_alone():
    study, results = make(evidence={"not_worse_than": 0.02})
    assert rows(layers(study, results)[0], "rect") == [{"start": -2.0, "end": 0.0, "margin": "2.00 points"}]
    assert "Shaded: on the worse side within 2.00 points, the margin." in caption(study, results)


def test_of_a_loss_lower_is_better():
    _, whole = layers(*make(evidence={"metric": "final_train_loss"}))
    assert whole["title"]["subtitle"][1] == "Lower is better."
    titles = {layer["encoding"]["x"]["title"] for layer in whole["layer"] if "title" in layer["encoding"].get("x", {})}
    (title,) = titles
    assert title.split() == ["←", "better", "Arm", "minus", "ref", "worse", "→"]


def test_a_refused_arm_has_no_numbers_and_says_so():
    study, results = make()
    results[-1].fingerprints["batch_order"] = "another"
    arm = difference_data(study, results).arms[-1]
    assert (arm.verdict, arm.words, arm.mean, arm.by_seed) == ("refused", "refused; 1 diverged", None, {})


def test_when_all_trials_of_an_arm_diverged_that_is_drawn():
    study, results = make({"ref": {}, "dead": {"diverge_rate": 1.0}})
    found, _ = layers(study, results)
    assert {row["words"] for row in rows(found, "text", fontWeight="bold")} <= {
        "undecided; 5 diverged",
        "worse: fails more often; 5 diverged",
    }
    assert not rows(found, "point", filled=True)


@pytest.mark.parametrize("arms", [{"ref": {}}])
def test_without_a_pair_there_is_nothing_to_draw(arms):
    with pytest.raises(ReportError, match="no arm has a seed at which it and ref have a result"):
        difference_data(*make(arms))


def test_of_unpaired_runs_each_is_drawn_minus_the_mean_of_the_references():
    study, results = make(evidence={"paired": False})
    values = {(one.arm, one.seed): max(record.metrics["test_acc"] for record in one.epochs) for one in results}
    mean = sum(values["ref", seed] for seed in range(5)) / 5
    low = difference_data(study, results).arms[0]
    assert low.by_seed == pytest.approx({seed: values["low", seed] - mean for seed in range(5)})
    assert sum(low.by_seed.values()) / 5 == pytest.approx(low.mean)
    assert "small circles: one run each, minus the mean." in caption(study, results)


@pytest.mark.parametrize(("number", "drawn"), [(5, 5), (12, 12), (30, 30), (60, 40)])
def test_many_arms_have_a_row_each_up_to_forty(number, drawn):
    arms = {"ref": {}} | {f"arm{at:02}": {"mean": 0.8 + (0.1 if at >= number - 3 else 0.0)} for at in range(number)}
    study, results = make(arms, seeds=2)
    found, whole = layers(study, results)
    names = {row["arm"] for row in rows(found, "text", fontWeight="bold")}
    assert len(names) == drawn
    assert names >= {arm.arm for arm in difference_data(study, results).arms if arm.verdict in {"better", "worse"}}
    assert whole["height"] / drawn >= 24
    assert (f"Not drawn: {number - drawn} more arms" in caption(study, results)) == (number > drawn)


def test_long_names_are_shortened_and_stay_apart():
    study, results = make({"ref": {}} | {f"{'x' * 45}{at}{'y' * 45}": {"arm": str(at)} for at in range(2)})
    names = [row["row"] for row in rows(layers(study, results)[0], "text", fontWeight="bold")]
    assert len(set(names)) == 2
    assert all(len(name) <= 44 for name in names)

"""Verdicts and claims as people and programs read them."""

import hashlib
import json
import re
from dataclasses import replace

import pytest

from builders import make_results, make_study
from fairtrial.errors import ReportError
from fairtrial.report.verdicts import sentence
from fairtrial.report.views import View
from fairtrial.results import StudyResults
from fairtrial.stats.claims import check_claims
from fairtrial.stats.comparison import compare
from fairtrial.stats.noise import split_noise
from fairtrial.testing import simulated_results, simulated_study

ARMS = {
    "baseline": {},
    "high_beta1": {"mean": 0.801},
    "low_beta2": {"mean": 0.78},
    "up": {"mean": 0.86},
    "very_high_smoothing": {"mean": 0.6, "diverge_seeds": [1]},
    "dead": {"diverge_rate": 1.0},
}
FORMATS = ["text", "markdown", "latex", "html", "json"]
CLAIMS = [
    {"id": "1", "text": "It is 5% worse & \\bad.", "arm": "low_beta2", "against": "baseline", "direction": "lower"},
    {"id": "2", "text": "None is better.", "arm": "baseline", "against": "all others", "direction": "higher"},
]


def verdict(arms=ARMS, seeds=5, metric=None, **sections):
    study = simulated_study(arms, seeds=seeds, **sections)
    return compare(study, simulated_results(study), metric=metric)


def claims(arms=ARMS, seeds=5, claims=CLAIMS, **sections):
    study = simulated_study(arms, seeds=seeds, claims=claims, **sections)
    return check_claims(study, simulated_results(study))


def write(found, form="text", noise=(), **options):
    return View(found, noise).write(form, **options)


def sentences(found):
    return {row.arm: sentence(found, row) for row in found.comparisons}


def test_a_verdict_is_a_sentence():
    said = sentences(verdict(evidence={"margin": 0.02}))
    assert re.fullmatch(
        r"up is better than baseline by \d\.\d\d points \(95% interval \d\.\d\d to \d\.\d\d\)", said["up"]
    )
    assert re.fullmatch(
        r"low_beta2 is worse than baseline by (\d\.\d\d) points \(95% interval 0\.\d\d to \d\.\d\d\)", said["low_beta2"]
    )
    assert said["high_beta1"].startswith("high_beta1 is equivalent to baseline within 2.00 points (")
    assert said["very_high_smoothing"].endswith("; diverged in 1 of 5 trials")
    assert said["dead"] == "dead: undecided, no seed has a result of it and baseline; diverged in 5 of 5 trials"


def test_before_a_seed_is_complete_no_arm_is_said_to_lack_results():
    study = simulated_study(ARMS, seeds=2)
    two = [result for result in simulated_results(study) if result.arm in {"baseline", "up"}]
    assert sentences(compare(study, two))["up"] == "up: undecided, no seed is complete yet"


def test_of_a_loss_better_is_lower_and_said_as_a_gain():
    said = sentences(verdict(evidence={"metric": "final_train_loss"}))
    assert re.match(r"up is better than baseline by 0\.\d{4} \(95% interval 0\.\d{4} to 0\.\d{4}\)", said["up"])


def test_a_verdict_by_failures_says_who_fails_and_how_the_arm_does_where_it_works():
    arms = {"a": {}, "frail": {"mean": 0.802, "diverge_seeds": list(range(8))}}
    said = sentences(verdict(arms, seeds=11))["frail"]
    assert re.fullmatch(
        r"frail is worse than a: it fails more often \(it at 8 of 11 seeds, a at 0, p 0\.\d{3}\); "
        r"\d\.\d\d points better, 95% interval -?\d\.\d\d to \d\.\d\d where both have a result; "
        r"diverged in 8 of 11 trials",
        said,
    )
    said = sentences(verdict({"a": {"diverge_rate": 1.0}, "sound": {}}, seeds=8))["sound"]
    assert re.match(r"sound is better than a: a fails more often \(it at 0 of 8 seeds, a at 8, p 0\.\d{3}\)", said)


def test_where_failures_and_numbers_say_the_opposite_the_first_line_has_both():
    arms = {"a": {"diverge_seeds": list(range(8))}, "sound": {"mean": 0.6}}
    said = sentences(verdict(arms, seeds=20))["sound"]
    assert re.fullmatch(
        r"sound: undecided, \d+\.\d\d points worse \(95% interval \d+\.\d\d to \d+\.\d\d\) where both have a result, "
        r"but a fails more often \(it at 0 of 20 seeds, a at 8, p 0\.\d{3}\)",
        said,
    )


def test_undecided_says_how_many_seeds_more():
    found = verdict({"baseline": {}, "near": {"mean": 0.806}}, seeds=4)
    (row,) = found.comparisons
    assert f"near: undecided, about {row.more_seeds} more seed" in sentence(found, row)


def test_the_json_is_the_contract():
    found = verdict(evidence={"margin": 0.02})
    table = json.loads(write(found, "json"))
    settings = {"study", "hash", "reference", "metric", "margin", "alpha", "looks", "seeds"}
    assert settings | {"exploratory", "caveats", "comparisons", "jitter"} <= set(table)
    assert (table["study"], table["reference"], table["metric"]) == ("simulated", "baseline", "best_test_acc")
    assert (table["exploratory"], table["caveats"]) == ([], list(found.caveats))
    assert list(table["comparisons"][0]) == [
        "arm",
        "seeds",
        "mean_difference",
        "interval",
        "p_adjusted",
        "effect_size",
        "probability_better",
        "smallest_detectable",
        "verdict",
        "more_seeds",
        "caveats",
        "failures",
        "by_failures",
    ]
    assert table["comparisons"][4]["failures"] | {"p_adjusted": 1.0, "highest_rate": 1.0} == {
        "seeds": 5,
        "arm": 5,
        "reference": 0,
        "only_arm": 5,
        "only_reference": 0,
        "p_adjusted": 1.0,
        "side": "arm",
        "highest_rate": 1.0,
    }
    up = table["comparisons"][2]
    assert (up["arm"], up["verdict"], up["more_seeds"]) == ("up", "better", None)
    assert up["interval"][0] < up["mean_difference"] < up["interval"][1] < 0.1
    assert set(found.caveats) <= set(up["caveats"])
    assert table["comparisons"][4]["interval"] is None


def test_json_has_the_code_of_a_measure_of_the_users_own(tmp_path, monkeypatch):
    source = (
        "from fairtrial.measures import PLAIN, Measure\n"
        "last = Measure('last', 'last', PLAIN, 'higher', lambda epochs: 1.0)\n"
    )
    (tmp_path / "measure_of_mine.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    table = json.loads(write(verdict(metric="measure_of_mine:last"), "json"))
    assert table["measure_code"] == {"measure_of_mine.py": hashlib.sha256(source.encode()).hexdigest()}
    assert "measure_code" not in json.loads(write(verdict(), "json"))


def test_the_json_of_claims_is_the_contract():
    reported = {"low_beta2": {"best_test_acc": 0.7}, "baseline": {"best_test_acc": 0.72}}
    table = json.loads(write(claims(reported=reported), "json"))
    assert {"study", "hash", "reference", "alpha", "looks", "exploratory", "caveats", "claims"} <= set(table)
    one, two = table["claims"]
    own = {"id", "text", "arm", "against", "metric", "verdict", "measured", "interval", "paper", "plausible"}
    assert own <= set(one)
    assert (one["arm"], one["against"], one["metric"]) == ("low_beta2", "baseline", "best_test_acc")
    assert (one["id"], one["verdict"], one["plausible"]) == ("1", "supported", True)
    assert one["paper"] == pytest.approx(-0.02)
    assert (two["verdict"], two["paper"], two["plausible"]) == ("contradicted", None, None)
    assert (one["decided_by"], two["decided_by"]) == ("baseline", "up")
    assert [row["against"] for row in two["differences"]] == [arm for arm in ARMS if arm != "baseline"]
    (decisive,) = [row for row in two["differences"] if row["against"] == "up"]
    assert (decisive["verdict"], decisive["measured"], decisive["interval"]) == (
        "contradicted",
        two["measured"],
        two["interval"],
    )
    lost = claims(claims=[{**CLAIMS[0], "arm": "very_high_smoothing"}])
    (claim,) = json.loads(write(lost, "json"))["claims"]
    assert claim["caveats"] == [lost.claims[0].decisive.note]
    assert "very_high_smoothing lost seed 1, which counts against it." in claim["caveats"][0]


@pytest.mark.parametrize("make", [verdict, claims])
@pytest.mark.parametrize("form", ["text", "markdown", "latex", "html"])
def test_what_makes_results_exploratory_is_their_first_line(make, form):
    found = replace(make(), exploratory=("the margin 0.02 was set after 6 trials had ended",))
    text = write(found, form, width=200) if form == "text" else write(found, form)
    said = "Exploratory: the margin 0.02 was set after 6 trials had ended."
    lines = [line for line in text.splitlines() if "simulated@" in line or said in line]
    assert said in lines[0]
    assert lines[0].find(said) < (lines[0].find("simulated@") if "simulated@" in lines[0] else len(lines[0]))
    assert json.loads(write(found, "json"))["exploratory"] == list(found.exploratory)


def test_a_look_after_others_is_said_to_be_one():
    found = verdict()
    said = (
        "These trials were looked at before; the intervals allow for all looks together, at a stricter level than a "
        "first look."
    )
    assert said not in write(found, width=200)
    assert said in write(replace(found, stage=2), width=200)
    assert said in write(replace(found, stage=2, exploratory=("the margin 0.02 was set afterwards",)), width=200)
    assert said in write(replace(claims(), stage=2), width=200)


@pytest.mark.parametrize("make", [verdict, claims])
def test_with_the_error_rate_spent_no_text_promises_any(make):
    arms = {"baseline": {}, "low_beta2": {"mean": 0.806}}
    found = make(arms)
    spent = replace(found, stage=2, spent=("low_beta2",), exploratory=("a plan of 3 to 4 seeds spent the error rate",))
    text, before = write(spent, width=300), write(found, width=300)
    for promise in ("With 95% probability", "allow for all looks together", "more seed", "is final"):
        assert promise not in text
    assert "With 95% probability" in before
    assert "these intervals do not allow for them" in text
    assert "A test needs fresh seeds: run it with --confirm." in text
    assert json.loads(write(spent, "json"))["spent"] == ["low_beta2"]


def test_a_margin_was_set_beforehand_only_where_that_is_known():
    found = verdict(evidence={"margin": 0.02})
    assert "the margin of the study." in write(found, width=200)
    assert "the margin that the study set beforehand." in write(replace(found, set_beforehand=True), width=200)


def test_joint_claims_are_below_their_parts():
    joint = {"id": "both", "text": "Worse, and none is better.", "all": ["1", "2"]}
    found = claims(joint_claims=[joint])
    assert json.loads(write(found, "json"))["joint_claims"] == [
        {"id": "both", "text": joint["text"], "verdict": "contradicted", "all": {"1": "supported", "2": "contradicted"}}
    ]
    lines = [line.strip() for line in write(found).splitlines()]
    at = lines.index("both contradicted: Worse, and none is better.")
    assert lines[at + 1] == "1 supported, 2 contradicted"
    assert max(lines.index(line) for line in lines if line.startswith(("1 supported: ", "2 contradicted: "))) < at


@pytest.mark.parametrize("width", [60, 80, 100, 200])
@pytest.mark.parametrize("make", [verdict, claims])
def test_text_fits_the_screen(make, width):
    text = write(make(), width=width)
    assert max(map(len, text.splitlines())) <= width
    assert all(line == line.rstrip() for line in text.splitlines())


def test_shared_caveats_stand_once_and_own_ones_beside_their_arm():
    text = " ".join(write(verdict(), width=80).split())
    assert text.count("takes each trial's best epoch by the test set itself") == 1
    assert "very_high_smoothing: It diverged at seed 1 and baseline did not, which counts against it." in text


def test_at_eighty_columns_the_numbers_are_one_table():
    lines = write(verdict(), width=80).splitlines()
    assert sum(line.startswith("────") for line in lines) == 1


def test_color_is_for_verdicts_only_and_text_has_no_escape_codes():
    assert "\x1b[1;32mbetter" in write(verdict(), color=True)
    assert "\x1b" not in write(verdict())
    named = verdict({"a": {}, "better": {"mean": 0.7}})
    assert "\x1b[1;31mworse" in write(named, color=True)


def test_markdown_is_sentences_a_table_and_notes():
    text = write(verdict(), "markdown")
    assert text.startswith("**simulated@")
    assert "- low\\_beta2 is worse than baseline" in text
    assert "| arm | verdict | seeds | diff. (points) | 95% interval |" in text
    assert "| :-- | :-- | --: |" in text
    assert "\n- \n" not in text


def test_latex_escapes_what_latex_would_read():
    text = write(claims(), "latex")
    assert r"It is 5\% worse \& \textbackslash{}bad." in text
    assert r"low\_beta2" in text
    assert text.count(r"\begin{tabular}") == 1


def test_a_latex_caption_is_sentences_and_its_table_has_no_signs_that_text_fonts_lack():
    arms = {"baseline": {"noise_sd": 0.001}, "up": {"mean": 0.9, "noise_sd": 0.001}, "near": {"mean": 0.801}}
    text = write(verdict(arms, seeds=6), "latex")
    assert re.search(r"up is better than baseline by [^()]* \(95\\% interval [^()]*\)\. near", text)
    assert "$<$0.001" in text
    assert not re.search(r"(?<!\$)[<>]", text)


def test_claims_say_what_was_measured_beside_the_paper():
    reported = {"low_beta2": {"best_test_acc": 0.5}, "baseline": {"best_test_acc": 0.8}}
    text = " ".join(write(claims(reported=reported), width=80).split())
    assert "1 supported: It is 5% worse" in text
    assert "low_beta2 - baseline, best test accuracy: -" in text
    assert "; paper -30.00 points, not plausible in one run" in text


@pytest.mark.parametrize("form", FORMATS)
def test_nothing_to_say_is_said(form):
    for found in (verdict({"a": {}}), claims(claims=[])):
        text = write(found, form)
        assert text.endswith("\n")
        assert "nan" not in text.lower().replace("finance", "")
    assert "The study has one arm: there is nothing to compare." in write(verdict({"a": {}}))
    assert "The study makes no claims" in write(claims(claims=[]))


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("seeds", [1, 2, 3])
def test_few_seeds_and_ten_arms_never_show_nan(form, seeds):
    arms = {f"arm{n}": {"mean": 0.8 + n / 1000, "noise_sd": 0.0 if n < 2 else 0.01} for n in range(11)}
    arms["arm5"]["diverge_rate"] = 1.0
    said = [{"id": "1", "text": "x", "arm": "arm0", "against": "all others", "direction": "higher"}]
    for text in (write(verdict(arms, seeds=seeds), form), write(claims(arms, seeds=seeds, claims=said), form)):
        assert not re.search(r"\bnan\b|\binf\b|None", text)


@pytest.mark.parametrize("form", FORMATS)
def test_a_study_of_noise_shows_where_it_comes_from(form):
    arms = {"a": {"weights_sd": 0.03}, "b": {"weights_sd": 0.03, "mean": 0.7}}
    study = simulated_study(arms, seeds=None, noise={"initial_weights": 4, "batch_orders": 3})
    results = simulated_results(study)
    text = write(compare(study, results), form, noise=split_noise(study, results))
    if form == "json":
        (first, _) = json.loads(text)["noise"]
        assert (first["arm"], first["runs"]) == ("a", 12)
        assert first["initial_weights"]["share"] > 0.5
    else:
        assert "Where the noise comes from" in text
        assert "batch" in text


def test_the_rest_is_spoken_of_where_it_is_shown():
    for noise, shown in (({"initial_weights": 2, "batch_orders": 2}, True), ({"batch_orders": 1}, False)):
        study = simulated_study({"a": {}, "b": {}}, seeds=4, noise=noise)
        results = simulated_results(study)
        text = write(compare(study, results), noise=split_noise(study, results))
        assert ("the rest is what two runs" in " ".join(text.split())) == shown


def test_a_refused_comparison_is_told():
    study = simulated_study({"a": {}, "b": {}}, seeds=3)
    results = simulated_results(study)
    results[-1].fingerprints["batch_order"] = "another"
    found = compare(study, results)
    assert sentences(found) == {"b": "b: refused, its trials are not paired with those of a"}
    assert "Refused: " in write(found)


def test_an_unknown_format_is_refused():
    with pytest.raises(ReportError, match='format = "xml": must be one of text, markdown, latex, html, json'):
        write(verdict(), "xml")


def asked(**evidence):
    study = simulated_study(ARMS, seeds=6, evidence={"metric": "final_test_acc", **evidence})
    return StudyResults(study, simulated_results(study)).verdict()


QUESTIONS = {
    "also": ["final_train_loss", {"metric": "seconds", "margin": 5.0}],
    "against": 0.7,
    "pairs": "all",
    "best": True,
}


def test_answers_stand_below_the_verdicts():
    text = " ".join(asked(**QUESTIONS).text(120).split())
    assert re.search(r"training loss, against baseline high_beta1 against baseline: undecided", text)
    assert re.search(r"time, against baseline high_beta1 is equivalent to baseline within 5\.0 s \(", text)
    assert re.search(
        r"test accuracy, against 70\.00% baseline is better than 70\.00% by 9\.\d\d points \(99\.2% ", text
    )
    assert re.search(r"up is better than low_beta2 by \d\.\d\d points \(99\.2% interval ", text)
    assert "The best arm is undecided: it may be any of up, dead; not baseline, high_beta1, " in text
    assert re.search(r"up has the best mean over 6 seeds, 86\.\d\d%; without the luck of being chosen 86\.\d\d%", text)
    assert text.count("Each question of the study has an equal part of its alpha: 0.8%.") == 5


def test_answers_are_in_the_json():
    table = json.loads(asked(**QUESTIONS).json())
    assert [one["question"] for one in table["questions"]] == ["also", "also", "against", "pairs", "best"]
    assert table["alpha"] == pytest.approx(0.05 / 6)
    loss, _, constant, pairs, best = table["questions"]
    assert loss["verdicts"][0]["metric"] == "final_train_loss"
    assert [row["arm"] for row in constant["verdicts"][0]["comparisons"]] == list(ARMS)
    assert sum(len(one["comparisons"]) for one in pairs["verdicts"]) == 10
    assert list(best["best"]) == ["candidates", "excluded", "leader", "seeds", "mean", "corrected"]
    assert "questions" not in json.loads(asked().json())


def test_a_further_measure_is_no_exploration():
    study = simulated_study(ARMS, seeds=6, evidence={"also": [{"metric": "seconds", "margin": 5.0}]})
    results = StudyResults(study, simulated_results(study))
    alone = results.verdict("seconds").data
    assert (alone.exploratory, alone.margin, alone.alpha) == ((), 5.0, 0.025)
    assert alone == results.verdict().answers[0].verdicts[0]
    assert results.verdict("final_test_acc").data.exploratory


def test_one_sided_says_so():
    text = " ".join(asked(against={"value": 0.7, "one_sided": True}).text(120).split())
    assert "One-sided: with 97.5% probability no arm is wrongly called better, over all arms and looks." in text
    assert re.search(r"baseline is better than 70\.00% by 9\.\d\d points \(95% interval ", text)


@pytest.mark.parametrize("form", FORMATS)
def test_answers_have_every_format(form):
    view = asked(**QUESTIONS)
    assert len(view.answers) == 5
    assert "very_high_smoothing" in view.write(form).replace("\\_", "_")


@pytest.mark.parametrize(
    ("declared", "amount"), [({}, "0.89"), ({"test_accuracy": {"unit": "percent"}}, "0.89 points")]
)
def test_no_metric_is_multiplied_by_a_hundred_unless_it_is_a_fraction(declared, amount):
    """Accuracies in percent, called `test_accuracy`, were once better by 88.96 points where it was 0.89."""
    own = {"training": {"loop": "mine:train"}, "evidence": {"metric": "final_test_accuracy"}}
    study = make_study({"a": {}, "b": {"params": {"x": 1}}}, seeds=3, metrics=declared, **own)
    values = {"a": (96.40, 96.50, 96.30), "b": (97.29, 97.38, 97.20)}
    results = make_results(study, lambda arm, seed, _: {"test_accuracy": values[arm][seed]})
    found = compare(study, results)
    assert sentences(found)["b"].startswith(f"b is better than a by {amount} (95% interval")
    assert f"by {amount} (95%" in write(found)


@pytest.mark.parametrize(("seeds", "said"), [({"min": 3, "max": 4}, False), ({"min": 3, "max": 30}, True), (4, True)])
def test_more_seeds_are_named_only_where_the_plan_or_the_error_rate_has_them(seeds, said):
    study = simulated_study({"a": {}, "b": {"mean": 0.803}}, seeds=seeds)
    results = [one for one in simulated_results(study) if one.seed < 4]
    data = compare(study, results)
    (row,) = data.comparisons
    assert row.more_seeds
    assert ("more seed" in sentence(data, row)) is said


@pytest.mark.parametrize("metric", ["final_test_acc", "final_test_loss"])
@pytest.mark.parametrize("sign", [1, -1])
def test_an_interval_is_in_the_direction_of_its_sentence(metric, sign):
    found = compare(study := simulated_study({"a": {}, "b": {}}, seeds=3), simulated_results(study))
    larger, mean = metric.endswith("acc"), 0.01 * sign
    found = replace(found, larger_is_better=larger)
    row = replace(found.comparisons[0], mean_difference=mean, interval=(mean - 0.02, mean + 0.02))
    word = "better" if (mean > 0) == larger else "worse"
    assert f"1.00 points {word} so far, 95% interval -1.00 to 3.00" in sentence(found, row)

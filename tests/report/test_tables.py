"""The table on the screen: what it says, and that it fits."""

import json
import math
import random
import re
from dataclasses import replace as replace_field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders import PAPER_ARMS, learning, make_results, make_study
from fairtrial.errors import ReportError
from fairtrial.report import screen
from fairtrial.report.grid import Column, Grid
from fairtrial.report.views import View
from fairtrial.stats.summary import SeedSpread, StudySummary, summarize
from fairtrial.trial import Outcome


def write(summary, *args, **options):
    return View(summary).write(*args, **options)


CROWDED = {
    **PAPER_ARMS,
    "sgd": {"optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.9}},
    "cosine": {"schedule": {"name": "cosine", "warmup_epochs": 0.5}},
    "wide": {"model": {"width": 1.4}, "training": {"batch_size": 128}},
}


def text(study, results=None, **options):
    return write(summarize(study, make_results(study) if results is None else results), "text", **options)


def line(output, arm):
    """The cells of an arm's only line."""
    (found,) = [line for line in output.splitlines() if re.match(rf"{arm}\b", line)]
    return re.split(r" {1,}(?![±])(?<!± )", found)


def replace(summary, arm, **metrics):
    arms = list(summary.arms)
    index = [each.arm for each in arms].index(arm)
    old = arms[index]
    arms[index] = type(old)(**{**vars(old), "metrics": {**old.metrics, **metrics}})
    return StudySummary(**{**vars(summary), "arms": tuple(arms)})


def test_the_papers_table_in_one_piece_at_80_columns():
    study = make_study(seeds=2, epochs=2)
    summary = summarize(study, make_results(study))
    spread = SeedSpread((0.8118, 0.8186), 0.8152, 0.00342)
    output = write(replace(summary, "baseline", best_test_acc=spread, seconds=SeedSpread((1.0, 2.0), 725.04, 3.18)))
    assert output.startswith(f"{study.label}\n")
    heads = output.splitlines()[1:3]
    assert heads[0].split() == ["best", "test", "best", "train"]
    assert heads[1].split() == ["arm", "beta1", "beta2", "epsilon", "accuracy", "(%)", "accuracy", "(%)", "time", "(s)"]
    cells = line(output, "baseline")
    assert cells[:6] == ["baseline", "*", "0.9", "0.999", "1e-8", "81.52 ± 0.34"]
    assert cells[-1] == "725.0 ± 3.2"
    assert "* reference." in output
    assert "Mean ± sample standard deviation over 2 of 2 seeds an arm." in output
    assert "the test set itself" in output
    assert output.endswith(".\n")
    assert not output.endswith("\n\n")


def test_one_seed_has_no_plus_minus_and_says_what_that_means():
    output = text(make_study(seeds=1))
    assert "±" not in output
    assert "One run an arm" in output


def test_what_did_not_finish_stands_where_the_mean_would_or_beside_it():
    study = make_study(("a", "b", "c", "d", "e"), seeds=3)
    ended = {("b", seed): Outcome.DIVERGED for seed in range(2)} | {("b", 2): Outcome.FAILED}
    ended |= {("c", 0): Outcome.DIVERGED, ("d", 1): None}
    output = text(study, make_results(study, ended=ended, skip={("e", seed) for seed in range(3)}), width=200)
    assert re.search(r"^b .* 2 diverged, 1 failed +- +- +0/3$", output, re.MULTILINE)
    assert re.search(r"^c .* \d\d\.\d\d ± \d.* 2/3, 1 diverged$", output, re.MULTILINE)
    assert re.search(r"^d .* 2/3, 1 unfinished$", output, re.MULTILINE)
    assert re.search(r"^e .* not run +- +- +0/3$", output, re.MULTILINE)
    assert re.search(r"^a .* 3/3$", output, re.MULTILINE)
    assert "Diverged and failed trials enter no mean." in output
    assert "Unfinished: interrupted, or still running." in output


def test_times_that_idle_cores_have_shortened_are_said():
    study = make_study(("a", "b"), seeds=2)
    assert "idle cores" not in text(study)
    helped = {("a", 1): {"helped_seconds": 9.0}, ("b", 1): {"helped_seconds": 2.0}}
    results = make_results(study, lambda arm, seed, epoch: learning(arm, seed, epoch) | helped.get((arm, seed), {}))
    found = " ".join(text(study, results).split())
    assert "Times: idle cores helped with part of 2 trials, which took less time for it." in found


def test_runs_that_the_measure_lost_are_counted_beside_the_seeds():
    study = make_study(("a", "b"), seeds=3)
    results = make_results(study, lambda arm, seed, epoch: {"test_acc": math.nan if (arm, seed) == ("b", 1) else 0.5})
    output = text(study, results, width=200)
    assert re.search(r"^b .* 3/3, 1 not finite$", output, re.MULTILINE)
    assert re.search(r"^a .* 3/3$", output, re.MULTILINE)
    assert "Not finite: finished, but the study's measure is NaN, infinite" in output


def test_a_mean_over_fewer_trials_than_finished_says_of_how_many():
    study = make_study(("a",), seeds=3)
    spread = SeedSpread((0.5, None, 0.6), 0.55, 0.0707)
    summary = replace(summarize(study, make_results(study)), "a", best_test_acc=spread)
    assert "55.00 ± 7.07 (n=2)" in write(summary, width=200)


def test_a_validation_split_adds_its_column():
    study = make_study(("a",), seeds=1, data={"validation": 100})
    results = make_results(study, lambda arm, seed, epoch: {"val_acc": 0.5, "test_acc": epoch / 100})
    output = text(study, results)
    assert "best val. (%)" in output
    assert re.search(r"^a .* 4\.00 +1\.00 ", output, re.MULTILINE)


def test_without_adam_there_are_no_betas():
    study = make_study({"slow": {}, "fast": {"optimizer": {"lr": 0.1}}}, optimizer={"name": "sgd"})
    output = text(study)
    assert "beta1" not in output
    assert re.search(r"arm +lr ", output)


@settings(deadline=None, max_examples=25)
@given(
    arms=st.sampled_from([PAPER_ARMS, CROWDED]),
    width=st.integers(40, 200),
    ended=st.dictionaries(
        st.tuples(st.sampled_from(sorted(PAPER_ARMS)), st.integers(0, 2)), st.sampled_from([*Outcome, None])
    ),
)
def test_no_line_is_too_wide_and_no_number_is_broken(arms, width, ended):
    study = make_study(arms)
    results = make_results(study, ended=ended)
    output, wide = text(study, results, width=width), text(study, results, width=1000)
    assert max(map(len, output.splitlines())) <= width
    assert sorted(re.findall(r"\d+\.\d+", output)) == sorted(re.findall(r"\d+\.\d+", wide))
    for arm in arms:
        assert arm in output


def test_plain_text_has_no_escapes_and_no_trailing_blanks(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    output = text(make_study())
    assert "\x1b" not in output
    assert all(each == each.rstrip() for each in output.splitlines())


def test_color_marks_what_diverged():
    study = make_study(("a", "b"), seeds=1)
    output = text(study, make_results(study, ended={("b", 0): Outcome.DIVERGED}), color=True)
    assert re.search(r"\x1b\[31m *1 diverged\x1b\[0m", output)


def test_an_unknown_format_names_the_known_ones():
    with pytest.raises(ReportError, match="text, markdown, latex, html, json, csv"):
        write(summarize(make_study(), []), "xml")


@pytest.mark.parametrize("name", View(summarize(make_study(), [])).formats)
def test_every_format_of_a_study_that_has_not_run_ends_in_one_line_break(name):
    output = write(summarize(make_study(), []), name)
    assert output == output.strip("\n") + "\n"
    assert "very" in output


@pytest.mark.parametrize("form", ["text", "markdown", "latex", "html"])
def test_what_makes_a_comparison_false_is_the_first_line_of_the_table_too(form):
    study = make_study(("a", "b"), seeds=3)
    results = make_results(study)
    code = [{"loop.py": "a" * 64}, {"loop.py": "b" * 64}]
    results = [replace_field(one, machine=replace_field(one.machine, code=code[one.seed > 1])) for one in results]
    summary = summarize(study, results)
    line = "Not one experiment: loop.py changed between trials (seeds 0 and 1, then seed 2)."
    assert line in summary.alerts
    text = write(summary, form, width=200) if form == "text" else write(summary, form)
    assert text.index(line) < text.index("reference.")
    assert json.loads(write(summary, "json"))["alerts"] == list(summary.alerts)


@pytest.mark.parametrize("width", [30, 50, 120])
@pytest.mark.parametrize("color", [False, True])
def test_a_long_table_is_laid_out_as_a_short_one(width, color, monkeypatch):
    rng = random.Random(width)

    def words(size):
        return "".join(rng.choice("abü中 ") for _ in range(size)).strip() or "x"

    def cell():
        return rng.choice([("better", "1 of 3"), ("worse",), (words(9),), (words(5), words(12))])

    def grid():
        keys, rows = rng.sample(["arm", "verdict", "finding", "acc", "time", "seeds"], rng.randrange(2, 6)), 4
        columns = (Column(key, cell(), tuple(cell() for _ in range(rows))) for key in keys)
        return Grid("s@1", tuple(columns), ("a note",))

    def lines(text):
        return [re.sub(r"\x1b\[[0-9;]*m", "", line).rstrip() for line in text.splitlines()]

    for made in [grid() for _ in range(40)]:
        monkeypatch.setattr(screen, "LONG", 1)
        laid_out = screen.screen_text(made, width, color)
        monkeypatch.setattr(screen, "LONG", 10**9)
        expected = screen.screen_text(made, width, color)
        assert lines(laid_out) == lines(expected)
        assert laid_out == expected or color  # Rich colors blanks, too

"""How intervals narrowed: each look is that of the study as it was then."""

import pytest

from fairtrial.errors import ReportError
from fairtrial.report.charts import draw
from fairtrial.report.charts.history import history_data
from fairtrial.stats.comparison import compare
from fairtrial.testing import simulated_results, simulated_study
from report.charts.drawings import plots, rows, subtitle

ARMS = {"ref": {}, "near": {"mean": 0.801}, "low": {"mean": 0.787}, "bad": {"mean": 0.6}}


def make(arms=ARMS, seeds=None, **sections):
    study = simulated_study(arms, seeds=seeds or {"min": 3, "max": 10}, evidence={"margin": 0.01}, **sections)
    return study, list(simulated_results(study))


def test_each_look_is_the_verdict_that_there_was_then():
    study, results = make()
    data = history_data(study, results)
    for seeds in range(3, 11):
        found = compare(study, [one for one in results if one.seed < seeds])
        for arm, row in zip(data.arms, found.comparisons, strict=True):
            if arm.settled is None or seeds <= arm.settled:
                look = next(look for look in arm.looks if look.seeds == seeds)
                assert (look.mean, look.interval, look.verdict) == (
                    row.mean_difference,
                    row.interval,
                    row.verdict.value,
                )
            else:
                assert all(look.seeds <= arm.settled for look in arm.looks)
    last = compare(study, results)
    assert [arm.verdict for arm in data.arms] == [row.verdict.value for row in last.comparisons]
    assert data.arms[2].settled == 3


def test_every_interval_is_drawn_and_what_lies_beyond_is_said():
    study, results = make()
    (figure,) = draw(["history"], study, results)
    near, _, bad = plots(figure)
    data = figure.data.arms[0]
    bars = {row["seeds"]: row["start"] for row in rows(near, "rule", strokeWidth=2)}
    assert bars == pytest.approx({look.seeds: 100 * look.interval[0] for look in data.looks})
    assert rows(near, "rect") == [{"start": -1.0, "end": 1.0, "margin": "1.00 points"}]
    said = {row["seeds"]: row["95% interval (points)"] for row in rows(near, "rule", strokeWidth=2)}
    unit = figure.data.found.unit
    assert said == {look.seeds: unit.between(*look.interval).replace("-", "−") for look in data.looks}
    assert bad["title"]["subtitle"] == ["worse after 3 seeds"]
    (beyond,) = rows(bad, "text")
    assert beyond["label"].startswith("↓ −")
    assert "bad: worse after 3 seeds" in figure.alt


def test_a_study_that_looks_once_has_no_history():
    with pytest.raises(ReportError, match="the study looks at its arms once"):
        draw(["history"], *make(seeds=5))
    study, results = make()
    with pytest.raises(ReportError, match="no look has been taken yet"):
        draw(["history"], study, [one for one in results if one.seed < 2])


def test_of_long_studies_not_every_look_is_repeated(monkeypatch):
    monkeypatch.setattr("fairtrial.report.charts.history.LOOKS", 4)
    study, results = make({"ref": {}, "same": {"mean": 0.8003, "noise_sd": 0.03}}, seeds={"min": 2, "max": 14})
    (arm,) = history_data(study, results).arms
    assert [look.seeds for look in arm.looks] == [2, 6, 10, 14]


def test_an_arm_without_pairs_is_there():
    study, results = make({"ref": {}, "dead": {"diverge_rate": 1.0}})
    (figure,) = draw(["history"], study, results)
    (plot,) = plots(figure)
    assert not rows(plot, "rule", strokeWidth=2)
    assert "seeds" in plot["title"]["subtitle"][0] or "no pair" in plot["title"]["subtitle"][0]
    assert "Shaded: within 1.00 points" in subtitle(figure)

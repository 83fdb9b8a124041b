"""Studies in every state: each has a page that says so, and no state is an error."""

import json
import urllib.parse
import urllib.request

import pytest

from fairtrial.executors.inline import InlineExecutor
from fairtrial.runner import run_study
from fairtrial.spec import Study
from fairtrial.store.sql import SQLStore
from fairtrial.testing import executor, simulated_study
from fairtrial.web import hub

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(1)> =cmd ../x"

STUDIES = {
    "all diverged": simulated_study({"a": {"diverge_rate": 1.0}, "b": {"diverge_rate": 1.0}}),
    "all failed": simulated_study({"a": {"fail_rate": 1.0}, "b": {"fail_rate": 1.0}}),
    "thirty arms": simulated_study({f"arm{number}": {"mean": 0.7 + number / 200} for number in range(30)}, seeds=2),
    "one arm": simulated_study({"a": {}}),
    "one seed, one epoch": simulated_study({"a": {}, "b": {}}, seeds=1, epochs=1),
    "a thousand epochs": simulated_study({"a": {}, "b": {"mean": 0.9}}, seeds=1, epochs=1000),
    "twins": simulated_study({"a": {}, "b": {"mean": 0.8}}, seeds=3),
}


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """Look and draw more often than a page needs."""
    monkeypatch.setattr(hub, "LOOK", 0.1)
    monkeypatch.setattr(hub, "SIGN_OF_LIFE", 0.5)


def pictures(url, study, names):
    """The markup of each chart, by its name."""
    found = {}
    for name in names:
        with urllib.request.urlopen(f"{url}/study/{study.hash}/chart?name={urllib.parse.quote(name)}") as answer:
            found[name] = json.load(answer)
    return found


@pytest.mark.parametrize("study", STUDIES.values(), ids=STUDIES)
def test_a_study_in_any_state_has_its_page(serve, stream, study):
    with SQLStore("fairtrial.db") as store:
        run_study(study, store=store, executor=executor())
    said = []
    with serve("fairtrial.db", said=said) as url:
        events = stream(f"{url}/study/{study.hash}/events")
        assert "Complete" in events.part("status")
        told = [events.part(name) for name in ("progress", "workers", "table", "failures", "events")]
        drawn = pictures(url, study, events.charts())
        assert all(one["html"] or one["reason"] for one in drawn.values())
    assert said == []
    assert "error of fairtrial" not in "".join(told)


def test_a_study_that_has_not_begun_and_one_that_was_interrupted(serve, stream, writing, simulated):
    run = writing(simulated)
    with serve("fairtrial.db", said=(said := [])) as url:
        events = stream(f"{url}/study/{simulated.hash}/events")
        assert "Not begun" in events.part("status")
        assert "0</strong> of 9" in events.part("progress")
        run.begin(("baseline", 0))
        run.epoch(("baseline", 0), 1)
        assert "Not running" in events.part("status", lambda html: "Not running" in html)
        assert "Interrupted" in events.part("workers", lambda html: "baseline" in html)
        assert events.charts()
        assert "running trial" in pictures(url, simulated, ["running"])["running"]["html"]
    assert said == []


def test_hostile_names_are_escaped_in_every_part(serve, stream, simulated):
    table = simulated.to_dict()
    table["arms"]["better"]["label"] = HOSTILE
    table["claims"][0]["text"] = f"{HOSTILE}\u202e\x1b[2J"
    study = Study.from_dict(table)
    with SQLStore("fairtrial.db") as store:
        run_study(study, store=store, executor=executor())
    with serve("fairtrial.db", said=(said := [])) as url:
        events = stream(f"{url}/study/{study.hash}/events")
        parts = [events.part(name) for name in ("progress", "verdicts", "arms", "table", "claims", "failures")]
        parts += [one["html"] for one in pictures(url, study, events.charts()).values()]
    text = "".join(parts)
    assert "&lt;script&gt;" in text
    assert "<script>" not in text
    assert "<img src=x" not in text
    assert "\u202e" not in text
    assert "\x1b" not in text
    assert said == []


@pytest.mark.slow
def test_the_x_ray_is_drawn_from_the_snapshots_in_the_store(serve, stream):
    study = Study(
        name="seen",
        reference="a",
        seeds=1,
        data={"name": "digits", "train": 200, "test": 50},
        model={"name": "mlp"},
        training={"epochs": 1},
        optimizer={"name": "adam", "lr": 0.01},
        arms={"a": {}, "b": {"optimizer": {"eps": 1e-3}}},
    )
    with SQLStore("fairtrial.db") as store:
        run_study(study, store=store, executor=InlineExecutor())
    with serve("fairtrial.db") as url:
        events = stream(f"{url}/study/{study.hash}/events")
        drawn = pictures(url, study, [name for name in events.charts() if name.startswith("xray_")])
    assert {"xray_sqrt_vhat", "xray_epsilon", "xray_updates", "xray_layers", "xray_losses"} <= set(drawn)
    assert all(one["html"] for one in drawn.values()), drawn

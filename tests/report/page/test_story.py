"""The sections of a report: their order, and what they say of studies that are odd in some way."""

from dataclasses import replace

import pytest

from fairtrial.imported import Asked, import_study
from fairtrial.report.page.document import document
from fairtrial.report.page.items import Facts, Folded, Words
from fairtrial.report.page.material import Material
from fairtrial.report.page.origin import machines, reported_with, trained_on
from fairtrial.report.page.story import SECTIONS, story
from fairtrial.results import StudyResults
from fairtrial.testing import simulated_results, simulated_study
from report.page.pages import small_study

CLAIM = {"id": "1", "text": "low_beta2 is behind.", "arm": "low_beta2", "against": "baseline", "direction": "lower"}


def texts(items):
    for item in items:
        match item:
            case Words():
                yield from item.lines
            case Facts():
                yield from (f"{name}: {text}" for name, text in item.rows)
            case Folded():
                yield from texts(item.items)


def told(study, results, key):
    return "\n".join(texts(SECTIONS[key](Material.of(study, results)).items))


@pytest.fixture(scope="module")
def usual():
    study, results = small_study(claims=[CLAIM])
    return study, results, document(Material.of(study, results))


def test_the_story_has_its_order(usual):
    study, results, page = usual
    keys = [section.key for section in story(Material.of(study, results))]
    assert keys == [
        *("answer", "verdicts", "table", "curves", "overfitting", "claims", "xray", "cost", "fixed", "losses"),
        "provenance",
    ]
    places = [page.index(f'<section id="{key}"') for key in keys]
    assert places == sorted(places)


def test_the_page_needs_no_other_file(usual):
    *_, page = usual
    assert "<link" not in page
    assert 'src="http' not in page
    assert "default-src 'none'" in page


def test_no_word_of_significance(usual):
    body = usual[2].partition("<main")[2].partition("</main>")[0]
    assert "significan" not in body.lower()


def test_no_x_ray_says_how_to_get_one(usual):
    study, results, _ = usual
    assert "no snapshots of the optimizer's state. `fairtrial run` takes them unless" in told(study, results, "xray")


def test_machines_that_trained_are_apart_from_the_one_that_reports(usual):
    _, results, _ = usual
    other = replace(results[0].machine, processor="another", versions={"fairtrial": "0.0.9", "torch": "2.8.0"})
    mixed = [replace(result, machine=other) if result.seed == 1 else result for result in results]
    assert [machine.processor for machine in machines(mixed)] == ["simulated", "another"]
    said = "\n".join(texts(trained_on(mixed)))
    assert "versions: fairtrial 0.0.9, torch 2.8.0" in said
    assert "trials: 4, " in said
    assert "0.0.9" not in str(reported_with().rows)


@pytest.mark.parametrize(
    ("arms", "more", "key", "said"),
    [
        ({"a": {}, "b": {}}, {"seeds": 1}, "answer", "This rests on one run an arm"),
        (
            {"a": {"diverge_rate": 1.0}, "b": {"diverge_rate": 1.0}},
            {},
            "answer",
            "Every trial that has ended diverged.",
        ),
        ({"a": {"fail_rate": 1.0}, "b": {"fail_rate": 1.0}}, {}, "answer", "No trial that has ended finished"),
        (
            {f"arm{number}": {"mean": 0.8 - number / 300} for number in range(30)},
            {"seeds": 2},
            "answer",
            "Which of 29 arms",
        ),
        ({"a": {}, "b": {}}, {"epochs": 1}, "fixed", "training.epochs: 1"),
        ({"a": {}, "b": {}}, {"epochs": 1000, "seeds": 2}, "fixed", "training.epochs: 1000"),
        ({"only": {}}, {}, "answer", "one arm, so there is no difference to judge"),
    ],
)
def test_an_odd_study_has_a_report_that_says_so(arms, more, key, said):
    study, results = small_study(arms, **more)
    assert said in told(study, results, key)
    assert said in document(Material.of(study, results)).replace("<dt>", "").replace("</dt><dd>", ": ")


def test_an_unfinished_study_and_one_that_has_not_begun():
    study, results = small_study()
    running = [replace(result, outcome=None, ended=None) if result.seed == 2 else result for result in results]
    some = [result for result in running if result.seed < 3]
    assert "8 of 20 trials ended, 4 running or interrupted" in told(study, some, "answer")
    assert "Running or interrupted: baseline, seed 2" in told(study, some, "losses")
    assert "No trial of this study has started yet." in document(Material.of(study, []))
    document(Material.of(study, some))


def test_the_methods_say_only_what_there_is():
    study, results = small_study()
    nothing = told(study, [replace(one, outcome=None, ended=None) for one in results], "provenance").splitlines()
    assert "No run has ended yet." in nothing
    assert not any("compared" in line for line in nothing)
    assert "confidence intervals" in told(study, results, "provenance")
    one_seed = told(study, [one for one in results if one.seed == 0], "provenance")
    assert "Arms were compared with baseline on " in one_seed
    assert "confidence intervals" not in one_seed


def test_the_methods_count_the_seeds_of_a_sequential_study():
    study = simulated_study({"a": {}, "b": {"mean": 0.6}, "c": {}}, seeds={"min": 3, "max": 12})
    results = [one for one in simulated_results(study) if one.seed < {"a": 7, "b": 3, "c": 7}[one.arm]]
    said = told(study, results, "provenance")
    planned = (
        f"By plan an arm gets {study.min_seeds} to 12 seeds and stops once its verdict is settled; 3 to 7 were run."
    )
    assert planned in said


def test_how_to_repeat_and_the_files_beside_hold_for_a_page_saved_alone(usual):
    study, results, page = usual
    where = "Run these in the report's folder, or save the study's file below as data/study.toml."
    lines = told(study, results, "provenance").splitlines()
    assert where in lines
    assert page.index("Run these in the report") < page.index("fairtrial run data/study.toml")
    assert "with figures, tables and data as files in the same folder; this page needs none of them." in page


def test_imported_runs(tmp_path):
    rows = [f"{arm},{seed},{0.8 + at / 50 + seed / 500}" for at, arm in enumerate("abc") for seed in range(4)]
    path = tmp_path / "runs.csv"
    path.write_text("\n".join(["arm,seed,test_acc", *rows]))
    study, results = import_study(path, Asked(reference="a"), arm="arm", seed="seed", measure="test_acc")
    page = document(Material.of(study, results))
    assert "made elsewhere" in told(study, results, "fixed")
    assert "fairtrial can&#39;t repeat them" in page
    assert "What trained these runs is not known" in page
    assert "takes them unless" not in page


def test_labels_are_shown_and_names_are_in_files():
    study, results = small_study({"a": {}, "b": {}}, seeds=2)
    table = study.to_dict()
    table["arms"]["b"]["label"] = "β₂ = 0.99"
    runs = StudyResults(type(study).from_dict(table), tuple(results))
    material = Material.of(runs.study, runs.results)
    assert "β₂ = 0.99" in document(material)
    assert "β₂" not in material.table.csv()
    assert "β₂" in material.table.markdown()

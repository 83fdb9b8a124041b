"""What a gate looks like: in a pull request, in JUnit XML, with hostile names."""

from dataclasses import replace
from xml.etree import ElementTree

import pytest

import fairtrial
from fairtrial.gate import gate_runs
from fairtrial.report.gate import gate_markdown, gate_text, junit
from fairtrial.testing import simulated_results, simulated_study

ARMS = {"adam": {}, "worse": {"mean": 0.7}, "same": {"mean": 0.8004}, "near": {"mean": 0.795, "noise_sd": 0.05}}


@pytest.fixture(scope="module")
def gate():
    study = simulated_study(ARMS, seeds=6, evidence={"metric": "final_test_acc", "pooling": "own"})
    return gate_runs(fairtrial.StudyResults(study, simulated_results(study)), not_worse_than=0.01)


def test_the_summary_for_a_pull_request(gate):
    written = gate_markdown(replace(gate, said=("Differs from the baseline: torch 1, now 2.",)))
    lines = written.splitlines()
    assert lines[0] == "**Differs from the baseline: torch 1, now 2.**"
    assert lines[1].startswith("**Gate failed: simulated-gate@")
    assert any(line.startswith("- worse is worse than adam by ") for line in lines)
    assert any(line.startswith("- same is not worse than adam by 1.00 points or more (") for line in lines)
    assert any(line.startswith("- near: undecided (") for line in lines)
    assert [line.split("|")[2].strip() for line in lines if line.startswith(("| worse", "| same", "| near"))] == [
        "worse", "passed", "undecided",
    ]  # fmt: skip


def test_the_summary_states_the_error_rates(gate):
    written = gate_markdown(replace(gate, changes_a_month=10))
    assert "with probability at most 5% each, over all arms and looks" in written
    assert "Of 10 harmless changes a month it fails at most 0.5 on average, and at least one" in written
    assert "at most 40.1%; --alpha 0.0051 makes that 5%" in written


def test_an_undecided_gate_says_why_and_what_would_decide_it(gate):
    near = replace(gate.verdict, comparisons=gate.verdict.comparisons[2:])
    written = gate_text(replace(gate, verdict=near, ended="the time of 60 s was up"), 200)
    assert f"Undecided: the time of 60 s was up; about {6 + near.comparisons[0].more_seeds} seeds in all" in written


def test_junit_has_a_test_for_each_arm(gate):
    root = ElementTree.fromstring(junit(gate))
    assert root.tag == "testsuites"
    (suite,) = root
    counts = {key: suite.get(key) for key in ("tests", "failures", "errors", "skipped")}
    assert counts == {"tests": "3", "failures": "1", "errors": "1", "skipped": "0"}
    assert {key: root.get(key) for key in counts} == counts
    cases = suite.findall("testcase")
    assert [[child.tag for child in case] for case in cases] == [["failure"], [], ["error"]]
    assert all({"classname", "name", "time"} == {*case.keys()} for case in cases)
    assert all(float(case.get("time")) >= 0 for case in cases)
    assert cases[0][0].get("message").startswith("worse is worse than adam")
    assert [child.tag for child in suite] == ["testcase"] * 3 + [
        "system-out"
    ]  # the order that Jenkins' schema asks for


@pytest.mark.parametrize("name", ["\x1b[31mred", "<b>&\"'", "\ud800", "\x00", "\ufffe", "a\u202eb", "]]>"])
def test_hostile_names_are_shown_and_stay_valid(gate, name):
    rows = tuple(replace(row, arm=name + row.arm) for row in gate.verdict.comparisons)
    hostile = replace(gate, verdict=replace(gate.verdict, comparisons=rows, reference=name), said=(name,))
    root = ElementTree.fromstring(junit(hostile))
    assert len(root.findall(".//testcase")) == 3
    for written in (gate_markdown(hostile), gate_text(hostile), junit(hostile).decode()):
        assert not {"\x1b", "\x00", "\u202e", "\ufffe"} & {*written}

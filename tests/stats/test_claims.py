"""Claims: what their ranges mean, what they hang on, and how often a wrong word is said of one."""

import math
import textwrap
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

import fairtrial
from builders import with_aa_arm
from fairtrial.errors import StudyError
from fairtrial.spec import parse_toml
from fairtrial.stats.boundary import boundary
from fairtrial.stats.claims import ClaimVerdict, check_claims
from fairtrial.stats.comparison import looks
from fairtrial.stats.judge import judge
from fairtrial.stats.looks import LookPlan
from fairtrial.stats.sequential import HIGHER, judge_many
from fairtrial.testing import simulated_results, simulated_study
from fairtrial.trial import Outcome

ARMS = {"ref": {"mean": 0.8}, "close": {"mean": 0.801}, "low": {"mean": 0.7}}


def claim(id="1", text="so it is said", **keys):  # noqa: A002
    return {"id": id, "text": text, **keys}


def check(*claims, arms=ARMS, seeds=5, **sections):
    study = simulated_study(arms, seeds=seeds, claims=list(claims), **sections)
    return check_claims(study, simulated_results(study))


def finding(*args, **kwargs):
    return check(*args, **kwargs).claims[0].finding.value


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"arm": "ref", "against": "low", "direction": "higher"}, "supported"),
        ({"arm": "low", "against": "ref", "direction": "lower"}, "supported"),
        ({"arm": "low", "against": "ref", "direction": "higher"}, "contradicted"),
        ({"arm": "low", "against": "ref", "direction": "lower", "at_least": 0.05}, "supported"),
        ({"arm": "low", "against": "ref", "direction": "lower", "at_least": 0.2}, "contradicted"),
        ({"arm": "low", "against": "ref", "direction": "lower", "at_least": 0.1}, "undecided"),
        ({"arm": "close", "against": "ref", "within": 0.03}, "supported"),
        ({"arm": "close", "against": "ref", "within": 0.001}, "undecided"),
        ({"arm": "low", "against": "ref", "within": 0.03}, "contradicted"),
        ({"arm": "low", "against": "ref", "direction": "lower", "within": 0.2}, "supported"),
        ({"arm": "ref", "against": "all others", "direction": "higher"}, "undecided"),
        ({"arm": "ref", "against": "all others", "direction": "higher", "at_least": -0.03}, "supported"),
        ({"arm": "low", "against": "all others", "direction": "lower"}, "supported"),
        ({"arm": "close", "against": "all others", "direction": "lower"}, "contradicted"),
        ({"arm": "ref", "against": "low", "within": 0.2, "relative": True}, "supported"),
        ({"arm": "ref", "against": "low", "within": 0.05, "relative": True}, "contradicted"),
    ],
)
def test_a_claim_is_a_range_and_an_interval_lies_in_it_or_not(said, expected):
    assert finding(claim(**said), evidence={"metric": "best_test_acc"}) == expected


PARTS = {
    "supported": claim("supported", arm="low", against="all others", direction="lower"),
    "contradicted": claim("contradicted", arm="close", against="all others", direction="lower"),
    "undecided": claim("undecided", arm="ref", against="all others", direction="higher"),
    "gap": claim("gap", arm="low", against="ref", metric="generalisation_gap", within=0.05),
}


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        (["supported", "gap"], "supported"),
        (["supported", "undecided"], "undecided"),
        (["supported", "undecided", "contradicted"], "contradicted"),
    ],
)
def test_a_joint_claim_holds_if_all_its_parts_do(parts, expected):
    joint = {"id": "all", "text": "All of it.", "all": parts}
    tested = check(*PARTS.values(), joint_claims=[joint])
    assert {one.claim.id: one.finding.value for one in tested.claims} == {
        name: "supported" if name == "gap" else name for name in PARTS
    }
    (whole,) = tested.joint
    assert (whole.claim.id, whole.finding.value, list(whole.parts)) == ("all", expected, parts)


@pytest.mark.parametrize(
    ("gap", "behind", "expected"),
    [(0.2, 0.04, "supported"), (0.2, -0.04, "contradicted"), (0.02, 0.04, "contradicted")],
)
def test_the_third_claim_of_the_paper_by_both_of_its_parts(gap, behind, expected):
    """Low beta2 fits the training data best, and falls back on the test data: as docs/studies.md writes it."""
    page = (Path(__file__).parents[2] / "docs" / "studies.md").read_text(encoding="utf-8")
    block = page[page.index('    [[claims]]\n    id = "3a"') : page.index("It is supported if all of them")]
    asked = parse_toml(textwrap.dedent(block))
    low = {"mean": 0.8 - behind, "gap": gap}
    arms = {"baseline": {"mean": 0.8}, "low_beta2": low, "large_eps": {"mean": 0.75}}
    (whole,) = check(*asked["claims"], arms=arms, joint_claims=asked["joint_claims"]).joint
    assert (whole.claim.id, whole.finding.value) == ("3", expected)


def test_a_claim_hangs_on_the_difference_that_fits_it_least():
    tested = check(
        claim("best", arm="ref", against="all others", direction="higher"),
        claim("worst", arm="low", against="all others", direction="lower"),
        claim("no", arm="close", against="all others", direction="lower"),
    ).claims
    assert [one.decisive.other for one in tested] == ["close", "ref", "low"]
    assert len(tested[0].against) == 2


def test_a_claim_against_all_others_is_not_against_an_aa_arm():
    """It has the settings of an arm that is among the others already, and noise of its own."""
    said = [
        claim("1", arm="ref", against="all others", direction="higher"),
        claim("2", arm="low", against="all others", direction="lower"),
    ]
    study = with_aa_arm(simulated_study({"ref": {}, "low": {"mean": 0.7}}, seeds=5, claims=said))
    tested = check_claims(study, simulated_results(study)).claims
    assert [[one.other for one in each.against] for each in tested] == [["low"], ["ref"]]
    assert {one.finding for one in tested} == {ClaimVerdict.SUPPORTED}


def test_both_ways_of_saying_it_have_the_same_answer():
    one, other = check(
        claim("1", arm="ref", against="low", direction="higher"),
        claim("2", arm="low", against="ref", direction="lower"),
    ).claims
    assert one.decisive.measured == -other.decisive.measured
    assert one.decisive.interval == (-other.decisive.interval[1], -other.decisive.interval[0])


def test_alone_its_interval_is_that_of_judge():
    study = simulated_study(ARMS, seeds=4, claims=[claim(arm="low", against="ref", direction="lower", within=0.9)])
    results = simulated_results(study)
    final = {(r.arm, r.seed): r.epochs[-1].metrics["test_acc"] for r in results}
    table = [[final[arm, s] - final["ref", s] for arm in ("close", "low")] for s in range(4)]
    (tested,) = check_claims(study, results).claims
    assert tested.decisive.interval == pytest.approx(judge(table, looks=[4], share=0.7)[1].interval, rel=1e-12)


@pytest.mark.parametrize(
    ("said", "alphas"),
    [
        ({"arm": "low", "against": "close", "direction": "lower"}, (0.1, 0.1)),
        ({"arm": "low", "against": "all others", "direction": "lower"}, (0.05, 0.1)),
        ({"arm": "low", "against": "all others", "direction": "higher"}, (0.1, 0.05)),
    ],
)
def test_an_end_that_supports_a_claim_about_one_direction_has_its_side_alone(said, alphas):
    study = simulated_study(ARMS, seeds=4, claims=[claim(**said)])
    results = simulated_results(study)
    final = {(r.arm, r.seed): r.epochs[-1].metrics["test_acc"] for r in results}
    table = [[final["low", s] - final[arm, s] for arm in ("ref", "close")] for s in range(4)]
    (tested,) = check_claims(study, results).claims
    found = {one.other: one.interval for one in tested.against}["close"]
    below, above = (judge(table, alpha=alpha, looks=[4], share=0.7)[1].interval for alpha in alphas)
    assert found == pytest.approx((below[0], above[1]), rel=1e-12)


def test_a_claim_against_all_is_wrongly_supported_in_5_percent():
    """One difference is at the edge of the claim's range, and the others are so far in that they always support it."""
    studies = 10_000
    cells = np.random.default_rng(0).normal(size=(studies, 6, 4))
    differences = cells[..., 1:] - cells[..., :1] + np.array([0.0, 20.0, 20.0])
    found = judge_many(differences, LookPlan.of(3, [3, 4, 5, 6]), alpha=0.1).finding
    assert (found == HIGHER).all(axis=1).mean() < 0.05 + 2.0 * math.sqrt(0.05 * 0.95 / studies)


def test_families_share_the_error_and_not_claims():
    near = [claim(str(n), arm="close", against="ref", within=0.01 * n) for n in range(1, 5)]
    gap = claim("gap", arm="low", against="ref", direction="higher", metric="generalisation_gap")
    one, many, two = check(near[0]), check(*near), check(near[0], gap)
    assert one.claims[0].decisive.interval == many.claims[0].decisive.interval
    plan = LookPlan.of(2, [5], share=0.7)
    ratio = float(
        plan.critical(boundary(plan).level(0.025), 0, np.array(8))
        / plan.critical(boundary(plan).level(0.05), 0, np.array(8))
    )
    half = [np.diff(found.claims[0].decisive.interval)[0] / 2 for found in (one, two)]
    assert half[1] / half[0] == pytest.approx(ratio)


# The paper's figures


def paper(arms, difference, seeds=5, **keys):
    reported = {"ref": {"best_test_acc": 0.8}, "low": {"best_test_acc": 0.8 + difference}}
    said = claim(arm="low", against="ref", direction="lower", **keys)
    return check(said, arms=arms, seeds=seeds, reported=reported).claims[0].decisive


@pytest.mark.parametrize(("difference", "plausible"), [(-0.1, True), (-0.12, True), (-0.4, False), (0.2, False)])
def test_a_figure_is_plausible_if_a_single_run_could_have_given_it(difference, plausible):
    found = paper(ARMS, difference)
    assert found.paper == pytest.approx(difference)
    assert found.plausible is plausible


def test_a_relative_figure_is_relative():
    found = paper(ARMS, -0.08, relative=True)
    assert found.paper == pytest.approx(-0.1)
    assert found.plausible is True
    assert found.measured == pytest.approx(-0.125, abs=0.03)


def test_claims_of_a_fixed_study_wait_until_every_arm_has_ended_every_seed():
    claims = [{"id": "1", "text": "b leads", "arm": "b", "against": "a", "direction": "higher"}]
    study = simulated_study({"a": {}, "b": {"mean": 0.9}, "c": {}}, seeds=4, claims=claims)
    results = simulated_results(study)
    for missing in (("a", 3), ("b", 3), ("c", 3)):
        (tested,) = check_claims(study, [r for r in results if (r.arm, r.seed) != missing]).claims
        assert (tested.finding, tested.decisive.interval) == (ClaimVerdict.UNDECIDED, None)
    assert check_claims(study, results).claims[0].finding is ClaimVerdict.SUPPORTED


def test_without_both_figures_or_with_one_seed_nothing_is_plausible_or_not():
    only = check(claim(arm="low", against="ref", within=0.9), reported={"low": {"best_test_acc": 0.7}})
    assert (only.claims[0].decisive.paper, only.claims[0].decisive.plausible) == (None, None)
    assert paper(ARMS, -0.1, seeds=1).plausible is None
    still = {name: {**arm, "noise_sd": 0.0, "weights_sd": 0.0, "order_sd": 0.0} for name, arm in ARMS.items()}
    assert paper(still, -0.1).plausible is None


def test_nineteen_of_twenty_single_runs_are_plausible():
    """The prediction interval covers what it says: new runs of each arm, seeds not shared, four runs to judge by."""
    from fairtrial.spec import Claim
    from fairtrial.stats.claims import _plausible
    from fairtrial.stats.paired import PairedData

    rng = np.random.default_rng(5)
    said = Claim(id="1", text="x", arm="a", against="b", metric="best_test_acc", direction="higher")
    inside = 0
    for _ in range(2_000):
        runs = {"a": rng.normal(0.8, 0.01, 5), "b": rng.normal(0.7, 0.02, 5)}
        values = {(arm, s): float(runs[arm][s]) for arm in runs for s in range(4)}
        data = PairedData(values, {}, frozenset(), frozenset())
        inside += bool(_plausible(data, said, "b", float(runs["a"][4] - runs["b"][4])))
    low, high = stats.binom.ppf([0.001, 0.999], 2_000, 0.95) / 2_000
    assert low - 0.005 <= inside / 2_000 <= high + 0.015  # Welch's degrees of freedom are an approximation


# What holds up


def test_lost_seeds_speak_against_an_arm():
    arms = ARMS | {"low": {"mean": 0.9, "diverge_seeds": [1]}}
    assert finding(claim(arm="low", against="ref", direction="higher"), arms=arms) == "undecided"
    assert finding(claim(arm="low", against="ref", direction="lower"), arms=arms) == "undecided"
    down = ARMS | {"low": {"mean": 0.7, "diverge_seeds": [1]}}
    found = check(claim(arm="low", against="ref", direction="lower"), arms=down).claims[0]
    assert found.finding is ClaimVerdict.SUPPORTED
    assert found.decisive.note == "low lost seed 1, which counts against it."
    assert finding(claim(arm="low", against="ref", within=0.3), arms=down) == "undecided"


def test_an_arm_without_results_leaves_its_claims_open():
    arms = ARMS | {"low": {"diverge_rate": 1.0}}
    found = check(claim(arm="ref", against="all others", direction="higher"), arms=arms).claims[0]
    assert found.finding is ClaimVerdict.UNDECIDED
    assert (found.decisive.other, found.decisive.measured, found.decisive.interval) == ("low", None, None)


def test_one_seed_and_equal_differences_have_no_interval():
    said = claim(arm="low", against="ref", direction="lower")
    one = check(said, seeds=1).claims[0]
    assert (one.finding, one.decisive.interval, one.decisive.note) == (
        ClaimVerdict.UNDECIDED,
        None,
        "One run per arm shows no spread.",
    )
    assert one.decisive.measured == pytest.approx(-0.1, abs=0.03)
    still = {name: {**arm, "noise_sd": 0.0} for name, arm in ARMS.items()}
    equal = check(said, arms=still).claims[0]
    assert equal.finding is ClaimVerdict.UNDECIDED
    assert equal.decisive.note == "All differences are equal, so there is no spread to estimate."


def test_arms_that_are_not_paired_are_refused():
    study = simulated_study(ARMS, seeds=5, claims=[claim(arm="low", against="ref", direction="lower")])
    results = [replace(r, fingerprints={"batch_order": r.arm}) for r in simulated_results(study)]
    (found,) = check_claims(study, results).claims
    assert found.finding is ClaimVerdict.UNDECIDED
    assert found.decisive.note.startswith("Refused: ")


def test_what_else_trials_differed_in_stands_beside_a_claim():
    said = claim(arm="low", against="all others", metric="seconds", within=0.5, relative=True)
    study = simulated_study(ARMS, seeds=3, claims=[said])
    results = list(simulated_results(study))
    results = [replace(r, machine=replace(r.machine, threads=1 + (r.arm == "ref"))) for r in results]
    notes = {one.other: one.note for one in check_claims(study, results).claims[0].against}
    assert notes == {"ref": "threads: 1, but 2 in ref (seeds 0, 1 and 2).", "close": ""}


def test_seeds_after_a_gap_move_no_look_of_a_sequential_study():
    said = claim(arm="low", against="ref", direction="lower")
    study = simulated_study(ARMS, seeds={"min": 3, "max": 8}, claims=[said])
    whole = [r for r in simulated_results(study) if r.seed < 3]
    more = [r for r in simulated_results(study) if r.seed < 3 or r.seed == 5]
    assert check_claims(study, more).claims == check_claims(study, whole).claims


def test_no_claims_and_one_arm():
    assert check().claims == ()
    study = simulated_study({"a": {}}, claims=[claim(arm="a", against="all others", direction="higher")])
    with pytest.raises(StudyError, match="has one arm, and a claim needs another"):
        check_claims(study, ())


def test_the_study_paper_has_an_answer_to_each_of_its_claims():
    table = fairtrial.load("paper").to_dict()
    arms = {name: {"mean": 0.8 - 0.02 * index} for index, name in enumerate(table["arms"])}
    sections = {key: table[key] for key in ("evidence", "claims", "reported")}
    study = simulated_study(arms, seeds=3, **sections)
    found = check_claims(study, simulated_results(study))
    assert [one.claim.id for one in found.claims] == list("12345678")
    assert [one.decisive.paper is None for one in found.claims] == [n == 4 for n in range(1, 9)]


@settings(max_examples=30)
@given(
    st.sampled_from([(1, 1), (3, 3), (2, 4)]),
    st.dictionaries(st.tuples(st.sampled_from(list(ARMS)), st.integers(0, 3)), st.sampled_from([*Outcome, None])),
)
def test_whatever_is_missing_no_number_is_nan(seeds, ended):
    claims = [
        claim("1", arm="ref", against="all others", direction="higher"),
        claim("2", arm="low", against="ref", within=0.1, relative=True, metric="seconds"),
    ]
    reported = {arm: {"best_test_acc": 0.8, "seconds": 700.0} for arm in ARMS}
    study = simulated_study(ARMS, seeds={"min": seeds[0], "max": seeds[1]}, claims=claims, reported=reported)
    results = [replace(r, outcome=ended.get((r.arm, r.seed), r.outcome)) for r in simulated_results(study)]
    for tested in check_claims(study, results).claims:
        for one in tested.against:
            values = [one.measured, one.paper, *(one.interval or ())]
            assert all(math.isfinite(value) for value in values if value is not None)
            assert one.interval is None or one.interval[0] < one.interval[1]


# What is controlled


@pytest.mark.slow
@pytest.mark.parametrize("sequential", [False, True])
def test_a_wrong_word_about_any_claim_is_rare(sequential):
    """True claims at the edge of their ranges and false ones just beyond: both as hard as they come.

    Of a sequential study every look is tried, and the worst counts: whoever stops it, and why, can't choose an error.
    """
    seeds = {"min": 3, "max": 6} if sequential else 4
    arms = {name: {"mean": 0.8, "noise_sd": 0.01, "gap_sd": 0.01} for name in ("a", "b", "c")}
    claims = [
        claim("edge", arm="b", against="a", direction="higher"),
        claim("beyond", arm="c", against="a", direction="lower", at_least=1e-9),
        claim("all", arm="a", against="all others", direction="higher", at_least=1e-9),
        claim("gap", arm="b", against="all others", direction="higher", metric="generalisation_gap"),
    ]
    wrong, studies = 0, 400
    for number in range(studies):
        renamed = {f"{name}{number}": arm for name, arm in arms.items()}  # other names draw other noise
        said = [
            {
                **one,
                "arm": f"{one['arm']}{number}",
                "against": one["against"] if " " in one["against"] else f"{one['against']}{number}",
            }
            for one in claims
        ]
        study = simulated_study(renamed, seeds=seeds, epochs=1, claims=said)
        results = simulated_results(study)
        looked = [[r for r in results if r.seed < look] for look in looks(study)]
        wrong += any(
            one.finding is not ClaimVerdict.UNDECIDED for some in looked for one in check_claims(study, some).claims
        )
    assert wrong / studies <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / studies)
    assert wrong > 0  # not by never saying anything

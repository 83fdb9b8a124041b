"""Limits of studies: what is just within them is allowed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairtrial.errors import StudyError
from fairtrial.spec import Study, limits, parse_toml
from fairtrial.spec.limits import check_table, name_problem

OWN = {"name": "s", "reference": "a", "training": {"loop": "mine:train"}}


def test_a_study_at_its_limits_is_allowed():
    study = Study(
        **{**OWN, "name": "n" * limits.LONGEST_NAME},
        seeds=limits.MOST_TRIALS,
        arms={"a": {"label": "l" * limits.LONGEST_LABEL}},
        params={
            "p" * limits.LONGEST_NAME: "t" * limits.LONGEST_TEXT,
            "entries": [0] * limits.MOST_ENTRIES,
            "integers": [-(2**63), 2**63 - 1],
        },
        noise={"first_seed": limits.LARGEST_SEED},
    )
    again = Study.from_toml(study.to_toml())
    assert (again, again.hash) == (study, study.hash)


def test_arms_and_seeds_together_make_the_trials():
    arms = {"a": {}, "b": {"params": {"x": 1}}}
    assert Study(**OWN, arms=arms, seeds=limits.MOST_TRIALS // 2).seeds == 500_000
    with pytest.raises(StudyError, match=r"^seeds: 500,001 of 2 arms are 1,000,002 trials; a study has at"):
        Study(**OWN, arms=arms, seeds=limits.MOST_TRIALS // 2 + 1)


@pytest.mark.parametrize(
    "text",
    [
        'a = "' + "one. two. " * 70 + '"',  # prose
        "a = [" + "0.1, " * 500 + "]",
        "# " + "." * 200,
        'a = "' + "..." * 50 + '"',
        ".".join("a" * 30) + " = 1",
    ],
)
def test_dots_that_are_no_deep_key_are_allowed(text):
    assert parse_toml(text) is not None


@given(
    st.recursive(
        st.none() | st.floats() | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")), st.lists
    )
)
def test_values_of_any_shape_within_the_limits_pass(value):
    check_table({"a": value})


@given(st.text())
def test_a_name_is_usable_if_it_is_printable(name):
    assert (name_problem(name) == "") == name.isprintable()

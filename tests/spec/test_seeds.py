"""Seeds of a study: a number, a range, a first one, a list; and overrides of each."""

import pytest

from fairtrial.errors import StudyError
from fairtrial.scheduler import plan
from fairtrial.spec import Study, override
from fairtrial.trial import TrialContext


def table(seeds, **changes):
    """A small valid study with these seeds."""
    return {
        "name": "s",
        "reference": "a",
        "seeds": seeds,
        "arms": {"a": {}, "b": {"optimizer": {"eps": 1e-6}}},
    } | changes


def seeds_of(study):
    """The seeds of weights and order that the reference is trained with."""
    return [(trial.weights_seed, trial.order_seed) for trial in plan(study) if trial.arm == "a"]


FORMS = {
    "a first one": ({"first": 100, "count": 3}, [100, 101, 102], 3),
    "a range from a first one": ({"first": 7, "min": 2, "max": 4}, [7, 8, 9, 10], 2),
    "from 0": ({"first": 0, "count": 2}, [0, 1], 2),
    "a list": ([3, 17, 42], [3, 17, 42], 3),
    "a list in another order": ([42, 3], [42, 3], 2),
    "one seed": ([5], [5], 1),
}


@pytest.mark.parametrize(("seeds", "found", "least"), FORMS.values(), ids=FORMS)
def test_a_study_has_the_seeds_that_it_names(seeds, found, least):
    study = Study.from_dict(table(seeds))
    assert seeds_of(study) == [(seed, seed) for seed in found]
    assert (study.min_seeds, study.seeds) == (least, len(found))
    again = Study.from_toml(study.to_toml())
    assert (again, again.hash) == (study, study.hash)
    assert [TrialContext(trial).seed for trial in plan(study)[::2]] == found


def test_the_same_seeds_are_the_same_study():
    first = Study.from_dict(table({"first": 100, "count": 3}))
    assert Study.from_dict(table([100, 101, 102])).hash == first.hash
    assert Study.from_dict(table(3, noise={"first_seed": 100})).hash == first.hash
    assert Study.from_dict(table({"first": 0, "count": 2})).hash == Study.from_dict(table(2)).hash
    assert Study.from_dict(table([3, 17, 42])).hash != Study.from_dict(table([17, 3, 42])).hash


def test_seeds_added_to_a_list_train_no_trial_twice():
    before, after = (Study.from_dict(table(seeds)) for seeds in ([3, 17], [3, 17, 42]))
    assert {trial.hash for trial in plan(before)} < {trial.hash for trial in plan(after)}


def test_two_sources_of_noise_leave_a_loop_the_number_of_the_replicate():
    study = Study.from_dict(table(3, noise={"batch_orders": 1}))
    assert [TrialContext(trial).seed for trial in plan(study)[::2]] == [0, 1, 2]


@pytest.mark.parametrize(
    ("seeds", "override_with", "found"),
    [
        ({"first": 100, "count": 3}, "seeds=2", [100, 101]),
        ({"first": 100, "count": 3}, "seeds.count=2", [100, 101]),
        ({"first": 100, "count": 3}, "seeds={min=2, max=4}", [100, 101, 102, 103]),
        ({"first": 100, "count": 3}, "seeds.max=4", [100, 101, 102, 103]),
        ({"first": 100, "count": 3}, "seeds.first=5", [5, 6, 7]),
        ({"first": 100, "min": 2, "max": 4}, "seeds={first=5, count=2}", [5, 6]),
        ({"first": 100, "min": 2, "max": 4}, "seeds=3", [100, 101, 102]),
        (3, "seeds.first=5", [5, 6, 7]),
        (3, "seeds={first=5, count=1}", [5]),
        (3, "seeds=[8, 2]", [8, 2]),
        ([3, 17, 42], "seeds=2", [0, 1]),
        ([3, 17, 42], "seeds={min=1, max=2}", [0, 1]),
    ],
)
def test_overrides_keep_the_first_seed(seeds, override_with, found):
    assert seeds_of(Study.from_dict(override(table(seeds), [override_with]))) == [(seed, seed) for seed in found]


ERRORS = {
    "count and max": ({"first": 1, "count": 2, "max": 3}, {}, "has count as well as min and max; write one of the two"),
    "twice": ([1, 2, 1], {}, "seeds.listed = [1, 2, 1]: seed 1 is listed twice"),
    "below 0": ([-1, 2], {}, "seeds.listed[0] = -1: must be an integer of at least 0"),
    "no integer": ([1, 2.5], {}, "seeds.listed[1] = 2.5: must be an integer"),
    "a first one below 0": ({"first": -1, "count": 2}, {}, "seeds.first = -1: must be an integer of at least 0"),
    "too large": ({"first": 2**53, "count": 2}, {}, "must be at most 9,007,199,254,740,992"),
    "no count": ({"first": 5}, {}, "seeds.min: is missing"),
    "two firsts": ({"first": 5, "count": 2}, {"noise": {"first_seed": 9}}, "noise.first_seed: seeds already says"),
    "a list and a design": ([3, 9], {"noise": {"batch_orders": 1}}, "a design in [noise] has seeds of its own"),
    "the list elsewhere": (2, {"noise": {"listed": [3, 9]}}, "noise.listed: write seeds = [3, 9]"),
    "a listed range": ({"listed": [3, 9]}, {}, "must be an integer of at least 1, a range such as"),
}


@pytest.mark.parametrize(("seeds", "changes", "message"), ERRORS.values(), ids=ERRORS)
def test_wrong_seeds_are_an_error_that_says_what_is_allowed(seeds, changes, message):
    with pytest.raises(StudyError) as raised:
        Study.from_dict(table(seeds, **changes))
    assert message in str(raised.value)

"""What is asked of the records: the range that a claim means, the designs of noise."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairtrial.spec import Claim, Evidence, Noise, Target

INF = math.inf


@pytest.mark.parametrize(
    ("says", "region"),
    [
        ({"direction": "higher"}, (0.0, INF)),
        ({"direction": "lower"}, (-INF, 0.0)),
        ({"direction": "higher", "at_least": 0.1}, (0.1, INF)),
        ({"direction": "lower", "at_least": 0.1}, (-INF, -0.1)),
        ({"direction": "higher", "at_least": -0.1}, (-0.1, INF)),
        ({"within": 0.2}, (-0.2, 0.2)),
        ({"direction": "lower", "within": 0.2}, (-0.2, 0.0)),
        ({"direction": "higher", "at_least": 0.1, "within": 0.2}, (0.1, 0.2)),
    ],
)
def test_a_claim_is_a_range_for_a_difference(says, region):
    claim = Claim(id="1", text="t", arm="a", against="b", metric="best_test_acc", **says)
    assert claim.region == region
    assert math.copysign(1, claim.region[1]) == math.copysign(1, region[1])  # no -0.0 for reports to show


@pytest.mark.parametrize(
    ("metric", "direction", "larger"),
    [
        ("best_test_acc", None, True),
        ("final_train_loss", None, False),
        ("final_x", "higher", True),
        ("final_x", "lower", False),
        ("seconds", "lower", False),
    ],
)
def test_the_evidence_knows_which_way_is_better(metric, direction, larger):
    assert Evidence(metric=metric, direction=direction).larger_is_better is larger


def test_a_target_is_reached_from_the_right_side():
    assert Target(metric="test_acc", value=0.6).larger_is_better
    assert not Target(metric="train_loss", value=0.6).larger_is_better


def test_seeds_vary_both_sources_of_noise_unless_told_otherwise():
    assert [Noise().of(seed) for seed in range(3)] == [(0, 0), (1, 1), (2, 2)]
    assert [Noise(initial_weights=1).of(seed) for seed in range(3)] == [(0, 0), (0, 1), (0, 2)]
    assert [Noise(batch_orders=1).of(seed) for seed in range(3)] == [(0, 0), (1, 0), (2, 0)]
    assert {Noise().crossed, Noise(initial_weights=1).crossed, Noise(batch_orders=1).crossed} == {None}


@given(st.integers(1, 12), st.integers(1, 12))
def test_a_crossed_design_meets_every_pair_once_beginning_with_the_plain_seeds(weights, orders):
    if weights * orders == 1:
        return
    noise = Noise(initial_weights=weights, batch_orders=orders)
    pairs = [noise.of(seed) for seed in range(noise.crossed)]
    assert sorted(pairs) == [(i, j) for i in range(weights) for j in range(orders)]
    assert pairs[: min(weights, orders)] == [(seed, seed) for seed in range(min(weights, orders))]
    # a trial whose two seeds are its number is shared with plain studies, so no other number may have such a pair
    assert all(seed == i for seed, (i, j) in enumerate(pairs) if i == j)


def test_fresh_seeds_begin_elsewhere_in_every_design():
    assert Noise(first_seed=1000).of(3) == (1003, 1003)
    assert Noise(first_seed=1000, batch_orders=1).of(3) == (1003, 1000)
    plain, fresh = Noise(initial_weights=2, batch_orders=3), Noise(initial_weights=2, batch_orders=3, first_seed=1000)
    assert [fresh.of(seed) for seed in range(6)] == [(1000 + i, 1000 + j) for i, j in map(plain.of, range(6))]
    assert (Noise(first_seed=7).designed, plain.designed) == (False, True)

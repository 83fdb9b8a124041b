"""Loops with an x-ray are checked as all others, and it does not show in what is checked."""

import pytest

import fairtrial
from fairtrial.doctor import CheckStatus


@pytest.mark.slow
def test_a_loop_with_an_x_ray_is_sound_and_resumes(make_study):
    training = {"epochs": 3, "loop": "xray_loops:train"}
    arms = {"a": {}, "b": {"optimizer": {"lr": 0.01}}}
    told = fairtrial.check(make_study(training=training, arms=arms))
    assert [one.detail for one in told.findings if one.state is CheckStatus.BAD] == []
    assert {"same bits", "resuming", "settings"} <= {one.part for one in told.findings}

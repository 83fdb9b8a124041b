"""The cosine schedule against its closed form."""

import numpy as np
import pytest
import torch

from fairtrial.training.schedules.cosine import Cosine
from trajectories import rates, torch_rates


def test_cosine_is_half_a_cosine():
    expected = 2 * (0.1 + 0.9 * (1 + np.cos(np.pi * np.arange(20) / 20)) / 2)
    np.testing.assert_allclose(rates(Cosine(final=0.1)), expected)


def test_a_warm_up_as_long_as_the_training_has_no_fall():
    assert Cosine(warmup_epochs=5).lr_factor(5, 5) == 0.0
    assert Cosine(warmup_epochs=5).lr_factor(2.5, 5) == 0.5


@pytest.mark.parametrize(("per", "total"), [("step", 20), ("epoch", 5)])
def test_cosine_is_torchs(per, total):
    expected = torch_rates(torch.optim.lr_scheduler.CosineAnnealingLR, per=per, T_max=total, eta_min=0.2)
    np.testing.assert_allclose(rates(Cosine(final=0.1, per=per)), expected, rtol=1e-12)

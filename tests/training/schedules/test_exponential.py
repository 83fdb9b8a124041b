"""The exponential schedule against its closed form."""

import numpy as np
import torch

from fairtrial.training.schedules.exponential import Exponential
from trajectories import rates, torch_rates


def test_every_epoch_multiplies_the_rate():
    np.testing.assert_allclose(rates(Exponential(gamma=0.5)), 2 * 0.5 ** (np.arange(20) / 4), rtol=1e-15)


def test_after_a_warm_up_the_fall_begins_at_the_full_rate():
    seen = rates(Exponential(gamma=0.1, warmup_epochs=1))
    np.testing.assert_allclose(seen[:4], [0.5, 1.0, 1.5, 2.0])
    np.testing.assert_allclose(seen[4:], 2 * 0.1 ** (np.arange(16) / 4), rtol=1e-14)


def test_per_epoch_it_is_torchs():
    expected = torch_rates(torch.optim.lr_scheduler.ExponentialLR, gamma=0.7)
    np.testing.assert_allclose(rates(Exponential(gamma=0.7, per="epoch")), expected, rtol=1e-14)

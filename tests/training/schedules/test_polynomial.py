"""The polynomial schedule against torch's own and its closed form."""

import numpy as np
import pytest
import torch

from fairtrial.training.schedules.polynomial import Polynomial
from trajectories import rates, torch_rates


@pytest.mark.parametrize("power", [1.0, 0.9, 2.0])
def test_polynomial_is_torchs(power):
    of_torch = torch.optim.lr_scheduler.PolynomialLR
    expected = torch_rates(of_torch, per="step", total_iters=20, power=power)
    np.testing.assert_allclose(rates(Polynomial(power=power)), expected, rtol=1e-12)
    expected = torch_rates(of_torch, total_iters=5, power=power)
    np.testing.assert_allclose(rates(Polynomial(power=power, per="epoch")), expected, rtol=1e-12)


def test_a_polynomial_after_a_warm_up_ends_at_its_final_rate():
    seen = rates(Polynomial(power=2.0, warmup_epochs=1, final=0.5))
    np.testing.assert_allclose(seen[:4], [0.5, 1.0, 1.5, 2.0])
    np.testing.assert_allclose(seen[4:], 2 * (0.5 + 0.5 * (1 - np.arange(16) / 16) ** 2))

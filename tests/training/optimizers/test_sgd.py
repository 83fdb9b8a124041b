"""SGD against a float64 NumPy reading of its formula."""

import numpy as np

from fairtrial.training.optimizers.sgd import SGD
from trajectories import descend, gradients


def test_sgd_with_nesterov_momentum():
    grads = gradients()
    theta, velocity = np.ones((7, 5)), np.zeros((7, 5))
    for g in grads:
        decayed = g + 0.01 * theta
        velocity = 0.9 * velocity + decayed
        theta = theta - 0.05 * (decayed + 0.9 * velocity)
    settings = SGD(lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.01)
    # torch starts the velocity at the first gradient, which is what zero velocity gives without dampening
    np.testing.assert_allclose(descend(settings, grads), theta, rtol=1e-11)

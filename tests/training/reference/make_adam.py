"""Record where Keras's own Adam takes weights in 1,000 steps, in float64, on the gradients of `formula`.

Writes adam.json beside this file; the versions that made it stand at its top. Needs Keras 3 on TensorFlow, and NumPy::

    python -m venv env && env/bin/pip install keras==3.15.1 tensorflow-cpu==2.21.0
    env/bin/python tests/training/reference/make_adam.py
"""

from pathlib import Path

import formula
import keras
import numpy as np
import tensorflow as tf


def weights_after(betas: tuple[float, float], eps: float) -> dict[str, list[float]]:
    """The weights, which begin at 0, after some of the steps.

    Keras casts plain numbers on TensorFlow by way of float32, in every precision, so that 1 - 0.999 is off by 1e-5. A
    NumPy number keeps its float64.
    """
    first, second = map(np.float64, betas)
    optimizer = keras.optimizers.Adam(1e-3, beta_1=first, beta_2=second, epsilon=eps)
    gradients = formula.gradients(max(formula.ADAM_STEPS))
    variable = keras.Variable(np.zeros(gradients.shape[1]), dtype="float64")
    found = {}
    for step, gradient in enumerate(gradients, start=1):
        optimizer.apply([tf.constant(gradient)], [variable])
        if step in formula.ADAM_STEPS:
            found[str(step)] = [float(value) for value in variable.numpy()]
    return found


def main() -> None:
    """Make the record."""
    keras.config.set_floatx("float64")
    formula.write(
        Path(__file__).with_name("adam.json"),
        {"keras": keras.__version__, "tensorflow": tf.__version__},
        weights=[weights_after(**settings) for settings in formula.ADAMS],
    )


if __name__ == "__main__":
    main()

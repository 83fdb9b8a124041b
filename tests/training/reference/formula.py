"""Weights and images from closed formulas, so that two libraries can be compared without storing either.

Integer arithmetic and correctly rounded operations only: the values are the same to the bit on every machine and with
every version of NumPy, and each is a float32. The scripts ``make_*.py`` beside this file and the tests both use it.
"""

import json
import math
import platform
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

BATCH = 4
CLASSES = 10

#: (height, width of the images, width multiplier, stem) of each recorded pass. An axis of 32 or 64 is even before every
#: convolution of stride 2, one of 33 odd before every one, and one of 40 is even three times and odd twice.
CASES = (
    ((32, 32), 1.0, "stock"),
    ((33, 33), 1.0, "stock"),
    ((64, 64), 1.0, "stock"),
    ((32, 32), 0.5, "stock"),
    ((33, 33), 0.5, "stock"),
    ((64, 64), 0.5, "stock"),
    ((40, 33), 0.5, "stock"),
    ((32, 32), 1.0, "cifar"),
)

#: Width multipliers whose channels are recorded. At 0.742 the libraries differ.
WIDTHS = (0.1, 0.25, 0.35, 0.5, 0.742, 0.75, 1.0, 1.3, 1.4, 2.0)


def values(name: str, shape: tuple[int, ...]) -> Array:
    """Numbers spread evenly over [-1, 1), different for each name: the mixing steps of SplitMix64 on a counter."""
    salt = np.uint64(zlib.crc32(name.encode()) << 32)
    mixed = np.arange(math.prod(shape), dtype=np.uint64) + salt
    mixed *= np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    return ((mixed >> np.uint64(40)).astype(np.float64) / 2**23 - 1).reshape(shape)


def tensor(name: str, shape: tuple[int, ...]) -> Array:
    """One tensor of a state_dict, by torchvision's name and shape; its scale keeps signals alive through all layers."""
    raw = values(name, shape)
    if name.endswith("num_batches_tracked"):
        scaled = np.zeros(shape)
    elif name.endswith("running_mean"):
        scaled = 0.1 * raw
    elif len(shape) > 1:
        scaled = raw * math.sqrt(6 / math.prod(shape[1:]))
    else:
        scaled = 0.25 * raw if name.endswith("bias") else 1 + 0.5 * raw
    return scaled.astype(np.float32).astype(np.float64)


def images(height: int, width: int) -> Array:
    """A batch of images in [0, 1), shape (batch, 3, height, width)."""
    return (values("images", (BATCH, 3, height, width)) + 1) / 2


def summary(array: Array) -> list[float]:
    """The mean, and a mean with a random weight for each place: two numbers that change when anything does."""
    array = np.ascontiguousarray(array, dtype=np.float64)
    return shortened([array.mean(), (array * values("weights of the mean", array.shape)).mean()])


def shortened(array: Array | list[float]) -> list[float]:
    """Flat list of numbers with twelve significant digits."""
    return [float(f"{value:.11e}") for value in np.ravel(array)]


def spread(array: Array) -> list[float]:
    """Mean, standard deviation and largest magnitude of initial weights."""
    return [float(f"{value:.6e}") for value in (array.mean(), array.std(), np.abs(array).max())]


def write(path: Path, versions: dict[str, str], **parts: object) -> None:
    """Write a record as JSON, one part or one case a line."""
    parts = {"versions": {"python": platform.python_version(), "numpy": np.__version__, **versions}, **parts}
    lines = []
    for name, part in parts.items():
        body = json.dumps(part, separators=(",", ":"))
        if isinstance(part, list):
            body = "[\n" + ",\n".join(json.dumps(case, separators=(",", ":")) for case in part) + "\n]"
        lines.append(f"{json.dumps(name)}: {body}")
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


#: Adam's settings in the recorded runs: the paper's arms, and Keras's own defaults.
ADAMS = (
    {"betas": (0.9, 0.999), "eps": 1e-8},
    {"betas": (0.95, 0.999), "eps": 1e-8},
    {"betas": (0.9, 0.99), "eps": 1e-8},
    {"betas": (0.9, 0.999), "eps": 1e-6},
    {"betas": (0.99, 0.9999), "eps": 1e-7},
    {"betas": (0.9, 0.999), "eps": 1e-7},
)
#: Steps after which its weights are recorded.
ADAM_STEPS = (1, 10, 100, 1000)


def gradients(steps: int, weights: int = 12) -> Array:
    """Gradients for an optimizer, (steps, weights): each weight's are an eighth as large as those of the one before.

    The smallest are near 1e-10, far below the epsilons, and the largest near 1.
    """
    step, weight = np.arange(steps)[:, None], np.arange(weights)[None, :]
    waves = ((step * 7919 + weight * 104_729 + step * step * 31) % 2003 - 700) / 1301
    return np.asarray(waves * np.ldexp(1.0, -3 * weight))

"""Save a small network as Keras's legacy HDF5, in both of its forms, and record what it computes.

Writes weights.h5, whole_model.h5 and keras_file.json beside this file. Needs Keras 3 on TensorFlow::

    python -m venv env && env/bin/pip install keras==3.15.1 tensorflow-cpu==2.21.0
    env/bin/python tests/training/reference/make_keras_file.py
"""

import json
from pathlib import Path

import h5py
import keras
import numpy as np
from keras.src.legacy.saving import legacy_h5_format

HERE = Path(__file__).parent


def network() -> keras.Model:
    """A strided, a depthwise and a pointwise convolution with batch norms, and a classifier."""
    layers = keras.layers
    return keras.Sequential(
        [
            layers.Input((9, 9, 3)),
            layers.Conv2D(4, 3, strides=2, use_bias=False, name="stem"),
            layers.BatchNormalization(epsilon=1e-3, name="stem_norm"),
            layers.DepthwiseConv2D(3, use_bias=False, name="depthwise"),
            layers.BatchNormalization(epsilon=1e-3, name="depthwise_norm"),
            layers.ReLU(6.0),
            layers.Conv2D(6, 1, name="pointwise"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(5, name="predictions"),
        ]
    )


def main() -> None:
    """Make the files."""
    random = np.random.default_rng(0)
    made = network()
    for variable in made.variables:
        variable.assign(random.uniform(0.5, 1.5, variable.shape))
    images = random.uniform(size=(2, 9, 9, 3)).astype(np.float32)
    made.save(HERE / "whole_model.h5")  # with the weights in a group of their own
    with h5py.File(HERE / "weights.h5", "w") as file:  # as save_weights of Keras 2, and the files of keras.applications
        legacy_h5_format.save_weights_to_hdf5_group(file, made)
    record = {
        "keras": keras.__version__,
        "images": images.transpose(0, 3, 1, 2).tolist(),
        "logits": np.asarray(made(images)).tolist(),
    }
    (HERE / "keras_file.json").write_text(json.dumps(record) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

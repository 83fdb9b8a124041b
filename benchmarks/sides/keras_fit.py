"""One side of a comparison: the paper's own stack, as its text reads. Needs keras and tensorflow-cpu.

Trains the paper's arms one after another with `model.fit` and prints one line of JSON.
"""

import argparse
import json
import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

ARMS = [(0.9, 0.999, 1e-8), (0.95, 0.999, 1e-8), (0.9, 0.99, 1e-8), (0.9, 0.999, 1e-6), (0.99, 0.9999, 1e-7)]


def main() -> None:
    """Load the arrays that the benchmark made, train, print seconds and images."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--arrays", required=True)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--arms", type=int, default=len(ARMS))
    options = parser.parse_args()
    arrays = np.load(options.arrays)
    x_train, x_test = (arrays[name].astype("float32") / 255 for name in ("x_train", "x_test"))
    losses = []
    started = time.perf_counter()
    for beta1, beta2, epsilon in ARMS[: options.arms]:
        keras.utils.set_random_seed(0)
        base = keras.applications.MobileNetV2(weights=None, input_shape=(32, 32, 3), include_top=False)
        pooled = keras.layers.GlobalAveragePooling2D()(base.output)
        model = keras.Model(base.input, keras.layers.Dense(10)(pooled))
        model.compile(
            optimizer=keras.optimizers.Adam(1e-3, beta_1=beta1, beta_2=beta2, epsilon=epsilon),
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
        )
        history = model.fit(
            x_train,
            arrays["y_train"],
            batch_size=64,
            epochs=options.epochs,
            validation_data=(x_test, arrays["y_test"]),
            verbose=0,
        )
        losses.append(history.history["loss"][-1])
    seconds = time.perf_counter() - started
    images = options.arms * options.epochs * len(x_train)
    versions = {"keras": keras.__version__, "backend": keras.backend.backend()}
    print(json.dumps({"seconds": seconds, "images": images, "losses": losses, "versions": versions}))


if __name__ == "__main__":
    main()

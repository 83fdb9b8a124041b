"""Keras's `fit` as a training loop, with the paper's network on the torch backend; keras_loop.toml is its study."""

import os

os.environ.setdefault("KERAS_BACKEND", "torch")  # or "tensorflow" or "jax"; nothing below depends on it

import keras
from sklearn.datasets import load_digits

import fairtrial as ft


def arrays(train, test):
    """Make 32x32 RGB images of scikit-learn's digits, so that nothing is downloaded."""
    digits = load_digits()
    images = (digits.images / 16).repeat(4, axis=1).repeat(4, axis=2)[..., None].repeat(3, axis=3).astype("float32")
    return (images[:train], digits.target[:train]), (images[-test:], digits.target[-test:])


def network(width):
    """Build MobileNetV2 (Sandler et al. 2018) without its ImageNet classifier, as the paper does."""
    base = keras.applications.MobileNetV2((32, 32, 3), alpha=width, include_top=False, weights=None)
    pooled = keras.layers.GlobalAveragePooling2D()(base.output)
    return keras.Model(base.input, keras.layers.Dense(10, activation="softmax")(pooled))


@ft.reporting
def train(trial, report):
    """Train as always; only the callback is fairtrial's."""
    adam, params = trial.settings.optimizer, trial.settings.params
    keras.utils.set_random_seed(trial.weights_seed)  # the same initial weights for all arms of a seed
    model = network(params["width"])
    trial.fingerprint(initial_weights=ft.fingerprint(weights(model)))
    model.compile(
        optimizer=keras.optimizers.Adam(adam.lr, beta_1=adam.betas[0], beta_2=adam.betas[1], epsilon=adam.eps),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    keras.utils.set_random_seed(trial.order_seed)  # and the same order of batches

    def on_epoch_end(_epoch, logs):
        report({"train_loss": logs["loss"], "train_acc": logs["accuracy"], "test_acc": logs["val_accuracy"]})

    images, test = arrays(params["train"], params["test"])
    model.fit(
        *images,
        batch_size=trial.settings.training.batch_size,
        epochs=trial.epochs,
        validation_data=test,
        callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=on_epoch_end)],
        verbose=0,
    )


def weights(model):
    """Give the weights by name, for a fingerprint."""
    return ((weight.path, keras.ops.convert_to_numpy(weight)) for weight in model.weights)

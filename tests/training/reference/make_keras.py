"""Record what Keras's own MobileNetV2 computes, in float64, on the weights and images of `formula`.

Writes keras.json beside this file; the versions that made it stand at its top. Tensors go by torchvision's names and
are in torch's layout. Needs Keras 3 on TensorFlow, and NumPy::

    python -m venv env && env/bin/pip install keras==3.15.1 tensorflow-cpu==2.21.0
    env/bin/python tests/training/reference/make_keras.py
"""

from pathlib import Path

import formula
import keras
import numpy as np
import tensorflow as tf

BLOCKS = 17
TORCH_NAMES = {
    "kernel": "weight",
    "gamma": "weight",
    "beta": "bias",
    "bias": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}


def layer_names() -> dict[str, str]:
    """Keras's name of each layer by torchvision's, in the order of the layers."""
    names = {"features.0.0": "Conv1", "features.0.1": "bn_Conv1"}
    for block in range(BLOCKS):
        ours, theirs = f"features.{block + 1}.conv", f"block_{block}_" if block else "expanded_conv_"
        parts = ["expand", "depthwise"] if block else ["depthwise"]
        for place, part in enumerate(parts):
            names |= {f"{ours}.{place}.0": theirs + part, f"{ours}.{place}.1": f"{theirs}{part}_BN"}
        names |= {f"{ours}.{len(parts)}": f"{theirs}project", f"{ours}.{len(parts) + 1}": f"{theirs}project_BN"}
    last = f"features.{BLOCKS + 1}"
    return names | {f"{last}.0": "Conv_1", f"{last}.1": "Conv_1_bn", "classifier.1": "logits"}


def stage_names(base: keras.Model) -> list[str]:
    """Name of the layer whose output is that of each of torchvision's ``features``."""
    have = {layer.name for layer in base.layers}
    blocks = [f"block_{block}_add" for block in range(1, BLOCKS)]
    blocks = [name if name in have else name.replace("add", "project_BN") for name in blocks]
    return ["Conv1_relu", "expanded_conv_project_BN", *blocks, "out_relu"]


def network(size: tuple[int, int], width: float, stem: str = "stock") -> keras.Model:
    """Keras's network up to the logits; its outputs are those and every stage's.

    The small-image stem is made of it by changing two strides. Only for sizes that 32 divides: Keras fixes the padding
    of later layers when it makes them, for the sizes that the stock stem gives.
    """
    base = keras.applications.MobileNetV2(input_shape=(*size, 3), alpha=width, include_top=False, weights=None)
    if stem == "cifar":
        config = base.get_config()
        layers = {layer["config"]["name"]: layer["config"] for layer in config["layers"]}
        layers["Conv1"]["strides"] = (1, 1)
        layers["block_1_pad"]["padding"] = ((0, 0), (0, 0))
        layers["block_1_depthwise"] |= {"strides": (1, 1), "padding": "same"}
        base = keras.Model.from_config(config)
    pooled = keras.layers.GlobalAveragePooling2D()(base.output)
    logits = keras.layers.Dense(formula.CLASSES, name="logits")(pooled)
    stages = [base.get_layer(name).output for name in stage_names(base)]
    return keras.Model(base.input, [logits, *stages])


def torch_layout(layer: keras.layers.Layer, array: np.ndarray) -> np.ndarray:
    """A Keras kernel in torch's layout; any other tensor as it is."""
    if isinstance(layer, keras.layers.DepthwiseConv2D):
        return array.transpose(2, 3, 0, 1)
    return array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T


def keras_layout(layer: keras.layers.Layer, array: np.ndarray) -> np.ndarray:
    """The inverse of `torch_layout`."""
    if isinstance(layer, keras.layers.DepthwiseConv2D):
        return array.transpose(2, 3, 0, 1)
    return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T


def tensors(made: keras.Model) -> dict[str, tuple[keras.layers.Layer, keras.Variable]]:
    """Every weight and running statistic by torchvision's name, with the layer that it belongs to."""
    found = {}
    for ours, theirs in layer_names().items():
        layer = made.get_layer(theirs)
        for variable in layer.variables:
            found[f"{ours}.{TORCH_NAMES[variable.name]}"] = (layer, variable)
    unnamed = {v.path for v in made.variables} - {v.path for _, v in found.values()}
    if unnamed:
        raise SystemExit(f"no name for {unnamed}")
    return found


def run(made: keras.Model, images: tf.Tensor, *, training: bool) -> dict[str, object]:
    """Logits, and a summary of what each stage puts out, of one pass."""
    logits, *stages = made(images, training=training)
    return {
        "logits": formula.shortened(logits.numpy()),
        "stages": [formula.summary(stage.numpy().transpose(0, 3, 1, 2)) for stage in stages],
    }


def case(size: tuple[int, int], width: float, stem: str) -> dict[str, object]:
    """One pass in inference mode, then one in training mode and the running statistics after it."""
    made = network(size, width, stem)
    found = tensors(made)
    for name, (layer, variable) in found.items():
        shape = torch_layout(layer, variable.numpy()).shape
        variable.assign(keras_layout(layer, formula.tensor(name, shape)))
    images = tf.constant(formula.images(*size).transpose(0, 2, 3, 1))
    inference, training = run(made, images, training=False), run(made, images, training=True)
    running = {name: formula.summary(variable.numpy()) for name, (_, variable) in found.items() if ".running_" in name}
    return {
        "size": size,
        "width": width,
        "stem": stem,
        "inference": inference,
        "training": {**training, "running": running},
    }


def main() -> None:
    """Make the record."""
    keras.config.set_floatx("float64")
    keras.utils.set_random_seed(0)
    fresh = tensors(network((32, 32), 1.0))
    formula.write(
        Path(__file__).with_name("keras.json"),
        {"keras": keras.__version__, "tensorflow": tf.__version__},
        channels={
            str(width): [
                variable.shape[0]
                for name, (_, variable) in tensors(network((32, 32), width)).items()
                if name.endswith("running_mean")
            ]
            for width in formula.WIDTHS
        },
        parameters={"10": sum(int(np.prod(v.shape)) for v in network((32, 32), 1.0).trainable_variables)},
        initial={
            name: formula.spread(torch_layout(layer, variable.numpy())) for name, (layer, variable) in fresh.items()
        },
        cases=[case(*each) for each in formula.CASES],
    )


if __name__ == "__main__":
    main()

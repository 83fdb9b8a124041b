"""Record what torchvision's own MobileNetV2 computes, in float64, on the weights and images of `formula`.

Writes torchvision.json beside this file; the versions that made it stand at its top. Needs torchvision, and NumPy::

    python -m venv env && env/bin/pip install torch==2.14.1 torchvision==0.29.1
    env/bin/python tests/training/reference/make_torchvision.py
"""

from pathlib import Path

import formula
import torch
import torchvision
from torch import nn

STAGES = [[1, 16, 1, 1], [6, 24, 2, 2], [6, 32, 3, 2], [6, 64, 4, 2], [6, 96, 3, 1], [6, 160, 3, 2], [6, 320, 1, 1]]


def network(width: float, stem: str = "stock", classes: int = formula.CLASSES) -> nn.Module:
    """torchvision's network; the small-image stem is made of it by changing two strides."""
    stages = [list(stage) for stage in STAGES]
    if stem == "cifar":
        stages[1][3] = 1
    made = torchvision.models.mobilenet_v2(
        num_classes=classes, width_mult=width, inverted_residual_setting=stages, dropout=0.0
    )
    if stem == "cifar":
        made.features[0][0].stride = (1, 1)
    return made


def run(made: nn.Module, images: torch.Tensor) -> dict[str, object]:
    """Logits, and a summary of what each stage puts out, of one pass."""
    stages: list[list[float]] = []
    hooks = [
        stage.register_forward_hook(lambda _, __, output: stages.append(formula.summary(output.numpy())))
        for stage in made.features
    ]
    logits = made(images)
    for hook in hooks:
        hook.remove()
    return {"logits": formula.shortened(logits.numpy()), "stages": stages}


@torch.no_grad()
def case(size: tuple[int, int], width: float, stem: str) -> dict[str, object]:
    """One pass in inference mode, then one in training mode and the running statistics after it."""
    made = network(width, stem).double()
    shapes = {name: tuple(value.shape) for name, value in made.state_dict().items()}
    made.load_state_dict({name: torch.as_tensor(formula.tensor(name, shape)) for name, shape in shapes.items()})
    images = torch.from_numpy(formula.images(*size))
    inference, training = run(made.eval(), images), run(made.train(), images)
    running = {name: formula.summary(value.numpy()) for name, value in made.state_dict().items() if ".running_" in name}
    return {
        "size": size,
        "width": width,
        "stem": stem,
        "inference": inference,
        "training": {**training, "running": running},
    }


def main() -> None:
    """Make the record."""
    torch.manual_seed(0)
    initial = {
        name: formula.spread(value.double().numpy()) for name, value in network(1.0).state_dict().items() if value.dim()
    }
    widths = {
        str(width): {name: list(value.shape) for name, value in network(width).state_dict().items()}
        for width in formula.WIDTHS
    }
    formula.write(
        Path(__file__).with_name("torchvision.json"),
        {"torch": torch.__version__, "torchvision": torchvision.__version__},
        shapes=widths.pop("1.0"),
        channels={
            width: [shape[0] for name, shape in shapes.items() if name.endswith("running_mean")]
            for width, shapes in widths.items()
        },
        parameters={
            str(classes): sum(p.numel() for p in network(1.0, classes=classes).parameters()) for classes in (10, 1000)
        },
        initial=initial,
        cases=[case(*each) for each in formula.CASES],
    )


if __name__ == "__main__":
    main()

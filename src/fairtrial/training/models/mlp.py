"""A multilayer perceptron, for small images and for tables."""

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from fairtrial.registry import MODELS
from fairtrial.spec.numbers import BelowOne, Count, at_most
from fairtrial.spec.sections import ModelSettings

if TYPE_CHECKING:
    import torch
    from torch import nn


@MODELS.register("mlp")
class MLP(ModelSettings):
    """A multilayer perceptron: linear layers with ReLU on all pixels at once.

    Attributes:
        hidden: units of each hidden layer; none makes it a linear classifier.
        dropout: rate behind each hidden layer.
    """

    hidden: Annotated[tuple[Annotated[Count, at_most(65_536)], ...], Field(max_length=100)] = (256, 256)
    dropout: BelowOne = 0.0

    def build(self, *, classes: int, image_size: int, channels: int, seed: int) -> "torch.nn.Module":
        """See `ModelSettings.build`; hidden layers are drawn as He et al. 2015 (eq. 10), the last with deviation 0.01.

        Example:
            >>> network = MLP(hidden=[32]).build(classes=10, image_size=8, channels=1, seed=0)
            >>> sum(parameter.numel() for parameter in network.parameters())
            2410
        """
        from torch import nn  # noqa: PLC0415  (settings are read without torch)

        from fairtrial.training.models.mobilenet_v2.flavors import make_from_seed  # noqa: PLC0415

        def make() -> nn.Module:
            layers: list[nn.Module] = [nn.Flatten()]
            inputs = channels * image_size**2
            for outputs in self.hidden:
                layers += [nn.Linear(inputs, outputs), nn.ReLU(), nn.Dropout(self.dropout)]
                inputs = outputs
            return nn.Sequential(*layers, nn.Linear(inputs, classes))

        return make_from_seed(make, _initialize, seed)


def _initialize(network: "nn.Module", generator: "torch.Generator") -> None:
    """Fill every parameter; a small last layer begins with a loss of ln(classes)."""
    from torch import nn  # noqa: PLC0415

    *hidden, last = (module for module in network.modules() if isinstance(module, nn.Linear))
    for layer in hidden:
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
        nn.init.zeros_(layer.bias)
    nn.init.normal_(last.weight, std=0.01, generator=generator)
    nn.init.zeros_(last.bias)

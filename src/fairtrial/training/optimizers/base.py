"""What the settings of torch's optimizers share."""

from typing import TYPE_CHECKING, ClassVar

from fairtrial.spec.sections import OptimizerSettings

if TYPE_CHECKING:
    from collections.abc import Iterable

    import torch


class TorchOptimizer(OptimizerSettings):
    """Base of settings whose keys are the arguments of one of torch's classes."""

    #: The name of the class in ``torch.optim``.
    torch_class: ClassVar[str]

    def build(self, parameters: "Iterable[torch.nn.Parameter]") -> "torch.optim.Optimizer":
        """Make torch's optimizer."""
        import torch  # noqa: PLC0415  (settings are read without it)

        made: torch.optim.Optimizer = getattr(torch.optim, self.torch_class)(
            parameters, **self.model_dump(exclude={"name"})
        )
        return made

"""What the settings of torch's optimizers share."""

from typing import TYPE_CHECKING, Any, ClassVar

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
        return self._make(parameters, **self.model_dump(exclude={"name"}))

    def _make(self, parameters: "Iterable[torch.nn.Parameter]", **arguments: Any) -> "torch.optim.Optimizer":
        """Make the optimizer from its arguments."""
        import torch  # noqa: PLC0415  (settings are read without it)

        from fairtrial.training.uncompiled import uncompiled  # noqa: PLC0415  (imports torch)

        return uncompiled(getattr(torch.optim, self.torch_class))(parameters, **arguments)

"""Optimizers by path: any class of ``torch.optim``'s kind, or a function that makes one."""

import sys
from typing import TYPE_CHECKING, Any

from fairtrial.errors import StudyError
from fairtrial.registry import NotFoundError
from fairtrial.spec.arguments import FromSignature, parameters_of, settings_of
from fairtrial.spec.sections import OptimizerSettings

if TYPE_CHECKING:
    from collections.abc import Iterable

    import torch


def adapt(name: str, thing: Any) -> type[OptimizerSettings]:
    """Make settings of an optimizer's class, or of a function that gets parameters first and returns an optimizer.

    Raises:
        NotFoundError: it is neither, or has no learning rate.
    """
    torch = sys.modules.get("torch")  # whoever has a class derived from torch's has imported it
    is_optimizer = torch is not None and isinstance(thing, type) and issubclass(thing, torch.optim.Optimizer)
    if not callable(thing) or (isinstance(thing, type) and not is_optimizer):
        raise NotFoundError("must be a torch.optim.Optimizer, a function that makes one, or an OptimizerSettings")
    first, *others = parameters_of(thing) or [""]
    if "lr" not in others:
        raise NotFoundError("must take the parameters first, and a learning rate `lr`")
    return settings_of(OwnOptimizer, name, thing, frozenset({first}))


class OwnOptimizer(FromSignature, OptimizerSettings):
    """An optimizer of anybody's; its keys are its arguments."""

    def build(self, parameters: "Iterable[torch.nn.Parameter]") -> "torch.optim.Optimizer":
        """Make the optimizer; a `StudyError` if what was made is none."""
        import torch  # noqa: PLC0415  (settings are read without it)

        made = self.thing(parameters, **self.arguments)
        if not isinstance(made, torch.optim.Optimizer):
            raise StudyError(f'optimizer.name = "{self.name}": gave {type(made).__name__}, not a torch.optim.Optimizer')
        return made

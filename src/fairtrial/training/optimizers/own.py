"""Optimizers by path: any class of ``torch.optim``'s kind, or a function that makes one."""

import sys
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import model_validator
from pydantic_core import PydanticCustomError

from fairtrial.errors import StudyError
from fairtrial.registry import NotFoundError
from fairtrial.spec.arguments import FromSignature, parameters_of, settings_of
from fairtrial.spec.messages import refusal
from fairtrial.spec.sections import OptimizerSettings

if TYPE_CHECKING:
    from collections.abc import Iterable

    import torch

_SECOND = "needs second derivatives (backward with create_graph), which fairtrial's training step doesn't compute"
_MATRICES = (
    'takes matrices alone, or groups that say which weights are; write optimizer.name = "muon", or name a function '
    "that makes the groups"
)
#: Classes that a training step can't use though their arguments look as if it could, by name, and why.
_REFUSED = {
    "SparseAdam": "is for sparse gradients, and those of fairtrial's training step are dense",
    "AdaHessian": _SECOND,
    "SophiaH": _SECOND,
    "LoRARite": "is for pairs of low-rank matrices",
    **dict.fromkeys(
        ["Muon", "AdaGO", "AdaMuon", "DistributedMuon", "MuonClip", "NorMuon", "SpectralSphere"], _MATRICES
    ),
}
#: What an optimizer takes in place of parameters, or beside them, if it is made of more than these.
_MADE_OF = {
    "model": "takes the model, not only its parameters",
    "optimizer": "wraps another optimizer; name a function that makes both",
    "base_optimizer": "wraps another optimizer; name a function that makes both",
}


def adapt(name: str, thing: Any) -> type[OptimizerSettings]:
    """Make settings of an optimizer's class, or of a function that gets parameters first and returns an optimizer.

    Raises:
        NotFoundError: it is neither, has no learning rate, or needs what a training step doesn't give.
    """
    torch = sys.modules.get("torch")  # whoever has a class derived from torch's has imported it
    is_optimizer = torch is not None and isinstance(thing, type) and issubclass(thing, torch.optim.Optimizer)
    if not callable(thing) or (isinstance(thing, type) and not is_optimizer):
        raise NotFoundError("must be a torch.optim.Optimizer, a function that makes one, or an OptimizerSettings")
    if is_optimizer and (why := _REFUSED.get(thing.__name__)):
        raise NotFoundError(why)
    found = parameters_of(thing)
    for key, why in _MADE_OF.items():
        if key in found and found[key].default is found[key].empty:
            raise NotFoundError(why)
    first, *others = found or [""]
    if "lr" not in others:
        raise NotFoundError("must take the parameters first, and a learning rate `lr`")
    return settings_of(OwnOptimizer, name, thing, frozenset({first}))


class OwnOptimizer(FromSignature, OptimizerSettings):
    """An optimizer of anybody's; its keys are its arguments."""

    uses_closure: ClassVar = True

    @model_validator(mode="after")
    def _can_be_made(self) -> Self:
        """Make one, because only the optimizer knows which values of its arguments can be."""
        import torch  # noqa: PLC0415  (settings are read without it)

        try:
            self.build([torch.nn.Parameter(torch.zeros(2, 2))])
        except StudyError as error:
            raise PydanticCustomError("optimizer", "{why}", {"why": str(error)}) from error
        return self

    def build(self, parameters: "Iterable[torch.nn.Parameter]") -> "torch.optim.Optimizer":
        """Make the optimizer.

        Raises:
            StudyError: it refuses its arguments, or what was made is no optimizer.
        """
        import torch  # noqa: PLC0415  (settings are read without it)

        try:
            made = self.thing(parameters, **self.arguments)
        except Exception as error:
            raise StudyError(f"{self.name}: {refusal(error)}") from error
        if not isinstance(made, torch.optim.Optimizer):
            raise StudyError(f"{self.name}: gave a {type(made).__name__}, not a torch.optim.Optimizer")
        if not all("lr" in group for group in made.param_groups):
            raise StudyError(f"{self.name}: keeps no learning rate in its groups, where a schedule could set it")
        return made

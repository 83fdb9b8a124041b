"""Settings whose keys are the arguments of a class or a function that a study names as ``"module:Name"``."""

import inspect
import math
from collections.abc import Callable, Mapping
from functools import cache
from types import new_class
from typing import Annotated, Any, ClassVar, Self, TypeVar

from pydantic import (
    ConfigDict,
    Field,
    PlainValidator,
    Strict,
    StrictBool,
    StrictStr,
    TypeAdapter,
    ValidationError,
    create_model,
)
from pydantic_core import PydanticCustomError, PydanticUndefined

from fairtrial.registry import DATASETS, MODELS, OPTIMIZERS, SCHEDULES, NotFoundError
from fairtrial.spec.sections import NamedSettings

Kind = TypeVar("Kind", bound="FromSignature")


def _plain(value: object) -> object:
    """Check a value as a study file has it: a number, a text, true, false, or a list of these."""
    if isinstance(value, list | tuple):
        return tuple(_plain(item) for item in value)
    if not isinstance(value, bool | int | float | str) or (isinstance(value, float) and not math.isfinite(value)):
        raise PydanticCustomError("plain", "must be a finite number, text, true or false, or a list of these")
    return value


def _like(example: tuple[object, ...]) -> Callable[[object], object]:
    def check(value: object) -> object:
        if not isinstance(value, list | tuple) or len(value) != len(example):
            raise PydanticCustomError("list_like", "must be a list of {length}", {"length": len(example)})
        return _plain(value)

    return check


_Plain = Annotated[Any, PlainValidator(_plain)]
_Number = Annotated[float, Strict(), Field(allow_inf_nan=False)]
_TYPES: dict[object, Any] = {bool: StrictBool, int: Annotated[int, Strict()], float: _Number, str: StrictStr}


class FromSignature(NamedSettings):
    """Base of settings whose keys are the arguments of `thing`, a class or a function that fairtrial doesn't know.

    The adapter of a section derives from this and from the section's base, and makes of `thing` and `arguments` what
    its base promises; `settings_of` derives a class from the adapter for one thing.
    """

    model_config = ConfigDict(protected_namespaces=())

    thing: ClassVar[Callable[..., Any]]
    #: The keys that are arguments of `thing`; others are the section's own.
    argument_names: ClassVar[frozenset[str]] = frozenset()

    __pydantic_extra__: dict[str, _Plain] = Field(init=False)  # only of a function with ``**keywords``

    @property
    def arguments(self) -> dict[str, Any]:
        """What to call `thing` with, by name: what is not at its default, and what has none."""
        defaults = {key: type(self).model_fields[key].default for key in self.argument_names}
        values = {key: getattr(self, key) for key in type(self).model_fields if key in defaults}
        return {key: value for key, value in values.items() if value != defaults[key]} | (self.model_extra or {})

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle what a study says, because the class can't be imported."""
        return _restored, (self.registry.kind, self.model_dump(exclude_unset=True) | {"name": self.name})

    def __copy__(self) -> Self:
        """Return itself, which nothing can change."""
        return self

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        """Return itself, which nothing can change."""
        return self


def _restored(kind: str, table: dict[str, Any]) -> Any:
    registry = {one.kind: one for one in (DATASETS, MODELS, OPTIMIZERS, SCHEDULES)}[kind]
    return registry.get(table["name"]).model_validate(table)


@cache  # one class for one thing, so that equal settings are equal
def settings_of(
    adapter: type[Kind], name: str, thing: Callable[..., Any], given: frozenset[str] = frozenset()
) -> type[Kind]:
    """Make the settings of a thing: a subclass of an adapter with a key for each argument that a study can set.

    A key's default is the argument's own and, as with fairtrial's own parts, enters the hash; of a default that no
    study file can hold, it is None. A value must be plain: a number, a text, true, false, or a list of these, and of
    the annotated type where that is ``bool``, ``int``, ``float`` or ``str``, or of the default's if nothing is
    annotated. A class with ``**keywords`` takes what its bases take; a function with these takes any key.

    Args:
        adapter: the base; its own keys keep their types, with the argument's default.
        name: ``"module:Name"``, as in a study.
        thing: what `FromSignature.arguments` are for.
        given: names of the arguments that the adapter gives itself.

    Raises:
        NotFoundError: the signature can't be read, or an argument without a default can't be set in a study.

    Example:
        >>> from fairtrial.registry import OPTIMIZERS
        >>> OPTIMIZERS.get("torch.optim:Rprop")(lr=0.1, etas=[0.5, 1.5]).arguments
        {'lr': 0.1, 'etas': (0.5, 1.5)}
    """
    fields: dict[str, Any] = {}
    parameters = parameters_of(thing)
    for key, parameter in parameters.items():
        if key in given or parameter.kind in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD}:
            continue
        own = adapter.model_fields.get(key)
        reserved = key == "name" or key.startswith("_") or (own is None and hasattr(adapter, key))
        if reserved or parameter.kind == parameter.POSITIONAL_ONLY:
            if parameter.default is parameter.empty:
                raise NotFoundError(f"its argument `{key}` can't be set in a study; name a function that gives it")
            continue
        annotation, default = _field(parameter)
        if own is not None:  # it keeps its type, which None may not be of: then a study must say it
            must_be_said = default is None and own.default is not None
            annotation, default = own.rebuild_annotation(), PydanticUndefined if must_be_said else default
            _check_means_the_same(key, annotation, default)
        fields[key] = (annotation, Field(default))
    if takes_any(parameters):
        accept = {"model_config": ConfigDict(extra="allow")}
        adapter = new_class(adapter.__name__, (adapter,), exec_body=lambda body: body.update(accept))
    module, _, qualified_name = name.partition(":")
    made = create_model(qualified_name, __base__=adapter, __module__=module, __doc__=thing.__doc__ or "", **fields)
    made.__qualname__ = qualified_name  # `name` is made of these
    made.thing, made.argument_names = staticmethod(thing), frozenset(fields)
    return made


def _check_means_the_same(key: str, annotation: Any, default: object) -> None:
    """Refuse an argument whose own default the section's key of that name can't be: it means something else."""
    if default is PydanticUndefined:
        return
    try:
        TypeAdapter(annotation).validate_python(default)
    except ValidationError as error:
        why = "which is also the name of a key that can't be that; name a function that has no such argument"
        raise NotFoundError(f"its argument `{key}` is {default!r} by default, {why}") from error


def parameters_of(thing: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Read the arguments of a function, or of a class with what its ``**keywords`` can pass to its bases.

    What a base requires, the class gives it.

    Raises:
        NotFoundError: the signature can't be read, as with some functions that are written in C.
    """
    try:
        found = dict(inspect.signature(thing).parameters)
        bases = thing.__mro__[1:-1] if isinstance(thing, type) else ()
        above = [vars(base)["__init__"] for base in bases if "__init__" in vars(base)]
        while takes_any(found) and above:
            found = {key: one for key, one in found.items() if one.kind != one.VAR_KEYWORD}
            _, *inherited = inspect.signature(above.pop(0)).parameters.values()
            found |= {one.name: one for one in inherited if one.default is not one.empty and one.name not in found}
            found |= {one.name: one for one in inherited if one.kind == one.VAR_KEYWORD}
    except (TypeError, ValueError) as error:
        raise NotFoundError("its arguments can't be read; name a function that calls it") from error
    is_open = not isinstance(thing, type)
    return {key: one for key, one in found.items() if is_open or one.kind != one.VAR_KEYWORD}


def takes_any(parameters: Mapping[str, inspect.Parameter]) -> bool:
    """Whether there is a ``**keywords``."""
    return any(one.kind == one.VAR_KEYWORD for one in parameters.values())


def _field(parameter: inspect.Parameter) -> tuple[Any, Any]:
    """The type and the default of an argument's key."""
    default, annotated = parameter.default, parameter.annotation
    named = {one.__name__: one for one in (bool, int, float, str)}
    if default is parameter.empty:
        kind = named.get(annotated, annotated) if isinstance(annotated, str) else annotated
        return _TYPES.get(kind, _Plain) if isinstance(kind, type) else _Plain, PydanticUndefined
    try:
        default = None if default is None else _plain(default)
    except PydanticCustomError:
        return _Plain, None
    if isinstance(default, tuple):
        return Annotated[Any, PlainValidator(_like(default))], default
    kind = named.get(annotated, annotated) if isinstance(annotated, str) else annotated
    kind = type(default) if annotated is parameter.empty else kind
    if kind is float and type(default) is int:
        default = float(default)
    return (_TYPES[kind] if kind in (bool, int, float, str) and type(default) is kind else _Plain), default

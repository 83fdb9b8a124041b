"""Small phrases that reports share."""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from fairtrial.spec.grids import value_text

#: Stands where there is no such setting or no number.
NOTHING = "-"

Value = TypeVar("Value")


def or_nothing(value: Value | None, write: Callable[[Value], str]) -> str:
    """Write a value, or a hyphen where there is none."""
    return NOTHING if value is None else write(value)


def number_text(value: object) -> str:
    """Write a setting as people do: ``1e-8``, ``0.999``, ``64``, ``true``, ``[0.9, 0.99]``.

    A number that a computation left beside a short one is written as the short one, if both agree to twelve digits:
    three times 0.003 is ``9e-3`` here, and 0.009000000000000001 to a computer.

    Example:
        >>> number_text(3 * 0.003), number_text(1e-8), number_text(0.1234567890123456)
        ('9e-3', '1e-8', '0.1234567890123456')
    """
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(number_text, value))}]"
    return value_text(shortest(value) if isinstance(value, float) else value)


def shortest(value: float) -> float:
    """The number with the fewest digits that equals one to twelve digits; the number itself if it needs more.

    Example:
        >>> shortest(0.1 + 0.2), shortest(1 / 3)
        (0.3, 0.3333333333333333)
    """
    rounded = float(f"{value:.12g}")
    return rounded if len(repr(value)) - len(repr(rounded)) >= 8 else value


def percent(fraction: float) -> str:
    """Write a probability or share: ``95%``, ``97.5%``; only 0 is written ``0%``, only 1 ``100%``.

    Example:
        >>> percent(0.95), percent(0.975), percent(0.9999)
        ('95%', '97.5%', '>99.9%')
    """
    if 0.999 < fraction < 1.0:
        return ">99.9%"
    if 0.0 < fraction < 0.001:
        return "<0.1%"
    return f"{100 * fraction:.1f}%".replace(".0%", "%")


def count(number: int, noun: str) -> str:
    """Write a number of things: ``1 seed``, ``3 seeds``."""
    return f"{number} {noun}" + ("" if number == 1 else "s")


def exploratory(reasons: Sequence[str]) -> tuple[str, ...]:
    """Write the first line of results that test nothing set beforehand; none without reasons.

    Example:
        >>> exploratory(["the margin 0.01 was set after 6 trials had ended"])
        ('Exploratory: the margin 0.01 was set after 6 trials had ended.',)
    """
    return (f"Exploratory: {'; '.join(reasons)}.",) if reasons else ()


def of_earlier_looks(spent: Sequence[str], stage: int) -> str:
    """Say how intervals allow for earlier looks at the same trials; empty if there were none.

    Args:
        spent: arms for which they left no error rate.
        stage: which look, or plan of looks, it is.
    """
    if spent:
        return (
            f"Earlier looks spent the error rate of {', '.join(spent)}, and these intervals do not allow for them. A "
            "test needs fresh seeds: run it with --confirm."
        )
    if stage > 1:
        return (
            "These trials were looked at before; the intervals allow for all looks together, at a stricter level than "
            "a first look."
        )
    return ""


def duration(seconds: float) -> str:
    """Write a duration: ``42 s``, ``3 min 10 s``, ``2 h 05 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def notes_by_arm(notes: Mapping[str, Sequence[str]], shared: Sequence[str] = ()) -> list[str]:
    """Write each note once, after the names that have it; shared notes are left out.

    Example:
        >>> notes_by_arm({"a": ["Too few."], "b": ["Too few.", "For all."]}, ["For all."])
        ['a, b: Too few.']
    """
    names: dict[str, list[str]] = {}
    for name, lines in notes.items():
        for line in lines:
            if line not in shared:
                names.setdefault(line, []).append(name)
    together: dict[str, list[str]] = {}
    for line, having in names.items():
        together.setdefault(", ".join(having), []).append(line)
    return [f"{having}: {' '.join(lines)}" for having, lines in together.items()]

"""Small phrases that reports share."""

from collections.abc import Mapping, Sequence
from typing import Protocol


class _Named(Protocol):
    @property
    def study(self) -> str: ...

    @property
    def hash(self) -> str: ...


def label(found: _Named) -> str:
    """Name the study that something is about, with the head of its hash: ``paper@1f2e3d4c``."""
    return f"{found.study}@{found.hash[:8]}"


def percent(fraction: float) -> str:
    """Write a probability or share: ``95%``, ``97.5%``; what is neither 0 nor 1 is never written as such.

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


def notes_by_arm(notes: Mapping[str, Sequence[str]], shared: Sequence[str]) -> list[str]:
    """Write each note once, after the names of those that it is about; those that are shared are left out.

    Example:
        >>> notes_by_arm({"a": ["Too few."], "b": ["Too few.", "For all."]}, ["For all."])
        ['a, b: Too few.']
    """
    about: dict[str, list[str]] = {}
    for name, lines in notes.items():
        for line in lines:
            if line not in shared:
                about.setdefault(line, []).append(name)
    together: dict[str, list[str]] = {}
    for line, names in about.items():
        together.setdefault(", ".join(names), []).append(line)
    return [f"{names}: {' '.join(lines)}" for names, lines in together.items()]

"""What a section of a page is made of: plain data, which the templates render."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from fairtrial.report.charts import Figure
from fairtrial.report.grid import Grid


@dataclass(frozen=True)
class Words:
    """Paragraphs."""

    lines: tuple[str, ...]
    look: str = ""  # a class of the style sheet: "answer", "note" or "alarm"
    kind: str = "words"


@dataclass(frozen=True)
class Bullets:
    """A list of sentences."""

    lines: tuple[str, ...]
    kind: str = "bullets"


@dataclass(frozen=True)
class Facts:
    """Names and what belongs to them."""

    rows: tuple[tuple[str, str], ...]
    kind: str = "facts"


@dataclass(frozen=True)
class Table:
    """A grid with its sentences."""

    grid: Grid
    kind: str = "table"


@dataclass(frozen=True)
class Plain:
    """Text as it is, such as a command or a traceback."""

    text: str
    label: str
    kind: str = "plain"


@dataclass(frozen=True)
class Charts:
    """Charts of which one is shown at a time, each after what a reader chooses it by; one alone needs no choice."""

    identifier: str
    figures: tuple[tuple[str, Figure], ...]
    asked: str = "Measure"
    kind: str = "charts"


@dataclass(frozen=True)
class Folded:
    """Items that a reader opens on demand."""

    title: str
    items: tuple["Item", ...]
    kind: str = "folded"


Item: TypeAlias = Words | Bullets | Facts | Table | Plain | Charts | Folded


@dataclass(frozen=True)
class Section:
    """One part of the story."""

    key: str  # its identifier within the page
    title: str
    items: tuple[Item, ...]


def words(*lines: str, look: str = "") -> Words:
    """Make paragraphs of the lines that are not empty."""
    return Words(tuple(line for line in lines if line), look)


def listed(names: Sequence[str], most: int = 4) -> str:
    """Write names as a list, of many the first: ``a, b and c``, ``a, b, c, d and 6 more``.

    Example:
        >>> listed(["a", "b", "c"]), listed([str(at) for at in range(10)])
        ('a, b and c', '0, 1, 2, 3 and 6 more')
    """
    shown = list(names[:most]) + ([f"{len(names) - most} more"] if len(names) > most else [])
    return " and ".join([*([", ".join(shown[:-1])] if len(shown) > 1 else []), *shown[-1:]])

"""Ends of axes that fit the data: what lies far off must not squash the rest, and no axis leaves what is possible."""

import math
from collections.abc import Sequence
from typing import TypeAlias

import altair as alt

#: The ends of an axis, or the lowest and highest value of something.
Span: TypeAlias = tuple[float, float]

#: What makes the span of all at least so many times as long as that of the rest is left out of an axis.
SQUASHED = 5.0

#: At most this share of all is left out.
MOST_OUT = 1 / 3


#: Of more spans than this, a twentieth at either end is what may be left out, which costs less to find.
MANY = 100


def joined(spans: Sequence[Span]) -> Span:
    """The shortest span that holds others."""
    return min(low for low, _ in spans), max(high for _, high in spans)


def robust(
    spans: Sequence[Span], keep: Span | None = None, *, squashed: float = SQUASHED
) -> tuple[Span, frozenset[int]]:
    """Find a span that fits most of the spans, and which of them it leaves out, by their indices.

    A span is left out only if without it, and the others that are left out, the rest is several times as large in the
    picture. At most a third of them are.

    Args:
        spans: of whatever shares an axis, at least one.
        keep: what must be on the axis in any case, such as zero.
        squashed: how many times as long the span of all must be.

    Example:
        >>> robust([(0.0, 1.0), (0.2, 1.2), (0.1, 0.9), (40.0, 60.0)])
        ((0.0, 1.2), frozenset({3}))
    """
    fixed = [] if keep is None else [keep]
    whole = joined([*spans, *fixed])
    best, out = whole, frozenset[int]()
    if len(spans) > MANY:
        lows, highs = (sorted(ends) for ends in zip(*spans, strict=True))
        most = joined([(lows[len(spans) // 20], highs[-1 - len(spans) // 20]), *fixed])
        if (most[1] - most[0]) * squashed > whole[1] - whole[0]:
            return whole, out
        return most, frozenset(at for at, (low, high) in enumerate(spans) if low < most[0] or high > most[1])
    left = dict(enumerate(spans))
    middle = sorted((low + high) / 2 for low, high in spans)[len(spans) // 2]
    for _ in range(math.floor(len(spans) * MOST_OUT)):
        # The next to go is the one whose absence shortens the span most; of equals the one farthest out.
        rest = {at: joined([*(span for other, span in left.items() if other != at), *fixed]) for at in left}
        del left[min(left, key=lambda at: (rest[at][1] - rest[at][0], -max(abs(end - middle) for end in left[at])))]
        found = joined([*left.values(), *fixed])
        if (found[1] - found[0]) * squashed <= best[1] - best[0] and found[1] > found[0]:
            best, out = found, frozenset(range(len(spans))) - frozenset(left)
    return best, out


def padded(span: Span, share: float = 0.04, limits: Span = (-math.inf, math.inf)) -> Span:
    """Widen a span by a share of it on both sides, but not beyond what the values can be.

    Example:
        >>> padded((0.0, 50.0), limits=(0.0, 100.0))
        (0.0, 52.0)
    """
    low, high = span
    padding = share * (high - low) or share * abs(high) or 1.0
    return max(low - padding, min(limits[0], low)), min(high + padding, max(limits[1], high))


def epoch_axis(last: int, first: int = 1, most: int = 12) -> alt.Axis:
    """Mark whole epochs, at most about twelve, in steps of 1, 2 or 5 times a power of ten."""
    number = last - first + 1
    power = 10 ** max(0, int(math.log10(max(number / most, 1))))
    step = next(power * factor for factor in (1, 2, 5, 10) if number / (power * factor) <= most)
    marks = [epoch for epoch in range(first, last + 1) if epoch % step == 0]
    return alt.Axis(values=marks, format="d", grid=False)


def within(value: float, span: Span) -> bool:
    """Tell whether a value is within a span."""
    return span[0] <= value <= span[1]


def clipped(span: Span, ends: Span) -> Span:
    """The part of a span that is within others; both ends are equal if none is."""
    low, high = (min(max(value, ends[0]), ends[1]) for value in span)
    return low, high

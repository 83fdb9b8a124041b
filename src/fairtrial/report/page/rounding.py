"""Numbers rounded as their uncertainty deserves."""

import math

from fairtrial.spec.metrics import Unit


def decimals(uncertainty: float | None, unit: Unit) -> int | None:
    """How many decimals a number deserves: the uncertainty keeps two digits; at most those that the unit shows.

    Args:
        uncertainty: half the width of an interval, or a standard deviation, as recorded; None if unknown.
        unit: the number's unit.

    Example:
        >>> from fairtrial.spec.metrics import PERCENT
        >>> decimals(0.034, PERCENT), decimals(0.002, PERCENT), decimals(0.21, PERCENT)
        (1, 2, 0)
    """
    if uncertainty is None or not math.isfinite(uncertainty) or uncertainty <= 0.0:
        return unit.decimals
    own = 1 - math.floor(math.log10(uncertainty * unit.factor))
    return max(0, own if unit.decimals is None else min(own, unit.decimals))


def rounded(value: float, uncertainty: float | None, unit: Unit) -> str:
    """Write a number without its unit, with as many decimals as it deserves; never ``-0``.

    Example:
        >>> from fairtrial.spec.metrics import PERCENT
        >>> rounded(0.69623, 0.0135, PERCENT), rounded(-0.0004, 0.034, PERCENT)
        ('69.6', '0.0')
    """
    places = decimals(uncertainty, unit)
    if places is None:
        return unit.number(value)
    text = f"{value * unit.factor:.{places}f}"
    return text.removeprefix("-") if float(text) == 0.0 else text


def amount(value: float, uncertainty: float | None, unit: Unit) -> str:
    """Write a difference with its unit: ``1.3 points``."""
    return f"{rounded(value, uncertainty, unit)}{'' if unit.difference == '%' else ' '}{unit.difference}".rstrip()

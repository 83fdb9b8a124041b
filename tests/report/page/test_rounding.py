"""Numbers with as many digits as their uncertainty deserves."""

import pytest

from fairtrial.report.page.rounding import amount, decimals, rounded
from fairtrial.spec.metrics import LOSS, PERCENT, PLAIN, RELATIVE


@pytest.mark.parametrize(
    ("value", "uncertainty", "unit", "written"),
    [
        (0.69623, 0.0135, PERCENT, "69.6"),
        (0.69623, 0.21, PERCENT, "70"),
        (0.69623, 0.00012, PERCENT, "69.62"),  # at most what the unit shows
        (0.69623, None, PERCENT, "69.62"),
        (0.69623, 0.0, PERCENT, "69.62"),
        (-0.0004, 0.034, PERCENT, "0.0"),
        (1234.5678, 12.0, PLAIN, "1235"),
        (0.0012345, 0.00012, PLAIN, "0.00123"),
        (0.12345678, 0.0021, LOSS, "0.1235"),
        (0.5, float("nan"), LOSS, "0.5000"),
    ],
)
def test_the_uncertainty_keeps_two_digits(value, uncertainty, unit, written):
    assert rounded(value, uncertainty, unit) == written


def test_amounts_have_their_unit():
    assert amount(0.0131, 0.02, PERCENT) == "1.3 points"
    assert amount(0.0131, 0.02, RELATIVE) == "1.3%"
    assert decimals(0.02, PERCENT) == 1

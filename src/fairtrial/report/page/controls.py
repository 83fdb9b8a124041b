"""Controls that hold for all charts of a page: which arms they show."""

from dataclasses import dataclass

from markupsafe import Markup

from fairtrial.report.page.environment import render
from fairtrial.report.style import DARK_PALETTE, PALETTE, LineStyle, chart_text, line_styles
from fairtrial.spec import Study


@dataclass(frozen=True)
class ArmSwitch:
    """A checkbox: the arm as charts write it, and the look of its line."""

    name: str
    style: LineStyle

    @property
    def dark(self) -> str:
        """Its color on a dark page."""
        return DARK_PALETTE[PALETTE.index(self.style.color)]

    @property
    def dashes(self) -> str:
        """SVG's ``stroke-dasharray``."""
        return " ".join(f"{length:g}" for length in self.style.dash) if self.style.dash[1] else "none"


def arm_controls(study: Study) -> Markup:
    """Write a checkbox for each arm, beside a piece of its line; each takes its arm out of every chart of the page.

    Args:
        study: with the names or labels that the charts show.
    """
    styles = line_styles([arm.name for arm in study.arms], study.reference)
    switches = [ArmSwitch(chart_text(arm.name), styles[arm.name]) for arm in study.arms]
    return render("arms.html", switches=switches, reference=chart_text(study.reference))

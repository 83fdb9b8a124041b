"""Pages of a study: one set of templates, one style sheet and one script for the report and the live page.

`environment` has the templates, `assets` the style sheet and scripts, `figures` turns a chart into markup. A page works
without a network and without ``eval``: with a content security policy of ``script-src 'self'; style-src 'self';
img-src 'self' data:`` it has all its functions.
"""

from fairtrial.report.page.assets import page_script, style_sheet, vega_script
from fairtrial.report.page.controls import arm_controls
from fairtrial.report.page.environment import environment, render
from fairtrial.report.page.figures import figure_choice, figure_markup

__all__ = [
    "arm_controls",
    "environment",
    "figure_choice",
    "figure_markup",
    "page_script",
    "render",
    "style_sheet",
    "vega_script",
]

"""The one Jinja environment: every value is escaped, and a name that a template does not get is an error."""

from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from fairtrial.report.html import html
from fairtrial.text import visible


@cache
def environment() -> Environment:
    """Make the environment; its templates are ``report/page/templates/*.html``.

    In every text, control characters and such as turn its direction around are written as escapes.

    The filter ``grid`` writes a `Grid` as a table with class names. The filter ``tojson``, Jinja's own, writes a value
    so that no text in it ends the script element around it.
    """
    made = Environment(
        loader=PackageLoader("fairtrial.report.page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_printable,
    )
    made.filters["grid"] = lambda grid: Markup(html(grid, classes=True))  # noqa: S704  (html escapes every text)
    return made


def _printable(value: object) -> object:
    return value if isinstance(value, Markup) or not isinstance(value, str) else visible(value)


def render(template: str, **values: object) -> Markup:
    """Fill a template in.

    Raises:
        jinja2.UndefinedError: the template uses a name that is not among the values.

    Example:
        >>> from fairtrial.report.page.controls import arm_controls
        >>> "high_beta1" in arm_controls(study)
        True
    """
    return Markup(environment().get_template(template).render(**values))  # noqa: S704  (autoescape is on)

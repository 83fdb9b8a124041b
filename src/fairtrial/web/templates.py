"""Fills in the live page's templates, in the environment of the report's: every value is escaped."""

from datetime import UTC, datetime
from functools import cache

from jinja2 import ChoiceLoader, Environment, PackageLoader
from markupsafe import Markup

from fairtrial.report.page import environment
from fairtrial.report.words import count, duration
from fairtrial.text import one_line


@cache
def _environment() -> Environment:
    shared = environment()
    own = PackageLoader("fairtrial.web", "pages")
    loader = ChoiceLoader([own, shared.loader]) if shared.loader is not None else own
    made = shared.overlay(loader=loader)
    made.filters |= {"line": one_line, "duration": duration, "iso": _iso, "clock": _clock}
    made.globals["count"] = count
    return made


def render(template: str, **values: object) -> Markup:
    """Fill in a template of ``web/pages`` or ``report/page/templates``.

    Raises:
        jinja2.UndefinedError: the template uses a name that is not among the values.
    """
    return Markup(_environment().get_template(template).render(**values))  # noqa: S704  (autoescape is on)


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _clock(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"

"""The style sheet and scripts of a page, as text to serve or to put into it."""

from functools import cache
from importlib.resources import files

import vl_convert


@cache
def style_sheet() -> str:
    """Read the style sheet: light, dark, phone and print."""
    return _read("page.css")


@cache
def page_script() -> str:
    """Read the page's own script, which draws the charts and makes the controls work; it needs `vega_script`."""
    return _read("page.js")


@cache
def vega_script() -> str:
    """Bundle Vega, Vega-Lite and Vega-Embed, as vl-convert holds them: nothing is downloaded. It takes about a second.

    Vega's interpreter of expressions is part of the bundle, so the page's script needs no ``eval``.
    """
    bundle: str = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    return bundle


def in_page(script: str) -> str:
    r"""Make a script safe within a page's script element, whose end the HTML parser would take from a string in it.

    Example:
        >>> in_page('a = "</script>"')
        'a = "<\\/script>"'
    """
    return script.replace("</script", "<\\/script").replace("<!--", "<\\!--")


def _read(name: str) -> str:
    return files("fairtrial.report.page").joinpath("assets", name).read_text(encoding="utf-8")

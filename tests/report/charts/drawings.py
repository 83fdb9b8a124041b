"""Takes drawings apart: the plots of a figure, with the rows of each layer."""

import json
from typing import Any

from fairtrial.report.charts import Figure


def plots(figure: Figure) -> list[dict[str, Any]]:
    """Every plot of a figure, from left to right and down, with ``rows`` in each of its layers."""
    whole = figure.chart.to_dict()
    found = list(_leaves(whole))
    for view in found:
        for layer in view["layer"]:
            layer["rows"] = json.loads(whole["datasets"][layer["data"]["name"]])
    return found


def _leaves(view: dict[str, Any]) -> list[dict[str, Any]]:
    for key in ("hconcat", "concat", "vconcat"):
        if key in view:
            return [leaf for each in view[key] for leaf in _leaves(each)]
    return [view]


def rows(plot: dict[str, Any], kind: str, **mark: object) -> list[dict[str, Any]]:
    """The rows of all layers of a kind of mark with such properties."""
    return [
        row
        for layer in plot["layer"]
        if layer["mark"]["type"] == kind and all(layer["mark"].get(key) == value for key, value in mark.items())
        for row in layer["rows"]
    ]


def subtitle(figure: Figure) -> str:
    """The lines below the title."""
    return " ".join(figure.chart.to_dict()["title"]["subtitle"])

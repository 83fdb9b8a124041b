"""The charts of a study's page, each drawn when a page wants it, once for each state of the results."""

from dataclasses import replace
from functools import partial

from fairtrial.errors import FairtrialError
from fairtrial.loading import importable
from fairtrial.report.page import figure_markup
from fairtrial.spec.labels import under_labels
from fairtrial.text import one_line
from fairtrial.trial import TrialResult
from fairtrial.web.feed import Snapshot, StudyFeed
from fairtrial.web.running import NAME, running_chart
from fairtrial.web.threads import Worker

#: A chart's markup, empty where there is nothing to draw, and then the reason.
Picture = dict[str, str]


class Pictures:
    """Draws charts by a study's newest results, and keeps each until there are newer ones.

    Args:
        drawer: the thread that draws.
    """

    def __init__(self, drawer: Worker) -> None:
        self._drawer = drawer
        self._drawn: dict[tuple[str, str], tuple[Snapshot, Picture]] = {}

    async def picture(self, feed: StudyFeed, name: str) -> Picture | None:
        """Draw a chart; None if there are no results yet."""
        if feed.snapshot is None:
            return None
        return await self._drawer.call(partial(self._picture, feed, name))

    def _picture(self, feed: StudyFeed, name: str) -> Picture | None:
        snapshot = feed.snapshot
        if snapshot is None:
            return None
        known = self._drawn.get((feed.key, name))
        if known is not None and known[0] is snapshot:
            return known[1]
        made = _draw(snapshot, name)
        self._drawn = {key: each for key, each in self._drawn.items() if key[0] == feed.key or len(self._drawn) < 200}
        self._drawn[feed.key, name] = snapshot, made
        return made


def _draw(snapshot: Snapshot, name: str) -> Picture:
    study = snapshot.runs.study
    try:
        with importable(study):
            shown = under_labels(study)
            figure = running_chart(shown, _labeled(snapshot)) if name == NAME else snapshot.runs.plot(name)
            return {"html": str(figure_markup(figure, shown, f"chart-{name}")), "reason": ""}
    except FairtrialError as error:
        return {"html": "", "reason": one_line(str(error))}


def _labeled(snapshot: Snapshot) -> list[TrialResult]:
    """The results under the labels of the arms."""
    labels = {arm.name: arm.label or arm.name for arm in snapshot.runs.study.arms}
    return [replace(result, arm=labels[result.arm]) for result in snapshot.runs.results if result.arm in labels]

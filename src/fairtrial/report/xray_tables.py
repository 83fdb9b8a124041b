"""The x-ray of a study as tables: for people, for other programs, and with its sentences above."""

from collections.abc import Callable, Collection, Iterator
from typing import Any, TypeAlias

from fairtrial.report.csv_text import csv_text
from fairtrial.report.grid import Grid, columns
from fairtrial.report.words import NOTHING, percent
from fairtrial.report.xray import ArmXray, Moment, Statistics, StudyXray, missing, number, sentences

#: Most arms whose kinds of layers are shown at once.
MOST_ARMS = 12


def _share(name: str) -> Callable[[Statistics], str]:
    return lambda found: percent(found[name]) if name in found else NOTHING


def _number(name: str) -> Callable[[Statistics], str]:
    return lambda found: number(found[name]) if name in found else NOTHING


def _loss(name: str) -> Callable[[Statistics], str]:
    return lambda found: f"{found[name]:.3f}" if name in found else NOTHING


def _root(found: Statistics) -> str:
    return f"{10 ** found['log10_sqrt_vhat_p50']:.1e}" if "log10_sqrt_vhat_p50" in found else NOTHING


#: Key, head and how a cell is written, of statistics overall and of kinds of layers.
_OVERALL: tuple[tuple[str, str, Callable[[Statistics], str]], ...] = (
    ("sqrt_vhat", "median\nsqrt(vhat)", _root),
    ("eps_over_1pct", "eps >\n1%", _share("eps_over_1pct")),
    ("eps_over_10pct", "eps >\n10%", _share("eps_over_10pct")),
    ("eps_over_100pct", "eps >\n100%", _share("eps_over_100pct")),
    ("update_rms_over_lr", "update\n/ lr", _number("update_rms_over_lr")),
    ("update_over_weight", "update\n/ weight", _number("update_over_weight")),
    ("signal", "signal", _number("signal")),
    ("cosine", "cosine", _number("cosine")),
    ("noise_scale", "noise\nscale", _number("noise_scale")),
    ("train_loss", "train\nloss", _loss("train_loss")),
    ("test_loss", "test\nloss", _loss("test_loss")),
)
_KINDS: tuple[tuple[str, str, Callable[[Statistics], str]], ...] = (
    ("weights", "weights", lambda found: f"{found.get('coordinates', 0):,.0f}"),
    ("no_gradient", "no\ngradient", _share("no_gradient")),
    *(one for one in _OVERALL if one[0] not in {"noise_scale", "train_loss", "test_loss"}),
)
#: What the columns mean, each with the column whose presence it needs.
_LEGEND = (
    (
        "eps_over_10pct",
        "eps > 10%: share of coordinates that have had a gradient in which epsilon exceeds 10% of sqrt(vhat).",
    ),
    ("update_rms_over_lr", "update / lr: root mean square of a step's change over the learning rate."),
    ("update_over_weight", "update / weight: norm of that change over the norm of the weights."),
    ("signal", "signal: mean of |mhat| / sqrt(vhat)."),
    ("cosine", "cosine: of the averaged gradient and the fresh one."),
    ("noise_scale", "noise scale: gradient noise scale, in batches."),
    ("test_loss", "test loss: of up to 128 test images."),
)


#: What a row of the two tables is about: an arm and its moment, or an arm, a kind of layer and its statistics.
_MomentRow: TypeAlias = tuple[str, Moment]
_KindRow: TypeAlias = tuple[str, str, Statistics]
_MomentColumns: TypeAlias = list[tuple[str, str, Callable[[_MomentRow], str]]]
_KindColumns: TypeAlias = list[tuple[str, str, Callable[[_KindRow], str]]]


def xray_grids(data: StudyXray) -> list[Grid]:
    """Lay an x-ray out: sentences and a table of moments, then one of the kinds of layers at the last moment."""
    name = f"{data.study}@{data.hash[:8]}"
    rows = [(one.arm, moment) for one in data.arms for moment in _shown(one, whole=data.one)]
    written: _MomentColumns = [
        ("arm", "arm", lambda row: row[0]),
        ("moment", "after", lambda row: row[1].label),
        *((key, head, _of_moment(write)) for key, head, write in _OVERALL),
    ]
    used = [one for one in written if one[0] in {"arm", "moment"} or any(one[2](row) != NOTHING for row in rows)]
    first = Grid(
        f"{name}: x-ray", columns(rows, used), tuple(_notes(data, {one[0] for one in used})), lead=sentences(data)
    )
    kinds = [(one.arm, kind, each) for one in data.arms[:MOST_ARMS] for kind, each in one.last.kinds.items()]
    if not kinds:
        return [first]
    of_kinds: _KindColumns = [
        ("arm", "arm", lambda row: row[0]),
        ("kind", "layers", lambda row: row[1]),
        *((key, head, _of_kind(write)) for key, head, write in _KINDS),
    ]
    shown = [one for one in of_kinds if one[0] in {"arm", "kind"} or any(one[2](row) != NOTHING for row in kinds)]
    notes = (f"Of the first {MOST_ARMS} arms.",) if len(data.arms) > MOST_ARMS else ()
    return [first, Grid(f"{name}: x-ray by kind of layer, at the last moment", columns(kinds, shown), notes)]


def _of_moment(write: Callable[[Statistics], str]) -> Callable[[_MomentRow], str]:
    return lambda row: write(row[1].overall)


def _of_kind(write: Callable[[Statistics], str]) -> Callable[[_KindRow], str]:
    return lambda row: write(row[2])


def _shown(one: ArmXray, *, whole: bool) -> list[Moment]:
    """All moments of one arm; of several, the first, the end of the first epoch, one in the middle and the last."""
    if whole:
        return list(one.moments)
    ends = one.epochs
    wanted = {one.moments[0].step, ends[0].step, ends[(len(ends) - 1) // 2].step, one.last.step}
    return [moment for moment in one.moments if moment.step in wanted]


def _notes(data: StudyXray, shown: Collection[str]) -> Iterator[str]:
    yield from (text for column, text in _LEGEND if column in shown)
    if lines := list(missing(data)):
        yield ""
        yield from lines


def xray_table(data: StudyXray) -> dict[str, Any]:
    """Lay an x-ray out as other programs read it."""
    return {
        "study": data.study,
        "hash": data.hash,
        "reference": data.reference,
        "sentences": list(sentences(data)),
        "arms": [
            {
                "arm": one.arm,
                "notes": list(one.notes),
                "moments": [
                    {"epoch": moment.epoch, "step": moment.step, "seeds": moment.seeds}
                    | {"overall": dict(moment.overall), "kinds": {kind: dict(x) for kind, x in moment.kinds.items()}}
                    for moment in one.moments
                ],
            }
            for one in data.arms
        ],
        "without": list(data.without),
    }


def xray_csv(data: StudyXray) -> str:
    """Write a row for each moment of each arm, and one for each kind of layer in it."""
    rows: list[dict[str, Any]] = []
    for one in data.arms:
        for moment in one.moments:
            head = {"arm": one.arm, "epoch": moment.epoch, "step": moment.step, "seeds": moment.seeds}
            rows.append(head | {"kind": None} | dict(moment.overall))
            rows += [head | {"kind": kind} | dict(each) for kind, each in moment.kinds.items()]
    fixed = ["arm", "epoch", "step", "seeds", "kind"]
    names = [*fixed, *sorted({name for row in rows for name in row}.difference(fixed))]
    return csv_text(names, ([row.get(name) for name in names] for row in rows))

"""The sections of a report, in the order of its story; the live page takes the ones that it wants."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from fairtrial.digests import digest_results
from fairtrial.measures import measure
from fairtrial.report.charts import Figure
from fairtrial.report.claims import claims_grid
from fairtrial.report.costs import cost_grid
from fairtrial.report.grid import Grid, printable
from fairtrial.report.losses import losses
from fairtrial.report.page.answer import claim_counts, three_sentences, verdict_counts
from fairtrial.report.page.fixed import held_fixed, proved
from fairtrial.report.page.items import Bullets, Charts, Facts, Folded, Item, Plain, Section, Table, listed, words
from fairtrial.report.page.material import XRAY, Material
from fairtrial.report.page.methods import methods
from fairtrial.report.page.origin import how_to_repeat, identity, machines, reported_with, trained_on, trials_text
from fairtrial.report.words import count
from fairtrial.spec.metrics import Metric
from fairtrial.stats.joined import join
from fairtrial.text import one_line
from fairtrial.trial import Outcome

#: Where charts that this module does not name belong, by how their names begin; others are in the section of curves.
_PLACES = {
    "verdicts": ("differences", "history", "sensitivity", "heat_map", "noise"),
    "overfitting": ("overfitting", "train_test", "generalization", "gap"),
    "cost": ("time", "cost"),
}

#: Up to so many kinds of machines are listed at once; more on demand.
UNFOLDED = 4


def story(material: Material) -> tuple[Section, ...]:
    """Make every section, in order; a section without anything to say is left out."""
    made = [make(material) for make in SECTIONS.values()]
    return tuple(section for section in made if section.items)


def answer_section(material: Material) -> Section:
    """The question and the answer in three sentences, and the study in short."""
    study, found = material.shown.study, material.shown.verdict.data
    question, answer, basis = three_sentences(study, found, material.ended, material.planned)
    asked = measure(found.metric)
    way = {"higher": "higher is better", "lower": "lower is better"}.get(str(asked.direction), "")
    rows = [
        ("trials", trials_text(material.named.results, material.planned, at_most=study.sequential)),
        ("reference", study.reference),
        ("measure", f"{asked.label}{f', {way}' if way else ''}"),
        ("margin", found.unit.amount(found.margin) if found.margin is not None else "none was set"),
        ("verdicts", verdict_counts(found)),
    ]
    if claims := material.shown.claims:
        findings = [one.finding.value for one in claims.claims] + [one.finding.value for one in claims.joint]
        rows.append(("claims", claim_counts(findings)))
    return Section(
        "answer",
        "Question and answer",
        (
            *_warnings(material),
            words(question, look="question"),
            words(answer, basis, look="answer"),
            Facts(tuple((name, text) for name, text in rows if text)),
        ),
    )


def _warnings(material: Material) -> Iterator[Item]:
    if not material.named.results:
        yield words("No trial of this study has started yet.", look="alarm")
        return
    ended = [result for result in material.named.results if result.outcome is not None]
    if ended and all(result.outcome is Outcome.DIVERGED for result in ended):
        yield words("Every trial that has ended diverged.", look="alarm")
    elif ended and not any(result.outcome is Outcome.FINISHED for result in ended):
        yield words("No trial that has ended finished its training.", look="alarm")
    if alerts := material.shown.verdict.data.alerts:
        yield words(*alerts, look="alarm")


def verdict_section(material: Material) -> Section:
    """The verdict plot, and the verdicts with their numbers."""
    found = material.shown.verdict
    plots = material.verdict_plots
    items: list[Item] = [Charts("verdict-plot", plots)] if plots else []
    items += [Table(_without_alerts(grid, material)) for grid in found.grids()]
    items += _others(material, "verdicts", {"differences"})
    return Section("verdicts", "Verdicts", tuple(items))


def _without_alerts(grid: Grid, material: Material) -> Grid:
    """Leave out of a grid what the first section has said at its top."""
    said = set(map(one_line, material.shown.verdict.data.alerts))
    return replace(grid, first=tuple(line for line in grid.first if line not in said))


def table_section(material: Material) -> Section:
    """Table 1."""
    return Section(
        "table",
        "Table 1: results of each arm",
        tuple(Table(_without_alerts(grid, material)) for grid in material.table.grids()),
    )


def curve_section(material: Material) -> Section:
    """Figures 1 and 2, the learning curves of every metric, and charts that have no other place."""
    charts = material.charts
    shown = {name: figure for name, figure in charts.items() if name in material.recorded}
    items: list[Item] = []
    first = [("Test accuracy", charts["test_accuracy"])] if "test_accuracy" in charts else []
    second = [("Training loss", charts["training_loss"])] if "training_loss" in charts else []
    used = {*(["test_acc"] if first else []), *(["train_loss"] if second else [])}
    rest = [(_label(name), figure) for name, figure in shown.items() if name not in used]
    firsts = first or rest[:1]
    if firsts:
        items.append(Charts("figure-1", (*firsts, *(one for one in rest if one not in firsts))))
    if second:
        items.append(Charts("figure-2", tuple(second)))
    used_names = {"test_accuracy", "training_loss", *shown}
    items += [
        Charts(f"chart-{name}", ((figure.name, figure),))
        for name, figure in charts.items()
        if name not in used_names and not name.startswith(XRAY) and _place(name) is None
    ]
    if not items:
        items = [
            words("No trial that finished or diverged has recorded a metric, so there are no curves.", look="note")
        ]
    return Section("curves", "Figures 1 and 2: learning curves", tuple(items))


def overfitting_section(material: Material) -> Section:
    """Training against test."""
    items = _others(material, "overfitting", set())
    if not items:
        pairs = [(name, name.replace("train_", "test_", 1)) for name in material.recorded if name.startswith("train_")]
        figures = [
            (_label(name), material.charts[name])
            for pair in pairs
            if all(one in material.charts for one in pair)
            for name in pair
        ]
        items = [Charts("overfitting-curves", tuple(figures))] if figures else []
    if not items:
        items = [words("The trials have not recorded the same metric on training and test data.", look="note")]
    return Section("overfitting", "Training against test", tuple(items))


def claim_section(material: Material) -> Section:
    """Every claim with its judgment."""
    claims = material.shown.claims
    if claims is None:
        return Section("claims", "Claims", ())
    return Section(
        "claims",
        "Claims, and what the runs say of each",
        (Table(_without_alerts(printable(claims_grid(claims)), material)),),
    )


def xray_section(material: Material) -> Section:
    """What the optimizer did inside, in words, figures and tables, or how to record it."""
    first, *others = (Table(grid) for grid in material.xray.grids()) if material.xray else (None,)
    figures = {name: figure for name, figure in material.charts.items() if name.startswith(XRAY)}
    charts = [Charts(f"chart-{name}", ((figure.name, figure),)) for name, figure in figures.items()]
    items: tuple[Item, ...] = (first, *charts, *others) if first else ()
    if not items:
        how = (
            " `fairtrial run` takes them unless it is told --no-xray; a loop of your own calls trial.xray(optimizer). "
            "Runs that were trained without stay as they are; see docs/xray.md."
        )
        how = "" if material.named.study.imported else how
        items = (words(f"These runs have no snapshots of the optimizer's state.{how}", look="note"),)
    return Section("xray", "X-ray: what the optimizer did inside", items)


def cost_section(material: Material) -> Section:
    """What the runs cost."""
    grid = cost_grid(material.shown.study, material.shown.results)
    return Section("cost", "Cost and timing", (*_others(material, "cost", set()), Table(printable(grid))))


def fixed_section(material: Material) -> Section:
    """What was held fixed."""
    fixed = held_fixed(material.named.study, material.named.results)
    shared = proved(material.named.study, material.named.results)
    items: list[Item] = [Facts(fixed.rows)] if fixed.rows else []
    if shared:
        items.append(words(f"The same for all arms at each seed, by fingerprints of every run: {listed(shared)}."))
    elif len(material.named.study.arms) > 1 and material.named.results:
        items.append(words("No fingerprints show that arms shared initial weights or the order of batches at a seed."))
    items += [words(note, look="note") for note in fixed.notes]
    return Section("fixed", "What was held fixed", tuple(items))


def loss_section(material: Material) -> Section:
    """Runs without a comparable number, each way once with its traceback."""
    shown = material.shown
    reasons = losses(shown.study, shown.results)
    met: dict[str, list[tuple[str, int]]] = {}
    for key, reason in reasons.items():
        met.setdefault(reason, []).append(key)
    items: list[Item] = []
    for reason, keys in met.items():
        arms: dict[str, list[str]] = {}
        for arm, seed in keys:
            arms.setdefault(arm, []).append(str(seed))
        where = "; ".join(
            f"{arm}, {'seed' if len(seeds) == 1 else 'seeds'} {listed(seeds, 12)}" for arm, seeds in arms.items()
        )
        first, *rest = reason.splitlines()
        told = reason.splitlines()[-1] if rest else first
        items.append(Bullets((f"{where}: {told}",)))
        if rest:
            items.append(Folded(f"Traceback: {where}", (Plain(reason, f"Traceback of {where}"),)))
    if not items:
        items = [words("None: every run that has ended has the study's measure.")]
    running = [
        f"{arm}, seed {seed}" for (arm, seed), one in join(shown.study, shown.results).items() if not one.outcome
    ]
    if running:
        items.append(words(f"Running or interrupted: {listed(running, 12)}.", look="note"))
    return Section("losses", "Diverged, failed and otherwise lost trials", tuple(items))


def origin_section(material: Material) -> Section:
    """Provenance, how to repeat it, and a methods paragraph."""
    named, shown = material.named, material.shown
    text, works = methods(shown.study, shown.results, shown.verdict.data, shown.claims)
    setups = tuple(trained_on(named.results))
    head = f"What trained: {count(len(machines(named.results)), 'setup')}"
    trained = (Folded(head, setups),) if len(setups) > UNFOLDED else (words(f"{head}.", look="subhead"), *setups)
    return Section(
        "provenance",
        "Provenance, repetition and methods",
        (
            identity(named.study, named.results, digest_results(named.results)),
            *trained,
            Folded("What made this report", (reported_with(),)),
            *how_to_repeat(named.study),
            words("Methods, to paste into a paper:", look="subhead"),
            words(text, look="methods"),
            Bullets(works),
        ),
    )


def _others(material: Material, place: str, used: set[str]) -> list[Item]:
    """The charts of a place, in the order in which `_PLACES` has them."""
    starts = _PLACES[place]
    names = [name for name in material.charts if _place(name) == place and name not in {*used, *material.recorded}]
    names.sort(key=lambda name: next(at for at, start in enumerate(starts) if name.startswith(start)))
    figures = [material.charts[name] for name in names]
    return [Charts(f"chart-{figure.name}", ((figure.name, figure),)) for figure in figures]


def _place(name: str) -> str | None:
    return next((place for place, starts in _PLACES.items() if name.startswith(starts)), None)


def _label(metric: str) -> str:
    label = Metric.named(metric).label
    return f"{label[:1].upper()}{label[1:]}"


#: The sections by their keys, in order.
SECTIONS: Mapping[str, Callable[[Material], Section]] = {
    "answer": answer_section,
    "verdicts": verdict_section,
    "table": table_section,
    "curves": curve_section,
    "overfitting": overfitting_section,
    "claims": claim_section,
    "xray": xray_section,
    "cost": cost_section,
    "fixed": fixed_section,
    "losses": loss_section,
    "provenance": origin_section,
}


def all_figures(sections: tuple[Section, ...]) -> dict[str, Figure]:
    """The figures of sections by their names, each once."""
    found: dict[str, Figure] = {}
    for section in sections:
        for item in section.items:
            if isinstance(item, Charts):
                found |= {figure.name: figure for _, figure in item.figures}
    return found

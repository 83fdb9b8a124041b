"""Pages of charts for the tests."""

from markupsafe import Markup

from fairtrial.report.charts import draw
from fairtrial.report.page import arm_controls, environment, figure_choice, figure_markup, page_script, style_sheet
from fairtrial.report.page.assets import in_page, vega_script
from fairtrial.results import StudyResults
from fairtrial.spec import Study
from fairtrial.testing import simulated_results, simulated_study

ARMS = {"baseline": {}, "high_beta1": {"mean": 0.801}, "low_beta2": {"mean": 0.78}, "wild": {"diverge_seeds": [1]}}
#: A label that attacks a page: its parser, its attributes, its templates and Vega's expressions.
EVIL = '</script><img src=x onerror="alert(1)">{{7*7}}" + alert(2) + "'
TEMPLATE = """
{% extends "page.html" %}
{% block title %}Charts{% endblock %}
{% block head %}{{ head }}{% endblock %}
{% block bar %}{{ arms }}{% endblock %}
{% block main %}<h1>Charts</h1>{{ body }}{% endblock %}
{% block scripts %}{{ scripts }}{% endblock %}
"""
INLINE_STYLE = Markup("<style>{}</style>").format(Markup(style_sheet()))
INLINE_SCRIPTS = Markup("<script>{}</script>" * 2).format(
    Markup(in_page(vega_script())), Markup(in_page(page_script()))
)


def small_study(arms=ARMS, **more):
    study = simulated_study(arms, **({"seeds": 5, "epochs": 8, "evidence": {"margin": 0.01}} | more))
    return study, simulated_results(study)


def labeled(labels, seeds=3):
    """A study whose arms have labels, and its results, as charts take them."""
    study, results = small_study({"baseline": {}} | {name: {"mean": 0.7} for name in labels}, seeds=seeds)
    table = study.to_dict()
    for name, label in labels.items():
        table["arms"][name]["label"] = label
    runs = StudyResults(Study.from_dict(table), tuple(results))._labeled()
    return runs.study, runs.results


def page_of_charts(names=(), *, head=INLINE_STYLE, scripts=INLINE_SCRIPTS, study=None, results=None, choice=True):
    """Write a page with charts, and unless told otherwise a choice of two measures."""
    if study is None:
        study, results = small_study()
    body = Markup("").join(figure_markup(figure, study) for figure in draw(names, study, results))
    two = [(name, draw([name], study, results)[0]) for name in ("train_acc", "test_loss")] if choice else []
    body += figure_choice(two, study, "other") if two else ""
    values = {"head": head, "arms": arm_controls(study), "body": body, "scripts": scripts}
    return environment().from_string(TEMPLATE).render(values)

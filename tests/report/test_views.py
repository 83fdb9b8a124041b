"""Results that show themselves: in a notebook, at a prompt, in documents."""

import json
from html.parser import HTMLParser

import pytest

import fairtrial
from fairtrial.errors import ReportError
from fairtrial.report.grid import Column, Grid
from fairtrial.report.html import html
from fairtrial.report.views import View
from fairtrial.stats.claims import check_claims
from fairtrial.stats.comparison import compare
from fairtrial.stats.summary import summarize
from fairtrial.testing import simulated_results, simulated_study

ARMS = {"baseline": {}, "up": {"mean": 0.9}, "low": {"mean": 0.7}, "dead": {"diverge_rate": 1.0}}
CLAIM = {"id": "1", "text": "<b>5%</b> & worse", "arm": "low", "against": "baseline", "direction": "lower"}


class Page(HTMLParser):
    """What a browser would see: that every tag is closed, the rows of tables, and what is colored."""

    def __init__(self, text):
        super().__init__()
        self.open, self.rows, self.colored, self.text = [], [], {}, ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        if tag == "br":
            return
        self.open.append((tag, dict(attrs).get("style", "")))
        if tag == "tr":
            self.rows.append([])
        elif tag in {"td", "th"}:
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        self.text += data
        if any(tag in {"td", "th"} for tag, _ in self.open):
            self.rows[-1][-1] += data
        tag, style = self.open[-1] if self.open else ("", "")
        if tag == "span":
            self.colored[data] = style


@pytest.fixture(scope="module")
def views():
    study = simulated_study(ARMS, seeds=4, claims=[CLAIM])
    results = simulated_results(study)
    data = {
        "table": summarize(study, results),
        "verdict": compare(study, results),
        "claims": check_claims(study, results),
    }
    return {name: View(each) for name, each in data.items()}


@pytest.mark.parametrize("name", ["table", "verdict", "claims"])
def test_a_prompt_shows_the_text_and_a_notebook_html(views, name):
    view = views[name]
    assert repr(view) == str(view) == view.text().rstrip("\n")
    page = Page(view._repr_html_())
    assert view.text().splitlines()[0] in page.text
    assert len({len(row) for row in page.rows}) == 1


def test_the_html_table_has_the_cells_of_the_others(views):
    head, *rows = Page(views["table"].html()).rows
    assert head[0] == "arm"
    assert [row[0] for row in rows] == ["baseline *", "up", "low", "dead"]
    lines = views["table"].markdown().splitlines()
    assert [row[-1] for row in rows] == [line.strip("| ").rpartition(" | ")[2] for line in lines[2:6]]


def test_verdicts_are_colored_and_what_must_be_known_stands_below(views):
    page = Page(views["verdict"].html())
    assert {"better", "worse", "undecided"} <= set(page.colored)
    assert page.colored["better"] != page.colored["worse"] != page.colored["undecided"]
    assert page.text.index("by the test set itself") > page.text.index("could")


def test_whatever_a_name_or_a_claim_holds_is_escaped(views):
    assert "&lt;b&gt;5%&lt;/b&gt; &amp; worse" in views["claims"].html()
    evil = Grid("<i>", (Column("arm", ("<arm>",), (("<script>",),)),), ("<note>",), ("a better\n<sentence>",))
    page = Page(html(evil))
    assert page.rows == [["<arm>"], ["<script>"]]
    assert {tag for tag in ("<i>", "<note>", "<sentence>") if tag in page.text} == {"<i>", "<note>", "<sentence>"}


@pytest.mark.parametrize("name", ["table", "verdict", "claims"])
def test_every_format_is_written_by_its_name_and_ends_in_one_line_break(views, name):
    view = views[name]
    for form in view.formats:
        text = view.write(form)
        assert text == text.strip("\n") + "\n"
        assert text == getattr(view, form)()
    assert json.loads(view.json())


def test_verdicts_are_no_csv(views):
    assert views["table"].csv().startswith("arm,")
    with pytest.raises(ReportError, match='format = "csv": must be one of text'):
        views["verdict"].write("csv")
    with pytest.raises(ReportError, match="as JSON"):
        views["claims"].csv()


def test_a_study_without_results_shows_itself():
    study = simulated_study({"a": {}, "b": {"mean": 0.9}})
    for data in (summarize(study, []), compare(study, []), check_claims(study, [])):
        assert Page(View(data).html()).text


def test_columns_stay_aligned_where_the_screen_lacks_a_letter():
    study = simulated_study({"plain": {}, "greek": {"mean": 0.9}}, seeds=3)
    table = study.to_dict()
    table["arms"]["greek"]["label"] = "β₁ = 0.5 ±"
    labeled = fairtrial.StudyResults(type(study).from_dict(table), simulated_results(study))
    text = labeled.table().text(100, encoding="ascii")
    assert r"\u03b2\u2081 = 0.5 +-" in text
    assert text.isascii() is False  # the rule, which every encoding has in one column
    header, rule, *rows = text.splitlines()[2:6]
    assert {len(line) for line in (header, rule, *rows)} == {len(rule)}
    assert "β₁ = 0.5 ±" in labeled.table().text(100)

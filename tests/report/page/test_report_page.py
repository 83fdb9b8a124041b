"""The report as a reader has it: opened from disk in a real browser, without a network."""

import pytest

from fairtrial.report.page.document import document
from fairtrial.report.page.folder import PAGE
from fairtrial.report.page.material import Material
from fairtrial.results import StudyResults
from report.page.pages import EVIL, labeled, small_study

CLAIM = {
    "id": "1",
    "text": f"low_beta2 is behind. {EVIL}",
    "arm": "low_beta2",
    "against": "baseline",
    "direction": "lower",
}


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    study, results = small_study(claims=[CLAIM])
    folder = tmp_path_factory.mktemp("report")
    StudyResults(study, tuple(results)).report(folder)
    return folder / PAGE


def drawn(visited):
    visited.page.evaluate("fairtrialPage.drawAll()")
    return visited.page


def test_it_opens_from_disk_without_errors_or_requests(visit, report):
    visited = visit(report)
    page = drawn(visited)
    assert page.locator("h2").first.text_content() == "Question and answer"
    assert page.locator(".chart-live svg").count() >= 4
    assert visited.errors == []
    assert visited.outside() == []
    assert page.locator("img[src=x]").count() == 0
    assert EVIL in page.locator("#claims li").first.text_content()


def test_an_arm_toggles_and_another_measure_shows(visit, report):
    page = drawn(visit(report))
    page.locator("[data-arms] summary").click()
    page.locator('[data-arm="low_beta2"]').uncheck()
    page.wait_for_function("!document.querySelector('#verdict-plot .chart-live').textContent.includes('low_beta2')")
    page.locator("#figure-1-choice").select_option(label="Training accuracy")
    page.wait_for_function(
        "document.querySelector('#figure-1 .chosen .chart-live').textContent.includes('Training acc')"
    )


def test_the_keyboard_reaches_everything(visit, report):
    page = drawn(visit(report))
    for summary in page.locator("summary:visible").all():
        summary.press("Enter")
    focusable = "a[href], button, input, select, summary, [tabindex='0']"
    page.evaluate(
        f"""() => {{
            window.wanted = new Set([...document.querySelectorAll("{focusable}")].filter((x) => x.checkVisibility()));
            window.reached = new Set();
            document.addEventListener("focusin", (event) => window.reached.add(event.target));
            document.querySelector("#main").blur();
        }}"""
    )
    for _ in range(page.evaluate("wanted.size") + 5):
        page.keyboard.press("Tab")
    missed = page.evaluate("[...wanted].filter((one) => !reached.has(one)).map((one) => one.outerHTML.slice(0, 120))")
    assert missed == []
    assert page.evaluate("wanted.size") > 25


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(visit, report, scheme):
    visited = visit(report, color_scheme=scheme)
    page = drawn(visited)
    for summary in page.locator("summary:visible").all():
        summary.press("Enter")
    assert visited.errors == []
    assert visited.axe() == []


@pytest.mark.parametrize("width", [320, 375])
def test_a_phone_needs_no_scrolling_sideways(visit, report, width):
    page = drawn(visit(report, viewport={"width": width, "height": 740}))
    for summary in page.locator("summary:visible").all():
        summary.press("Enter")
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_a_hostile_label_stays_text(visit, tmp_path):
    study, results = labeled({"evil": EVIL, "long": "x" * 256})
    path = tmp_path / "report.html"
    path.write_text(document(Material.of(study, results)), encoding="utf-8")
    visited = visit(path, viewport={"width": 360, "height": 740})
    page = drawn(visited)
    assert visited.errors == []
    assert visited.outside() == []
    assert page.locator("img[src=x]").count() == 0
    assert 'onerror="alert(1)">' in page.locator("#table").text_content()
    assert page.evaluate("document.documentElement.scrollWidth") <= 360

"""Charts in pages, in a real browser."""

import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from markupsafe import Markup

from builders import make_study
from fairtrial.report.page import page_script, style_sheet, vega_script
from fairtrial.stats.comparison import compare
from report.page.pages import EVIL, labeled, page_of_charts, small_study
from report.test_xray import xrayed

CHART, CURVE = "#figure-differences", "#figure-test_accuracy"
POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:"


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "page.html"
    path.write_text(page_of_charts(["differences", "test_accuracy", "training_loss"]))
    return path


def drawn(visited):
    visited.page.evaluate("fairtrialPage.drawAll()")
    return visited.page


def texts(page, chart):
    return page.locator(f"{chart} .chart-live svg text").all_text_contents()


def paths(page, chart):
    return page.locator(f"{chart} .chart-live svg path").count()


def hover_first_point(page, chart=CURVE):
    point = page.locator(f"{chart} .chart-live svg .mark-symbol path").first
    point.evaluate("(element) => element.scrollIntoView({block: 'center'})")
    box = point.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.wait_for_selector(".chart-tooltip", state="visible")
    return page.locator(".chart-tooltip").text_content()


def test_it_draws_all_charts_without_errors_or_requests(visit, page_file):
    visited = visit(page_file)
    page = drawn(visited)
    assert page.locator(".chart-live svg").count() == page.locator("[data-chart]").count() == 5
    assert page.locator(".chart-static img").first.is_hidden()
    assert visited.errors == []
    assert visited.outside() == []


def test_an_arm_is_taken_out_of_every_chart_and_comes_back(visit, page_file):
    page = drawn(visit(page_file))
    before = {chart: texts(page, chart) for chart in (CHART, CURVE)}
    assert all("low_beta2" in shown for shown in before.values())
    page.locator("[data-arms] summary").click()
    page.locator('[data-arm="low_beta2"]').uncheck()
    for chart in (CHART, CURVE):
        page.wait_for_function(f"!document.querySelector('{chart} .chart-live').textContent.includes('low_beta2')")
        assert "wild" in " ".join(texts(page, chart))
    page.locator('[data-arm="low_beta2"]').check()
    page.wait_for_function(f"document.querySelector('{CHART} .chart-live').textContent.includes('low_beta2')")
    assert texts(page, CHART) == before[CHART]


def test_another_measure_is_shown(visit, page_file):
    page = drawn(visit(page_file))
    assert page.locator("#other-0").is_visible()
    page.locator("#other-choice").select_option("test_loss")
    assert page.locator("#other-0").is_hidden()
    assert page.locator("#other-1 .chart-live").is_visible()
    page.wait_for_function("document.querySelector('#other-1 .chart-live').textContent.includes('Test loss')")


def test_single_seeds_are_drawn_on_demand(visit, page_file):
    page = drawn(visit(page_file))
    before = paths(page, CURVE)
    page.locator(f"{CURVE} [data-seeds]").check()
    page.wait_for_function(f"document.querySelectorAll('{CURVE} .chart-live svg path').length > {before + 100}")


def test_it_zooms_by_keyboard(visit, page_file):
    page = drawn(visit(page_file))
    before = texts(page, CURVE)
    page.locator(f"{CURVE} [data-zoom]").press("Enter")
    for key in ("in", "right"):
        page.locator(f"{CURVE} [data-step={key}]").press("Enter")
    page.wait_for_function(f"!document.querySelector('{CURVE} .chart-live').textContent.startsWith('12345678')")
    page.wait_for_timeout(300)
    assert texts(page, CURVE) != before
    page.locator(f"{CURVE} [data-step=reset]").press("Enter")
    page.wait_for_timeout(500)
    page.locator(f"{CURVE} [data-zoom]").press("Enter")
    page.wait_for_function(f"document.querySelector('{CURVE} .chart-live').textContent.includes('{before[0]}')")


def test_hovering_says_what_a_point_is(visit, page_file):
    page = drawn(visit(page_file))
    assert {"Arm", "Epoch", "Mean"} <= set(re.findall("Arm|Epoch|Mean", hover_first_point(page)))


def tooltip_of(page, chart, mark):
    """What the page says of the first mark of a kind; its rows by their heads."""
    page.locator(f"{chart} .chart-live svg {mark}").first.hover(force=True)
    page.wait_for_selector(".chart-tooltip", state="visible")
    cells = page.locator(".chart-tooltip tr").all()
    return {row.locator("th").text_content(): row.locator("td").text_content() for row in cells}


def test_a_bar_says_its_whole_interval_where_the_axis_cuts_it(visit, tmp_path):
    arms = {"ref": {}, "a": {"mean": 0.801}, "b": {"mean": 0.799}, "bad": {"mean": 0.3}}
    study, results = small_study(arms)
    path = tmp_path / "page.html"
    path.write_text(page_of_charts(["differences"], study=study, results=results, choice=False))
    visited = visit(path)
    page = drawn(visited)
    (own,) = [row for row in compare(study, results).comparisons if row.arm == "bad"]
    low, high = (f"{100 * end:.2f}".replace("-", "−") for end in own.interval)
    marks = page.locator(f"{CHART} .chart-live svg .mark-symbol path")
    found = []
    for at in range(marks.count()):
        marks.nth(at).hover(force=True)
        text = page.locator(".chart-tooltip").text_content()
        found += [text] if "95% interval (points)" in text and "bad" in text else []
    assert found
    assert all(f"{low} to {high}" in text and "owest" not in text and "turn" not in text for text in found)
    assert visited.errors == []


def test_axes_name_the_values_in_tooltips(visit, tmp_path):
    study = make_study(("baseline", "large_eps"), seeds=1)
    path = tmp_path / "page.html"
    path.write_text(page_of_charts(["xray_updates"], study=study, results=xrayed(study), choice=False))
    page = drawn(visit(path))
    assert {"Arm", "Epochs (log scale)", "Root mean square", "Step"} == set(
        tooltip_of(page, "#figure-xray_updates", ".mark-symbol path")
    )


LONG = "an_arm_with_a_name_of_more_than_forty_characters_which_rows_shorten"


def test_panels_and_rows_of_an_arm_leave_with_it(visit, tmp_path):
    study = make_study(("baseline", LONG), seeds=2)
    path = tmp_path / "page.html"
    path.write_text(
        page_of_charts(
            ["differences", "xray_sqrt_vhat", "overfitting"], study=study, results=xrayed(study), choice=False
        )
    )
    visited = visit(path)
    page = drawn(visited)
    charts = ("#figure-differences", "#figure-xray_sqrt_vhat", "#figure-overfitting")
    assert all("an_arm_with" in " ".join(texts(page, chart)) for chart in charts)
    page.locator("[data-arms] summary").click()
    page.locator(f'[data-arm="{LONG}"]').uncheck()
    for chart in charts:
        page.wait_for_function(f"!document.querySelector('{chart} .chart-live').textContent.includes('an_arm_with')")
    assert "baseline" in " ".join(texts(page, charts[1]))
    assert page.locator(f"{charts[1]} .chart-live svg .role-axis-title").count() == 2  # one panel's
    page.locator('[data-arm="baseline"]').uncheck()
    page.locator(f'[data-arm="{LONG}"]').check()
    page.wait_for_function(f"document.querySelector('{charts[1]} .chart-live').textContent.includes('sqrt(vhat)')")
    page.wait_for_function(f"document.querySelector('{charts[1]} .chart-live').textContent.includes('an_arm_with')")
    assert "sqrt(vhat)" in texts(page, charts[1])
    assert visited.errors == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(visit, page_file, scheme):
    visited = visit(page_file, color_scheme=scheme)
    page = drawn(visited)
    for summary in page.locator("summary:visible").all():
        summary.click()
    assert visited.errors == []
    assert visited.axe() == []


def test_dark_and_light_change_by_a_button(visit, page_file):
    page = drawn(visit(page_file))
    fill = "getComputedStyle(document.body).backgroundColor"
    assert page.evaluate(fill) == "rgb(255, 255, 255)"
    page.locator("[data-theme-toggle]").press("Enter")
    assert page.evaluate(fill) == "rgb(20, 23, 26)"
    page.wait_for_function(
        "document.querySelector('.chart-live svg rect.background, .chart-live svg > rect') === null || "
        "document.querySelector('.chart-live svg > rect').getAttribute('fill') === '#14171a'"
    )
    assert page.locator("[data-theme-toggle]").text_content() == "Light"


def test_a_phone_needs_no_scrolling_sideways(visit, page_file):
    page = drawn(visit(page_file, viewport={"width": 360, "height": 740}))
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    narrow = "[...document.querySelectorAll('.choice.chosen .chart-live, [data-chart]:not(.choice *) .chart-live')]"
    assert page.evaluate(f"{narrow}.map((one) => one.scrollWidth - one.clientWidth)") == [0] * 4


def test_without_a_script_and_in_print_there_are_pictures(visit, page_file):
    page = visit(page_file, java_script_enabled=False).page
    assert page.locator(".chart-static img").count() == page.locator(".chart-static img:visible").count() == 5
    printed = drawn(visit(page_file))
    printed.emulate_media(media="print")
    assert printed.locator(f"{CURVE} .chart-static img").is_visible()
    assert printed.locator(f"{CURVE} .chart-live").is_hidden()
    assert printed.locator("[data-theme-toggle]").is_hidden()


def test_a_strict_policy_forbids_nothing_that_it_needs(visit):
    files = {
        "/": page_of_charts(
            ["differences", "test_accuracy"],
            head=Markup('<link rel="stylesheet" href="/page.css">'),
            scripts=Markup('<script src="/vega.js"></script><script src="/page.js"></script>'),
        ),
        "/page.css": style_sheet(),
        "/page.js": page_script(),
        "/vega.js": vega_script(),
    }

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            found = files.get(self.path)
            self.send_response(200 if found else 204)
            kind = {"css": "text/css", "js": "text/javascript"}.get(self.path.rpartition(".")[2], "text/html")
            self.send_header("Content-Type", f"{kind}; charset=utf-8")
            self.send_header("Content-Security-Policy", POLICY)
            self.end_headers()
            self.wfile.write((found or "").encode())

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        visited = visit(f"http://127.0.0.1:{server.server_port}/")
        page = drawn(visited)
        page.locator(f"{CURVE} [data-zoom]").click()
        page.locator(f"{CURVE} [data-seeds]").check()
        page.locator("[data-theme-toggle]").click()
        page.wait_for_timeout(500)
        hover_first_point(page)
        assert page.locator(".chart-live svg").count() == 4
        assert visited.errors == []
        assert visited.outside(f"http://127.0.0.1:{server.server_port}/") == []
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_hostile_name_stays_text(visit, tmp_path):
    study, results = labeled({"evil": EVIL})
    path = tmp_path / "page.html"
    path.write_text(page_of_charts(["differences", "test_accuracy"], study=study, results=results))
    visited = visit(path)
    page = drawn(visited)
    assert page.locator("[data-arms] .arm").nth(1).text_content().strip().endswith('{{7*7}}" + alert(2) + "')
    page.locator("[data-arms] summary").click()
    page.locator("[data-arms] input").nth(0).uncheck()
    page.wait_for_timeout(500)
    assert 'onerror="alert(1)">' in hover_first_point(page)
    assert page.locator("img[src=x]").count() == 0
    assert visited.errors == []

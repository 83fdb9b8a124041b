"""The live page in a real browser: quiet, alone, live, and usable by keyboard, screen reader and phone."""

import pytest

from fairtrial.spec import Study
from fairtrial.web import hub

HOSTILE = '<img src=x onerror=alert(1)></script><script>alert(2)</script>" =cmd'


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """Look and draw more often than a page needs."""
    monkeypatch.setattr(hub, "LOOK", 0.2)
    monkeypatch.setattr(hub, "DRAW", 0.2)


def until(page, expression):
    """Wait until an expression holds; Playwright's own way needs ``eval``, which the page's policy forbids."""
    for _ in range(600):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(100)
    raise AssertionError(expression)


def drawn(page, name="test_accuracy"):
    """Scroll a chart into sight, and wait until the script has drawn it."""
    page.wait_for_selector(f'[data-name="{name}"]')
    page.locator(f'[data-name="{name}"]').scroll_into_view_if_needed()
    return page.wait_for_selector(f'[data-name="{name}"] .chart-live svg')


@pytest.mark.parametrize(
    "options",
    [
        {"color_scheme": "light"},
        {"color_scheme": "dark"},
        {"viewport": {"width": 360, "height": 740}, "is_mobile": True, "has_touch": True},
    ],
    ids=["light", "dark", "phone"],
)
def test_pages_load_alone_and_quietly_and_are_accessible(serve, ran, visit, options):
    with serve("fairtrial.db") as url:
        visited = visit(f"{url}/", **options)
        visited.page.wait_for_selector("table.studies a")
        assert visited.axe() == []
        visited.page.click("table.studies a")
        drawn(visited.page)
        drawn(visited.page, "differences")
        visited.page.wait_for_selector(".loss")
        width, window = visited.page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert width <= window
        assert visited.axe() == []
        assert visited.errors == []
        assert visited.outside(url) == []


def test_a_running_studys_curve_grows_without_a_reload(serve, simulated, writing, visit):
    run = writing(simulated)
    run.begin(("baseline", 0), ("better", 0))
    run.epoch(("baseline", 0), 1)
    rows = '[data-name="running"] .chart-data tbody tr'
    with serve("fairtrial.db") as url, run.store.lock(simulated):
        page = (visited := visit(f"{url}/study/{simulated.hash}")).page
        drawn(page, "running")
        assert page.locator(rows).count() == 1
        page.evaluate("window.here = document.querySelector('[data-name=running] [data-chart]')")
        for number in (2, 3):
            run.epoch(("baseline", 0), number)
            until(page, f"document.querySelectorAll('{rows}').length === {number}")
        until(page, "document.querySelector('[data-part=workers]').textContent.includes('3 of 3')")
        assert page.evaluate("window.here.isConnected")  # drawn in place, not anew
        run.end(("baseline", 0))
        until(page, "document.querySelector('[data-part=progress]').textContent.includes('1 of 9 trials')")
        assert "left" in page.locator("[data-left]").inner_text()
        assert visited.errors == []


def test_an_arm_is_taken_out_of_the_charts_and_stays_out(serve, simulated, writing, visit):
    run = writing(simulated)
    run.whole(("baseline", 0), ("better", 0))
    lines = "document.querySelectorAll('[data-name=test_accuracy] .chart-live svg .mark-line path').length"
    with serve("fairtrial.db") as url:
        page = (visited := visit(f"{url}/study/{simulated.hash}")).page
        drawn(page)
        before = page.evaluate(lines)
        page.click("details.arms summary")
        page.uncheck('[data-arm="better"]')
        until(page, f"{lines} < {before}")
        run.whole(("wild", 0))
        rows = "[...document.querySelectorAll('[data-name=test_accuracy] .chart-data tbody th')]"
        until(page, f"{rows}.some((cell) => cell.textContent === 'wild')")
        assert not page.is_checked('[data-arm="better"]')
        page.check('[data-arm="better"]')
        until(page, f"{lines} >= {before}")
        assert visited.errors == []


def test_a_hostile_name_stays_text(serve, writing, visit, simulated):
    table = simulated.to_dict()
    table["arms"]["better"]["label"] = HOSTILE
    table["claims"][0]["text"] = HOSTILE + "\u202e"
    study = Study.from_dict(table)
    run = writing(study)
    run.whole(("baseline", 0), ("better", 0))
    run.begin(("wild", 1))
    with serve("fairtrial.db") as url:
        visited = visit(f"{url}/study/{study.hash}")
        dialogs = []
        visited.page.on("dialog", lambda dialog: [dialogs.append(dialog.message), dialog.dismiss()])
        drawn(visited.page)
        visited.page.wait_for_selector("[data-part=claims] table, [data-part=claims] li")
        text = visited.page.locator("main").inner_text()
        assert "<img src=x onerror=alert(1)></script>" in text
        assert "\u202e" not in text
        assert visited.page.locator('img[src="x"]').count() == 0
        assert visited.page.locator("main script:not([type='application/json'])").count() == 0
        assert (dialogs, visited.errors, visited.outside(url)) == ([], [], [])


def test_the_keyboard_reaches_everything(serve, ran, visit):
    with serve("fairtrial.db") as url:
        page = visit(f"{url}/study/{ran.hash}").page
        drawn(page)
        page.evaluate("scrollTo(0, 0)")
        reached = set()
        for _ in range(120):
            page.keyboard.press("Tab")
            reached.add(page.evaluate("document.activeElement.textContent.trim().slice(0, 30)"))
        wanted = {"Skip to the content", "fairtrial: all studies", "Arms shown", "Dark", "Zoom"}
        assert wanted <= reached
        assert any("seed 1" in one or "seeds 1" in one for one in reached)  # a traceback can be opened


def test_what_the_reader_opened_stays_open_as_the_page_goes_on(serve, simulated, writing, visit):
    run = writing(simulated)
    run.whole(("wild", 1))
    with serve("fairtrial.db") as url:
        page = visit(f"{url}/study/{simulated.hash}").page
        page.wait_for_selector("details.loss summary")
        page.focus("details.loss summary")
        page.keyboard.press("Enter")
        run.whole(("wild", 2))
        until(page, "document.querySelector('[data-part=failures]').textContent.includes('diverged')")
        assert page.evaluate("document.querySelector('details.loss').open")
        assert page.evaluate("document.activeElement.tagName") == "SUMMARY"


def test_a_server_that_ends_is_said_and_what_came_last_stays(serve, ran, visit):
    with serve("fairtrial.db") as url:
        page = (visited := visit(f"{url}/study/{ran.hash}")).page
        drawn(page)
    asked = len(visited.requests)
    until(page, "document.querySelector('[data-connection]').textContent.includes('does not answer')")
    assert page.locator("[data-part=table] table").count() == 1
    page.wait_for_timeout(1500)
    assert (
        len(visited.requests) - asked < 30
    )  # charts that are left are asked for once, and the events every few seconds

"""A real headless browser for the tests of pages; `conftest.py` offers its fixtures to every suite.

Locally a test is skipped where there is no Chromium; if ``CI`` is set, it fails instead.
"""

import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest

ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
#: Addresses that ask nobody.
INSIDE = {"file", "data", "blob", "about"}


@dataclass
class Visit:
    """A page in a tab of its own, and what happened in it."""

    page: object  # Playwright's
    errors: list = field(default_factory=list)  # console errors and warnings, and exceptions
    requests: list = field(default_factory=list)  # every URL that was asked for

    def outside(self, origin=""):
        """The requests that left the page's file, or its server."""
        inside = [url for url in self.requests if urlsplit(url).scheme in INSIDE]
        return [url for url in self.requests if url not in inside and not (origin and url.startswith(origin))]

    def axe(self):
        """What axe-core finds that is serious or critical: rule, help and the first elements."""
        from axe_playwright_python.sync_playwright import Axe

        found = Axe().run(self.page).response["violations"]
        grave = [each for each in found if each["impact"] in {"serious", "critical"}]
        return [(each["id"], each["help"], [node["html"][:200] for node in each["nodes"][:3]]) for each in grave]


def find_chromium():
    """The browser's path, or None."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return next((found for name in names if (found := shutil.which(name))), None)


@pytest.fixture(scope="module")
def chromium():
    """Start Chromium for a module's tests.

    Not for a session's: Playwright keeps an event loop in this thread, and later tests may want their own.
    """
    path = find_chromium()
    if path is None:
        message = "the tests of pages need Chromium: apt-get install chromium"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium):
    """Open a file or URL in a fresh context; keywords go to it, such as ``color_scheme="dark"``."""
    contexts = []

    def open_page(where, **options):
        if isinstance(where, Path):
            options, where = {"offline": True} | options, where.resolve().as_uri()
        context = chromium.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(30_000)  # a loaded machine may take its time
        visited = Visit(page)

        def note(message):
            if message.type in {"error", "warning"}:
                visited.errors.append(message.text)

        page.on("console", note)
        page.on("pageerror", lambda error: visited.errors.append(str(error)))
        page.on("request", lambda request: visited.requests.append(request.url))
        page.goto(where)
        return visited

    yield open_page
    for context in contexts:
        context.close()

"""A headless Chromium that has no network."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@contextmanager
def chromium() -> Iterator[Any]:
    """The browser; the test is skipped where there is none."""
    api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install it")
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=list(QUIET))
        try:
            yield browser
        finally:
            browser.close()


class Visit:
    """A page as a user sees it, and what it asked for.

    Attributes:
        page: Playwright's.
        complaints: What the console and the scripts said.
        requests: Addresses beyond the file itself.
    """

    def __init__(self, browser: Any, path: Path, size: tuple[int, int], scheme: str) -> None:
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self._address = path.resolve().as_uri()
        viewport = {"width": size[0], "height": size[1]}
        self.page = browser.new_page(viewport=viewport, color_scheme=scheme)
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.route("**/*", self._answer)
        self.page.goto(self._address)

    def _answer(self, route: Any) -> None:
        if route.request.url == self._address:
            route.continue_()
        else:
            self.requests.append(route.request.url)
            route.abort()

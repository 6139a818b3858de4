"""Chromium, to look at pages."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from .process import find

if TYPE_CHECKING:
    from playwright.sync_api import Browser

__all__ = ["chromium"]


@contextmanager
def chromium() -> Iterator[Browser]:
    """Debian's Chromium, without a window, in the hands of playwright's blocking API.

    That API refuses to work inside a task. The sandbox is off: Chromium refuses it to root, some containers to
    everybody, and the pages are ours.
    """
    path = find("chromium", "chromium")
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path,
            args=["--no-sandbox", "--no-proxy-server", "--disable-dev-shm-usage"],
        )
        try:
            yield browser
        finally:
            browser.close()

"""A page under a browser's eyes: whatever it complains of, and whomever it asks, is noted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep
from typing import Any
from urllib.parse import urlsplit


class Look:
    """One open page. *complaints* and *origins* fill by themselves."""

    def __init__(self, page: Any, url: str) -> None:
        self.page = page
        self.url = url
        self.complaints: list[str] = []
        self.origins: set[str] = set()
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda request: self.origins.add(_origin(request.url)))

    def _console(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    def text(self, selector: str) -> str:
        found: str = self.page.inner_text(selector)
        return found

    def until(self, condition: Callable[[], Any], timeout: float = 10.0) -> Any:
        deadline = monotonic() + timeout
        while not (value := condition()):
            assert monotonic() < deadline, f"not within {timeout} s:\n{self.text('body')}"
            self.page.wait_for_timeout(50)  # the browser's events arrive while this waits
        return value

    def state(self) -> str:
        return self.text("#state-word")

    def bars(self, how: str) -> list[Any]:
        """The bars of connections that ended in this way; empty: that have not."""
        found: list[Any] = self.page.query_selector_all(f'#bars button[data-how="{how}"]')
        return found

    def focused(self) -> str:
        """What has the focus, in a few words."""
        found: str = self.page.evaluate(
            "() => { const e = document.activeElement;"
            " return e.id || e.dataset.number && `bar ${e.dataset.number}` || e.textContent; }"
        )
        return found


@contextmanager
def looking(browser: Any, url: str, **context: Any) -> Iterator[Look]:
    """Open *url*; in the end nothing may have gone wrong and nobody else been asked."""
    with browser.new_context(**context) as made:
        look = Look(made.new_page(), url)
        look.page.goto(url)
        look.until(lambda: look.text("#link-text") == "Live")
        look.until(
            lambda: look.page.query_selector("#bars button") or "No conn" in look.text("body")
        )
        yield look
        assert look.complaints == []
        assert look.origins <= {_origin(url), "data:"}


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}" if parts.netloc else f"{parts.scheme}:"


def picture(look: Look, path: Path) -> None:
    sleep(0.1)
    look.page.screenshot(path=str(path))

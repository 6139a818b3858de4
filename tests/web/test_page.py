"""What people see and reach, in a real browser."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from everpool import ConnectionPool, web
from everpool.lab import FIN, FaultProxy, PostgresServer, fatal
from tests.web.looking import Look, looking


@pytest.fixture
def server_of_page(pool: ConnectionPool[Any]) -> Iterator[web.Server]:
    with web.serve(pool) as server:
        yield server


@pytest.fixture
def look(browser: Any, server_of_page: web.Server) -> Iterator[Look]:
    with looking(browser, server_of_page.url) as look:
        yield look


def test_at_a_glance(look: Look) -> None:
    assert look.state() == "Up"
    assert look.text("#why") == "All is well: the database answers."
    assert "Connections\n2 of 5" in look.text("#figures")
    assert len(look.bars("")) == 2
    assert look.page.title() == "✓ orders: up"
    look.until(lambda: "max_size" in look.text("#settings"))
    assert re.search(r"max_size\s+5 given", look.text("#settings"))
    assert re.search(r"keepalive\s+45 s default", look.text("#settings"))
    assert "Nobody waits." in look.text("#queue-text")
    assert "No connection has been cut" in look.text("#path-text")


def test_a_cut_ends_its_lane_with_the_reason(look: Look, proxy: FaultProxy) -> None:
    proxy.cut(FIN, link=proxy.links()[0].number)
    (bar,) = look.until(lambda: look.bars("cut"))
    look.until(lambda: len(look.bars("")) == 2)  # replaced
    bar.hover()
    reason = "was cut while idle, and is replaced: FIN"
    assert reason in look.text("#tip")
    assert "the other side hung up" in look.text("#tip")
    look.page.mouse.move(1, 1)
    assert not look.page.is_visible("#tip")
    assert reason in bar.get_attribute("aria-label")
    look.until(lambda: reason in look.text("#happenings"))
    look.until(lambda: "FIN" in look.text("#path"))
    assert "1 connection cut since the pool was opened" in look.text("#path-text")
    look.page.click("#table-details summary")
    look.until(lambda: reason in look.text("#connections"))


def test_a_cut_from_before_is_shown_to_who_comes_later(
    browser: Any, pool: ConnectionPool[Any], proxy: FaultProxy, server_of_page: web.Server
) -> None:
    proxy.cut(FIN, link=proxy.links()[0].number)
    with looking(browser, server_of_page.url) as look:
        look.until(lambda: len(look.bars("cut")) == 1)


def test_an_outage_and_its_end(
    browser: Any, server: PostgresServer, proxy: FaultProxy, pool: ConnectionPool[Any]
) -> None:
    with web.serve(pool) as page, looking(browser, page.url) as look:
        proxy.refuse()
        proxy.cut(FIN)
        look.until(lambda: look.state() == "Down")
        look.until(lambda: "cannot be reached: unreachable" in look.text("#why").lower())
        assert "goes on trying" in look.text("#meaning")
        assert look.page.title() == "× orders: down"
        look.until(lambda: look.bars("failed"))
        look.until(lambda: "Error connecting: unreachable" in look.text("#happenings"))
        assert proxy.host not in look.text("body")
        proxy.accept()
        look.until(lambda: look.state() == "Up")
        look.until(lambda: "Connected again" in look.text("#happenings"))


def test_a_loan_is_seen_and_so_is_a_queue(
    browser: Any, pool: ConnectionPool[Any], server_of_page: web.Server
) -> None:
    with looking(browser, server_of_page.url) as look:
        held = [pool.getconn() for _ in range(5)]
        look.until(lambda: "Lent\n5" in look.text("#figures"))
        waiter = threading.Thread(target=lambda: pool.putconn(pool.getconn()))
        waiter.start()
        look.until(lambda: look.text("#waiting") == "1")
        look.until(lambda: look.state() == "Up" and "Saturated" in look.text("#why"))
        look.bars("")[0].hover()
        assert re.search(r"Now lent for \d", look.text("#tip"))
        for conn in held:
            pool.putconn(conn)
        waiter.join(5)
        look.until(lambda: look.text("#waiting") == "0")


def test_it_says_when_it_is_not_connected_and_comes_back(
    browser: Any, pool: ConnectionPool[Any]
) -> None:
    server = web.serve(pool)
    port = int(server.url.rsplit(":")[-1].strip("/"))
    with looking(browser, server.url) as look:
        server.close()
        # At once, not only when a silence has become too long.
        look.until(lambda: look.text("#link-text").startswith("Not connected since"), 3)
        assert look.page.title() == "? everpool: not connected"
        assert look.page.evaluate("document.body.dataset.link") == "lost"
        with web.serve(pool, port=port):
            look.until(lambda: look.text("#link-text") == "Live")
            look.until(lambda: look.page.title() == "✓ orders: up")
            assert len(look.bars("")) == 2
        refused = "net::ERR_"  # what the browser notes of the requests in between
        look.complaints[:] = [text for text in look.complaints if refused not in text]


# -- people and their machines ------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_light_and_dark_by_the_system_and_by_choice(
    browser: Any, server_of_page: web.Server, scheme: str
) -> None:
    def luminance() -> int:
        colour = look.page.evaluate("getComputedStyle(document.body).backgroundColor")
        return sum(map(int, re.findall(r"\d+", colour)[:3]))

    with looking(browser, server_of_page.url, color_scheme=scheme) as look:
        assert (luminance() > 600) == (scheme == "light")
        for chosen in ("light", "dark"):
            look.page.click("#theme")
            assert look.text("#theme") == f"Theme: {chosen}"
            assert (luminance() > 600) == (chosen == "light")
        look.page.reload()
        assert look.text("#theme") == "Theme: dark"
        look.page.click("#theme")
        assert (luminance() > 600) == (scheme == "light")


CONTRAST = """
() => {
  const parse = (c) => c.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((v) => (v /= 255) <= 0.03928 ? v / 12.92
    : ((v + 0.055) / 1.055) ** 2.4).reduce((s, v, i) => s + v * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (e) => { for (; e; e = e.parentElement) {
    const c = parse(getComputedStyle(e).backgroundColor);
    if (c.length < 4 || c[3] > 0) return c; } return [255, 255, 255]; };
  const bad = [];
  for (const e of document.querySelectorAll("body *")) {
    const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!own || !e.checkVisibility() || e.closest("noscript")) continue;
    const [a, b] = [light(parse(getComputedStyle(e).color)), light(ground(e))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) bad.push(`${ratio.toFixed(2)} ${e.id || e.className || e.tagName}: ${e.textContent}`);
  }
  return bad;
}
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_are_legible(
    browser: Any, proxy: FaultProxy, server_of_page: web.Server, scheme: str
) -> None:
    proxy.cut(FIN)
    with looking(browser, server_of_page.url, color_scheme=scheme) as look:
        look.page.check("#routine")
        look.until(lambda: "FIN" in look.text("#path"))
        assert look.page.evaluate(CONTRAST) == []


@pytest.mark.parametrize("width", [320, 400, 768, 1280])
def test_no_screen_has_to_be_scrolled_sideways(
    browser: Any, proxy: FaultProxy, server_of_page: web.Server, width: int
) -> None:
    proxy.cut(fatal("57P01"))
    with looking(browser, server_of_page.url, viewport={"width": width, "height": 700}) as look:
        look.page.click("#table-details summary")
        look.page.check("#routine")
        look.until(lambda: "FATAL 57P01" in look.text("#connections"))
        assert look.page.evaluate("document.documentElement.scrollWidth") <= width
        over = "[...document.querySelectorAll('.panel')].filter(p => p.scrollWidth > p.clientWidth)"
        assert look.page.evaluate(f"{over}.length") == 0


def test_everything_is_reached_by_keys(look: Look, proxy: FaultProxy) -> None:
    proxy.cut(FIN, link=proxy.links()[0].number)
    look.until(lambda: look.bars("cut") and len(look.bars("")) == 2)
    press, seen = look.page.keyboard.press, []
    for _ in range(12):
        press("Tab")
        if look.page.evaluate("document.activeElement === document.body"):
            break
        seen.append(look.focused())
        outline = look.page.evaluate(
            "getComputedStyle(document.activeElement).outlineStyle + document.activeElement.id"
        )
        assert not outline.startswith("none"), outline
    assert seen[0] == "Skip to the state"
    assert {"theme", "5 min", "The same as a table", "routine"} <= set(seen)
    assert len([name for name in seen if name.startswith("bar ")]) == 1  # one stop for all bars

    look.page.focus("#spans button[tabindex='0']")
    press("ArrowRight")
    assert look.page.get_attribute("#spans button:focus", "aria-checked") == "true"
    assert look.focused() == "15 min"

    press("Tab")  # to where the bars scroll, or to the bars
    while not look.focused().startswith("bar "):
        press("Tab")
    met = {look.focused()}
    for key in ("ArrowUp", "ArrowUp", "ArrowLeft", "End", "ArrowDown", "ArrowDown", "Home"):
        press(key)
        met.add(look.focused())
    assert len(met) == 3
    for _ in range(3):  # the cut one stands before its replacement
        if look.page.get_attribute(":focus", "data-how") == "cut":
            break
        press("ArrowUp")
        press("Home")
    assert "was cut while idle" in look.text("#tip")
    press("Escape")
    assert not look.page.is_visible("#tip")


def test_screen_readers_find_their_way(look: Look) -> None:
    count = look.page.evaluate
    assert count("document.querySelectorAll('main').length") == 1
    assert count("document.querySelectorAll('[aria-live]').length") == 1
    assert look.page.query_selector("#state [aria-live] #state-word")
    unnamed = "[...document.querySelectorAll('button, canvas[role], section')].filter"
    named = (
        "e.textContent.trim() || e.getAttribute('aria-label') || e.getAttribute('aria-labelledby')"
    )
    assert count(f"{unnamed}(e => !({named})).length") == 0


def test_with_reduced_motion_it_steps_once_a_second(
    browser: Any, server_of_page: web.Server
) -> None:
    frames = "() => { let n = 0; const ask = window.requestAnimationFrame;"
    frames += " window.requestAnimationFrame = (f) => { n += 1; return ask(f); };"
    frames += " return new Promise((done) => setTimeout(() => done(n), 2500)); }"
    with looking(browser, server_of_page.url, reduced_motion="reduce") as look:
        assert 1 <= look.page.evaluate(frames) <= 4
    with looking(browser, server_of_page.url) as look:
        assert look.page.evaluate(frames) >= 8


def test_several_pools(
    browser: Any, server: PostgresServer, proxy: FaultProxy, pool: ConnectionPool[Any]
) -> None:
    with ConnectionPool(server.dsn, min_size=1, name="<b>reports</b>") as other:
        other.wait(10)
        with web.serve(pool, other) as page, looking(browser, page.url) as look:
            tabs = look.page.query_selector_all("#pools button")
            assert [tab.inner_text().replace("\n", "") for tab in tabs] == [
                "✓orders: Up",
                "✓<b>reports</b>: Up",
            ]
            tabs[0].focus()
            look.page.keyboard.press("ArrowRight")
            look.until(lambda: look.page.title() == "✓ <b>reports</b>: up")
            look.until(lambda: len(look.bars("")) == 1)
            proxy.refuse()
            proxy.cut(FIN)
            # The one that is not looked at shows its state, too.
            look.until(lambda: tabs[0].inner_text().replace("\n", "") == "×orders: Down")


# -- what may be shown --------------------------------------------------------------------------

EVIL = "<script>alert('marker')</script><img src=x onerror=alert(1)>"


def test_texts_of_servers_are_absent_without_consent(look: Look, proxy: FaultProxy) -> None:
    proxy.cut(fatal("57P01", EVIL))
    look.until(lambda: "FATAL 57P01" in look.text("#happenings"))
    assert "marker" not in look.page.content()
    assert "are not shown here" in look.text("#foot")


def test_and_are_inert_with_it(browser: Any, pool: ConnectionPool[Any], proxy: FaultProxy) -> None:
    with web.serve(pool, details=True) as page, looking(browser, page.url) as look:
        look.page.on("dialog", lambda dialog: look.complaints.append("a dialog"))
        proxy.cut(fatal("57P01", EVIL))
        look.until(lambda: EVIL in look.text("#happenings"))
        look.page.click("#table-details summary")
        look.until(lambda: EVIL in look.text("#connections"))
        look.bars("cut")[0].hover()
        assert EVIL in look.text("#tip")
        assert look.page.query_selector("main img, main script") is None

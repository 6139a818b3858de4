"""``everpool check`` as a command: a probe for platforms that run one inside a container.

A probe runs every few seconds, so it has to start fast: nothing of the pools is loaded here.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from math import inf
from threading import Thread
from time import perf_counter
from typing import Any
from urllib.parse import SplitResult, urlsplit

import click

from .text import LONGEST_TEXT, escaped

__all__ = ["check"]

PASS, FAIL, UNREACHABLE = 0, 1, 2

# An answer is a few kilobytes; what comes after that is none of ours.
LONGEST_ANSWER = 1 << 20

STATUSES = ("pass", "warn", "fail")


@click.command()
@click.argument("url")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=1.0,
    show_default=True,
    help="Seconds for all of it: name, connection, answer.",
)
@click.option("--json", "as_data", is_flag=True, help="Print the result as JSON, nothing else.")
@click.pass_context
def check(ctx: click.Context, url: str, timeout: float, as_data: bool) -> None:
    """Ask a health endpoint, such as http://127.0.0.1:8081/ready, and tell by the status.

    The status is 0 if it passes or warns, 1 if it fails, and 2 if there is no answer, or none of
    a health endpoint. Proxies and redirects are not followed.
    """
    try:
        parts = urlsplit(url)
        if not all("!" <= char <= "~" for char in url):  # http.client's error would quote it
            raise ValueError
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0:
            raise ValueError
    except ValueError:
        raise click.BadParameter("http://HOST:PORT/PATH is needed", param_hint="URL") from None
    began = perf_counter()
    result = _within(timeout, lambda: _judge(*_ask(parts, timeout)))
    result = {**result, "took": round(perf_counter() - began, 4)}
    if as_data:
        click.echo(json.dumps(result))
    else:
        words = [result["status"], result.get("code"), result.get("output")]
        line = ": ".join(escaped(str(word)) for word in words if word)
        click.echo(line, err=result["status"] == "unreachable")
    ctx.exit({"pass": PASS, "warn": PASS, "fail": FAIL}.get(result["status"], UNREACHABLE))


def _within(seconds: float, call: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What a call returns, or that it took too long: nothing else bounds a name lookup, or an
    answer that comes byte by byte. What is late ends with the process."""
    results: list[dict[str, Any]] = []

    def run() -> None:
        try:
            results.append(call())
        except Exception as error:
            why = getattr(error, "strerror", None) or str(error) or type(error).__name__
            output = str(why).strip()[:LONGEST_TEXT]
            results.append({"status": "unreachable", "output": output})

    thread = Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    late = {"status": "unreachable", "output": f"no answer within {seconds:g} s"}
    return results[0] if results else late


def _ask(parts: SplitResult, timeout: float) -> tuple[int, bytes]:
    from http.client import HTTPConnection, HTTPSConnection

    kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=timeout)
    try:
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request("GET", target, headers={"Connection": "close"})
        response = connection.getresponse()
        return response.status, response.read(LONGEST_ANSWER)
    finally:
        connection.close()


def _judge(code: int, body: bytes) -> dict[str, Any]:
    """What an answer means. Any service that says 200 or 503 can be asked."""
    try:
        told = json.loads(body, parse_constant=str)  # infinity is no number of JSON's
    except (ValueError, RecursionError):
        told = None
    told = told if isinstance(told, dict) else {}
    if code == 503:
        status = "fail"
    elif 200 <= code < 300:
        status = told.get("status", "pass")
        status = status if status in STATUSES else "pass"
    else:
        return {"status": "unreachable", "http": code, "output": f"HTTP {code}: no health endpoint"}
    result: dict[str, Any] = {"status": status, "http": code}
    for name, kind in (("code", str), ("output", str), ("retry_after", (int, float))):
        value = told.get(name)
        if value in (inf, -inf) or isinstance(value, bool) or not isinstance(value, kind):
            continue
        result[name] = value[:LONGEST_TEXT] if isinstance(value, str) else value
    return result

"""Visitors of the example. Each second one line says what answers they got."""

import time
import urllib.error
import urllib.request
from collections import Counter, deque
from threading import Thread

VISITORS = 8
PAUSE = 0.2  # seconds between two visits of one visitor
PATIENCE = 5.0  # seconds; longer than the service lets a request take


def visit(url: str) -> None:
    """Visit for ever."""
    answers: deque[tuple[str, float]] = deque()

    def visitor() -> None:
        while True:
            answers.append(_ask(url))
            time.sleep(PAUSE)

    while _ask(url)[0] == "no answer":  # not open yet
        time.sleep(0.1)
    for _ in range(VISITORS):
        Thread(target=visitor, daemon=True).start()
    while True:
        time.sleep(1)
        last = [answers.popleft() for _ in range(len(answers))]
        counts = Counter(status for status, _ in last)
        line = ", ".join(f"{count} × {status}" for status, count in sorted(counts.items()))
        slowest = 1000 * max((took for _, took in last), default=0.0)
        print(f"{time.strftime('%H:%M:%S')}  {line or 'all wait'}, the slowest {slowest:.0f} ms")


def _ask(url: str) -> tuple[str, float]:
    began = time.monotonic()
    try:
        with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
            status = str(answer.status)
    except urllib.error.HTTPError as error:
        status = str(error.code)
    except OSError:
        status = "no answer"
    return status, time.monotonic() - began

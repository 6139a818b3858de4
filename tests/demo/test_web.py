"""``everpool demo --web`` as people call it: a page, until Ctrl-C."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import pytest

httpx = pytest.importorskip("httpx")
pytest.importorskip("uvicorn")

_MAIN = "from everpool.cli import main; main()"


def _start(*words: str, code: str = _MAIN) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", code, "demo", "--web", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )


def _facts(url: str) -> dict[str, Any]:
    (facts,) = httpx.get(f"{url}snapshot.json").json()["pools"]
    return dict(facts)


def _until(condition: Callable[[], Any], timeout: float) -> Any:
    deadline = monotonic() + timeout
    while not (value := condition()):
        assert monotonic() < deadline
        sleep(0.2)
    return value


def test_it_shows_cuts_again_and_again_until_it_is_interrupted() -> None:
    process = _start("--seconds", "7")
    try:
        assert process.stdout is not None
        url = None
        while not url:
            line = process.stdout.readline()
            assert line, process.communicate()[1]
            url = re.search(r"http://127\.0\.0\.1:\d+/", line)
        with httpx.stream("GET", f"{url[0]}stream") as stream:
            hello = next(line for line in stream.iter_lines() if line.startswith("data:"))
        assert "This is the demo" in hello
        _until(lambda: _facts(url[0])["cuts"], 20)
        seen = _facts(url[0])["requests"]
        _until(lambda: _facts(url[0])["requests"] > seen + 60, 30)  # another round
        below = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=15)
        assert (process.returncode, err) == (0, "Stopped.\n")
        assert not [pid for pid in below if Path(f"/proc/{pid}").exists()]
    finally:
        process.kill()


def test_what_makes_no_sense_together_is_refused() -> None:
    _, err = _start("--json").communicate(timeout=20)
    assert "--web goes with neither --json nor --svg" in err


@pytest.mark.parametrize("package", ["starlette", "uvicorn"])
def test_missing_extras_are_named(package: str) -> None:
    process = _start(code=f"import sys; sys.modules['{package}'] = None\n{_MAIN}")
    out, err = process.communicate(timeout=20)
    assert process.returncode == 2
    assert 'pip install "everpool[web]"' in err
    assert "Traceback" not in out + err

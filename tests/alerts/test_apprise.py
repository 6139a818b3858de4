"""Apprise, with its JSON service to a server on the loopback; and wrong URLs."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from everpool.alerts import Apprise
from tests.alerts.receiver import Receiver, alert, notice
from tests.alerts.test_sinks import SECRETS, failure, whole

pytest.importorskip("apprise")

# Apprise imports a module that leaves Python with 3.13.
pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")


def test_apprise_delivers(receiver: Receiver) -> None:
    sink = Apprise(f"json://127.0.0.1:{receiver.port}/s3cret")
    sink.send(notice(alert()))
    sink.send(notice(resolved=(alert(ended=20.0),)))
    first, second = receiver.bodies
    assert first["title"] == "[critical] billing: database unreachable, pool main"
    assert "What to do: Look." in first["message"]
    assert first["type"] == "failure"
    assert second["type"] == "success"


WRONG_APPRISE = [
    ("s3cret", "no scheme"),
    ("", "no scheme"),
    ("slack://s3cret t0ken", "spaces"),
    ("nonsense://s3cret", "nonsense:// is no service"),
    ("slack://s3cret", "not complete, or not as slack:// wants it"),
    ("dingtalk://", "not complete, or not as dingtalk:// wants it"),
    ("json://kim:pa55@:99999/", "not complete, or not as json:// wants it"),
]


@pytest.mark.parametrize(("url", "reason"), WRONG_APPRISE)
def test_a_wrong_apprise_url(url: str, reason: str, caplog: Any) -> None:
    caplog.set_level(1)
    with pytest.raises(ValueError) as caught:
        Apprise(url)
    assert reason in str(caught.value)
    for secret in SECRETS:
        assert secret not in whole(caught.value) + caplog.text


def test_apprise_tells_no_url_to_anybody(caplog: Any, receiver: Receiver) -> None:
    caplog.set_level(1)
    receiver.statuses = [500]
    sink = Apprise(f"json://kim:pa55@127.0.0.1:{receiver.port}/s3cret")
    text = failure(sink)
    sink.send(notice(alert()))
    assert text == "json:// was not delivered (apprise does not tell why)"
    assert repr(sink) == "Apprise(json://)"
    for secret in SECRETS:
        assert secret not in caplog.text
    logging.getLogger("apprise").warning("others are heard")
    assert "others are heard" in caplog.text


def test_apprise_sends_in_the_thread_that_asks(receiver: Receiver) -> None:
    """A thread of its pool would hold up the end of the interpreter."""
    before = set(threading.enumerate())
    Apprise(f"json://127.0.0.1:{receiver.port}").send(notice(alert()))
    started = {t.name for t in set(threading.enumerate()) - before}
    assert not [name for name in started if name.startswith("ThreadPoolExecutor")]


FORMS = [
    "dingtalk://SECaaaaaaaaaaaaaaaa@abcdef0123456789",
    "feishu://abcdef01-2345-6789-abcd-ef0123456789",
    "lark://abcdef01-2345-6789-abcd-ef0123456789",
    "wecombot://abcdef01-2345-6789-abcd-ef0123456789",
    "dingtalk://abcdef0123456789",
    "wechat://corp0123456789:secret0123456789@1000002/@kim",
    "slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ/#ops",
    "mailtos://user:secret@smtp.example.com:587/?from=pool@example.com&to=ops@example.com",
    "tgram://123456789:AAabcdefghijklmnopqrstuvwxyz012345/-1001234",
    "workflows://prod-1.westeurope.logic.azure.com:443/643e69f83c8944/abcdefghijklmnop",
]


@pytest.mark.parametrize("url", FORMS)
def test_the_documented_forms_are_known_to_apprise(url: str) -> None:
    scheme = url.partition(":")[0]
    assert repr(Apprise(url)) == f"Apprise({scheme}://)"
    page = Path(__file__).parents[2] / "docs" / "alerts.md"
    assert f"`{scheme}://" in page.read_text()


def test_without_apprise_the_error_names_the_extra() -> None:
    code = (
        "import sys; sys.modules['apprise'] = None\n"
        "from everpool.alerts import Apprise\n"
        "try: Apprise('slack://x')\n"
        "except ModuleNotFoundError as ex: print(ex)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ, check=True
    )
    assert 'pip install "everpool[notify]"' in done.stdout

"""Webhook, Alertmanager and Apprise against servers on the loopback; and wrong URLs."""

from __future__ import annotations

import ssl
import subprocess
import threading
import traceback
from base64 import b64encode
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from everpool.alerts import Alertmanager, Apprise, SinkError, Webhook
from tests.alerts.receiver import Receiver, alert, notice, wait_for
from tests.support.net import refusing_port, silent_port
from tests.support.programs import alertmanager

SECRETS = ("s3cret", "t0ken", "kim", "pa55")

WRONG = [
    ("", "the URL is empty"),
    ("hooks.example.com/s3cret", "no scheme"),
    ("//hooks.example.com/s3cret", "no scheme"),
    ("://hooks.example.com/s3cret", "no scheme"),
    ("ftp://hooks.example.com/s3cret", "scheme ftp:// is not supported"),
    ("file:///etc/s3cret", "scheme file:// is not supported"),
    ("kim s3cret://x", "spaces"),
    ("s3cret;t0ken://x", "scheme is not supported"),
    ("https://", "no host"),
    ("https:///s3cret", "no host"),
    ("https://:443/s3cret", "no host"),
    ("https://hooks.example.com/s3 cret", "spaces or control characters"),
    ("https://hooks.example.com/s3cret\n", "spaces or control characters"),
    ("https://hooks.example.com/s3cret\x07", "spaces or control characters"),
    ("https://hooks.exämple.com/s3cret", "outside ASCII"),
    ("https://kim:pa55/s3cret@hooks.example.com/", "port is not a number"),
    ("https://hooks.example.com:0/s3cret", "port is not a number"),
    ("https://hooks.example.com:99999/s3cret", "port is not a number"),
    ("https://hooks.example.com/s3cret#t0ken", "contains a #"),
    ("https://[::1/s3cret", "not well formed"),
    ("https://hooks<s3cret>.example.com/", "no host name has"),
]


def whole(ex: BaseException) -> str:
    return "".join(traceback.format_exception(ex)) + repr(ex)


@pytest.mark.parametrize("kind", [Webhook, Alertmanager])
@pytest.mark.parametrize(("url", "reason"), WRONG)
def test_a_wrong_url_is_told_at_once_and_not_quoted(kind: Any, url: str, reason: str) -> None:
    with pytest.raises(ValueError) as caught:
        kind(url)
    assert reason in str(caught.value)
    assert str(caught.value).startswith(kind.__name__)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    for secret in (*SECRETS, "hooks"):
        assert secret not in str(caught.value)


@pytest.mark.parametrize("url", [None, 1, b"https://x"])
@pytest.mark.parametrize("kind", [Webhook, Alertmanager, Apprise])
def test_what_is_no_text_is_no_url(kind: Any, url: Any) -> None:
    if kind is Apprise:
        pytest.importorskip("apprise")
    with pytest.raises(TypeError, match="the URL must be a text"):
        kind(url)


@pytest.mark.parametrize(
    "headers", [{"a b": "s3cret"}, {"X-Key": "s3cret\r\nX: y"}, {"X-Key": "s3crét"}, {"": "s3cret"}]
)
def test_a_wrong_header_is_told_without_its_value(headers: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="header") as caught:
        Webhook("https://example.com", headers=headers)
    assert "s3cr" not in str(caught.value)


def test_sinks_are_shown_as_scheme_and_host() -> None:
    url = "https://kim:pa55@hooks.example.com:8443/s3cret?key=t0ken"
    webhook = Webhook(url, headers={"X-Key": "s3cret"})
    assert repr(webhook) == str(webhook) == "Webhook(https://hooks.example.com)"
    assert repr(Webhook("http://[::1]:80/x")) == "Webhook(http://[::1])"
    assert repr(Alertmanager("http://kim:pa55@am:9093/s3cret")) == "Alertmanager(http://am)"


def test_a_webhook_gets_the_notice_as_json(receiver: Receiver) -> None:
    sent = notice(alert(summary="наизусть ✓"))
    Webhook(receiver.url, headers={"Authorization": "Bearer t0ken"}).send(sent)
    assert receiver.bodies == [sent.json()]
    assert receiver.headers[0]["Authorization"] == "Bearer t0ken"
    assert receiver.headers[0]["Content-Type"] == "application/json"


def test_user_and_password_become_basic_authentication(receiver: Receiver) -> None:
    url = receiver.url.replace("://", "://kim:pa%2F55@")
    Webhook(url).send(notice(alert()))
    assert receiver.headers[0]["Authorization"] == f"Basic {b64encode(b'kim:pa/55').decode()}"


def failure(sink: Any) -> str:
    with pytest.raises(SinkError) as caught:
        sink.send(notice(alert()))
    for secret in SECRETS:
        assert secret not in whole(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("status", [400, 401, 404, 429, 500, 503])
def test_an_error_is_told_by_its_number(receiver: Receiver, status: int) -> None:
    receiver.statuses = [status]
    assert failure(Webhook(receiver.url)) == f"http://127.0.0.1 answered {status}"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_not_followed(receiver: Receiver, status: int) -> None:
    """urllib would turn the POST into a GET, and take its answer for success."""
    receiver.statuses = [status]
    assert "a redirect, which is not followed" in failure(Webhook(receiver.url))
    assert receiver.methods == ["POST"]


def test_nobody_there() -> None:
    with refusing_port() as port:
        assert failure(Webhook(f"http://127.0.0.1:{port}/s3cret")) == (
            "http://127.0.0.1: connection refused"
        )


def test_a_name_that_does_not_exist() -> None:
    url = "https://kim:pa55@nowhere.invalid/s3cret"
    assert "name cannot be resolved" in failure(Webhook(url))


def test_silence_has_a_limit(monkeypatch: Any) -> None:
    monkeypatch.setattr("everpool.alerts.http.TIMEOUT", 0.3)
    with silent_port() as port:
        text = failure(Webhook(f"http://127.0.0.1:{port}/s3cret"))
    assert text == "http://127.0.0.1: no answer within 0.3 s"


def test_a_certificate_that_nobody_vouches_for(tmp_path: Path) -> None:
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    command = f"openssl req -x509 -newkey rsa:2048 -nodes -keyout {key} -out {cert} -days 1"
    subprocess.run([*command.split(), "-subj", "/CN=localhost"], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    server = HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.handle_request)
    thread.start()
    try:
        text = failure(Webhook(f"https://127.0.0.1:{server.server_address[1]}/s3cret"))
    finally:
        thread.join()
        server.server_close()
    assert text.startswith("https://127.0.0.1: its certificate is refused")


# -- Alertmanager ------------------------------------------------------------------------------

CONFIG = "route: {receiver: nobody}\nreceivers: [{name: nobody}]\n"


def test_alertmanager_is_told_and_told_when_it_is_over() -> None:
    now = datetime.now(UTC).timestamp()
    with alertmanager(CONFIG) as program:
        sink = Alertmanager(program.url)
        fires = alert(started=100.0)
        sink.send(notice(fires, alert("leak", severity="warning"), at=130.0, epoch=now - 130.0))
        seen = {a["labels"]["alertname"]: a for a in program.json("/api/v2/alerts")}
        assert set(seen) == {"EverpoolUnreachable", "EverpoolLeak"}
        entry = seen["EverpoolUnreachable"]
        assert entry["labels"] == {
            "alertname": "EverpoolUnreachable",
            "instance": "billing",
            "pool": "main",
            "severity": "critical",
        }
        assert entry["annotations"]["description"] == "No connection can be opened. Look."
        ends = datetime.fromisoformat(entry["endsAt"]).timestamp()
        assert ends == pytest.approx(now + Alertmanager.lasts, abs=1.0)

        # Told again, it lasts longer; told as resolved, it is gone.
        sink.send(notice(fires, at=140.0, epoch=now - 130.0))
        again = [a for a in program.json("/api/v2/alerts") if a["labels"] == entry["labels"]]
        later = datetime.fromisoformat(again[0]["endsAt"]).timestamp()
        assert later - ends == pytest.approx(10.0, abs=0.01)

        gone = alert(started=100.0, ended=130.0)
        sink.send(notice(resolved=(gone,), at=131.0, epoch=now - 131.0))
        wait_for(lambda: _names(program) == {"EverpoolLeak"})


def _names(program: Any) -> set[str]:
    return {a["labels"]["alertname"] for a in program.json("/api/v2/alerts")}


def test_alertmanager_is_not_told_that_what_fires_again_is_over(receiver: Receiver) -> None:
    gone, fires = alert(started=1.0, ended=5.0), alert(started=10.0)
    Alertmanager(receiver.url).send(notice(fires, resolved=(gone,)))
    assert [entry["startsAt"] for entry in receiver.bodies[0]] == [notice().time(10.0)]


@pytest.mark.parametrize("path", ["", "/", "/api/v2/alerts", "/api/v2/alerts/"])
def test_alertmanagers_path_may_be_given(path: str, receiver: Receiver) -> None:
    sink = Alertmanager(f"http://127.0.0.1:{receiver.port}{path}")
    sink.send(notice(alert()))
    assert len(receiver.bodies[0]) == 1
    assert receiver.bodies[0][0]["labels"]["alertname"] == "EverpoolUnreachable"


def test_labels_do_not_change_while_an_alert_lasts(receiver: Receiver) -> None:
    sink = Alertmanager(receiver.url)
    sink.send(notice(alert(summary="3 cuts")))
    sink.send(notice(alert(summary="9 cuts", detail="more", new=False)))
    first, second = (body[0]["labels"] for body in receiver.bodies)
    assert first == second

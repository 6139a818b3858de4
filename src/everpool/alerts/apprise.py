"""Through the apprise package: DingTalk, Feishu, WeCom, Slack, e-mail and a hundred others."""

from __future__ import annotations

import logging
import re
from threading import local
from typing import Any

from .http import SinkError
from .notice import Notice

_scheme = re.compile(r"([A-Za-z][A-Za-z0-9]*)://").match

# These tell URLs, or parts of them, in their logs.
_TALKATIVE = ("apprise", "urllib3.connectionpool", "urllib3.util.retry")


class Apprise:
    """Sends each notice as a title and a plain text to one of Apprise's services.

    In Apprise's URLs tokens stand where the host does, so they are shown as scheme only.

    :param url: such as ``"slack://…"``; docs/alerts.md lists forms.
    :raises ModuleNotFoundError: the apprise package is missing.
    :raises ValueError: the URL is wrong.
    """

    refresh: float | None = None

    def __init__(self, url: str) -> None:
        try:
            import apprise
        except ModuleNotFoundError as ex:
            if ex.name != "apprise":
                raise
            raise ModuleNotFoundError(
                'Apprise needs the apprise package: pip install "everpool[notify]"', name="apprise"
            ) from None
        scheme = _check(url)
        self._shown = f"{scheme}://"
        asset = apprise.AppriseAsset(app_id="everpool", app_desc="everpool")
        with _Hush():
            # Used by itself: `apprise.Apprise` sends from a pool of threads, whose records would
            # not be hushed, and which holds up the end of the interpreter.
            service = apprise.Apprise.instantiate(url, asset=asset)
        if service is None:
            raise ValueError(_refused(scheme, apprise))
        self._service = service
        self._text = apprise.NotifyFormat.TEXT
        self._kinds = {
            "critical": apprise.NotifyType.FAILURE,
            "warning": apprise.NotifyType.WARNING,
            "resolved": apprise.NotifyType.SUCCESS,
        }

    def __repr__(self) -> str:
        return f"Apprise({self._shown})"

    def send(self, notice: Notice) -> None:
        with _Hush():
            sent = self._service.notify(
                title=notice.title(),
                body=notice.text(),
                notify_type=self._kinds.get(notice.severity, self._kinds["warning"]),
                body_format=self._text,
            )
        if not sent:
            raise SinkError(f"{self._shown} was not delivered (apprise does not tell why)")


def _check(url: str) -> str:
    if not isinstance(url, str):
        raise TypeError(f"Apprise: the URL must be a text, not {type(url).__name__}")
    if any(char.isspace() or not char.isprintable() for char in url):
        raise ValueError("Apprise: the URL contains spaces or control characters")
    found = _scheme(url)
    if not found:
        raise ValueError("Apprise: the URL has no scheme, such as slack:// or mailtos://")
    return found[1].lower()


def _refused(scheme: str, apprise: Any) -> str:
    known = {
        name
        for service in apprise.Apprise().details()["schemas"]
        for name in (*(service["protocols"] or ()), *(service["secure_protocols"] or ()))
    }
    if scheme not in known:
        return f"Apprise: {scheme}:// is no service that the installed apprise knows"
    return f"Apprise: the URL is not complete, or not as {scheme}:// wants it"


class _Hush:
    """While entered, this thread's log records of apprise and urllib3 are dropped."""

    def __enter__(self) -> None:
        for name in _TALKATIVE:
            logging.getLogger(name).addFilter(_quiet)  # only once, however often
        _thread.hushed = True

    def __exit__(self, *args: object) -> None:
        _thread.hushed = False


_thread = local()


def _quiet(record: logging.LogRecord) -> bool:
    return not getattr(_thread, "hushed", False)

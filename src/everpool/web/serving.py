"""The page for programs that serve nothing else: uvicorn, in a thread."""

from __future__ import annotations

import ipaddress
import socket
from threading import Thread
from time import monotonic, sleep
from types import TracebackType
from typing import TYPE_CHECKING, Self

from starlette.middleware.trustedhost import TrustedHostMiddleware

from .application import Consent, app
from .feed import AnyPool

if TYPE_CHECKING:
    import uvicorn

# Seconds until the server must have begun, on a machine with much else to do; and until it must
# have ended: open streams notice within a fifth of a second.
_PATIENCE = 10.0
_GRACE = 2


class Server:
    """A page being served; a context manager.

    :ivar url: where it is.
    """

    def __init__(self, server: uvicorn.Server, sock: socket.socket) -> None:
        host, port = sock.getsockname()[:2]
        self.url = f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"
        self._server = server
        self._sock = sock
        self._thread = Thread(target=server.run, args=([sock],), name="everpool-web", daemon=True)

    def close(self) -> None:
        """End it, and all open streams. May be called twice."""
        self._server.should_exit = True
        if self._thread.ident is not None:
            self._thread.join(_PATIENCE)
        self._sock.close()

    def _start(self) -> None:
        self._thread.start()
        deadline = monotonic() + _PATIENCE
        while not self._server.started:
            if not self._thread.is_alive() or monotonic() > deadline:
                self.close()
                raise RuntimeError("the page's server did not start")
            sleep(0.01)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def serve(
    *pools: AnyPool,
    host: str = "127.0.0.1",
    port: int = 0,
    details: Consent = False,
    note: str = "",
) -> Server:
    """Serve the page of `app` from a thread of this process, until `Server.close`.

    :param host: where to listen. On a loopback address, requests under other names are
        refused: a web site could lead a name of its own here. On others everybody who
        reaches it sees the page.
    :param port: 0 chooses a free one.
    :returns: the server; ``url`` says where it is.
    :raises OSError: the address cannot be used.
    :raises ModuleNotFoundError: uvicorn is not installed.
    """
    try:
        import uvicorn  # who mounts the page may have another server
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            'serving the live page needs uvicorn: pip install "everpool[web]"', name="uvicorn"
        ) from error
    application = app(*pools, details=details, note=note)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.create_server((host, port), family=family)
    address = sock.getsockname()[0]
    if ipaddress.ip_address(address).is_loopback:
        names = [address, f"[{address}]", "localhost"]
        application.add_middleware(TrustedHostMiddleware, allowed_hosts=names, www_redirect=False)
    config = uvicorn.Config(
        application,
        log_level="error",
        access_log=False,
        lifespan="off",
        timeout_graceful_shutdown=_GRACE,
    )
    server = uvicorn.Server(config)
    application.state.page.is_ending = lambda: server.should_exit
    page = Server(server, sock)
    page._start()
    return page

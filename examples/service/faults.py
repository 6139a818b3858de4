"""Break the example: ``python faults.py cut`` in another terminal, or POST to its port."""

import argparse
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from everpool.lab import SILENCE, FaultProxy, PostgresServer

FAULTS: dict[str, Callable[[PostgresServer, FaultProxy], object]] = {
    # All connections, as by a balancer that restarts. The answer is how many there were.
    "cut": lambda server, proxy: proxy.cut(),
    # The same without a sign, as by a router that forgets them.
    "silence": lambda server, proxy: proxy.cut(SILENCE),
    # The database goes, and comes back.
    "away": lambda server, proxy: server.pid and server.down(),
    "back": lambda server, proxy: server.pid or server.up(),
}


@contextmanager
def serve_faults(server: PostgresServer, proxy: FaultProxy, port: int) -> Iterator[None]:
    """Take orders on the loopback."""

    class Orders(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            fault = FAULTS.get(self.path.removeprefix("/"))
            answer = fault(server, proxy) if fault else ", ".join(FAULTS)
            self.send_response(200 if fault else 404)
            self.end_headers()
            self.wfile.write(f"{answer or 'done'}\n".encode())

        def log_message(self, *args: object) -> None:
            pass

    orders = ThreadingHTTPServer(("127.0.0.1", port), Orders)
    threading.Thread(target=orders.serve_forever, daemon=True).start()
    with orders:
        yield
        orders.shutdown()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("fault", choices=FAULTS)
    parser.add_argument("--port", type=int, default=8001)
    args = parser.parse_args()
    order = urllib.request.Request(f"http://127.0.0.1:{args.port}/{args.fault}", method="POST")
    print(args.fault, urllib.request.urlopen(order).read().decode().strip())

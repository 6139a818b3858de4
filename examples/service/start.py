"""Start the example: a database, a proxy that breaks connections, the service, and visitors."""

import argparse
import os
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import psycopg
from faults import serve_faults
from visitors import visit

from everpool.lab import FaultProxy, PostgresServer

URLS = """
  the service   http://127.0.0.1:{port}/
  its health    http://127.0.0.1:{port}/internal/health
  its metrics   http://127.0.0.1:{port}/internal/metrics

In another terminal: make cut, make silence, make away, make back. Ctrl-C ends it all.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8000, help="of the service")
    parser.add_argument(
        "--faults-port", type=int, default=8001, help="takes orders to break things"
    )
    parser.add_argument("--quiet", action="store_true", help="no visitors")
    args = parser.parse_args()

    with ExitStack() as stack:
        server = stack.enter_context(PostgresServer())
        with psycopg.connect(server.dsn) as conn:
            conn.execute("create table visits (at timestamptz default now())")
        proxy = stack.enter_context(FaultProxy(server.host, server.port))
        stack.enter_context(serve_faults(server, proxy, args.faults_port))
        command = f"-m uvicorn app:app --port {args.port} --log-level warning"
        service = subprocess.Popen(
            [sys.executable, *command.split()],
            cwd=Path(__file__).parent,
            env={**os.environ, "DATABASE_URL": proxy.via(server.dsn)},
        )
        stack.callback(service.wait)
        stack.callback(service.terminate)
        print(URLS.format(port=args.port), flush=True)
        if not args.quiet:
            visit(f"http://127.0.0.1:{args.port}/")
        service.wait()


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C does
    signal.signal(signal.SIGINT, signal.default_int_handler)  # also in a script's background
    try:
        main()
    except KeyboardInterrupt:
        pass

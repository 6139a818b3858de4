"""Real programs for tests: started on free ports of the loopback, ended with the test.

    with prometheus(config) as server:
        assert server.json("/api/v1/targets")

Each is a context manager; in a fixture it stands around the ``yield``. What it takes to run them is Debian packages,
which `.ci/run` installs. Where one is missing the test is skipped, and the reason names the package.
"""

from .chromium import chromium
from .etcd import etcd
from .haproxy import HAProxy, haproxy
from .pgbouncer import PgBouncer, pgbouncer
from .process import Program, ProgramError
from .prometheus import alertmanager, amtool, prometheus, promtool

__all__ = [
    "HAProxy",
    "PgBouncer",
    "Program",
    "ProgramError",
    "alertmanager",
    "amtool",
    "chromium",
    "etcd",
    "haproxy",
    "pgbouncer",
    "prometheus",
    "promtool",
]

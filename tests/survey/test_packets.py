"""A path that counts packets, and forgets: the kernel's own connection tracking."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from everpool.lab import PostgresServer
from everpool.lab.netns import PrivateNetwork, Unavailable
from everpool.survey.findings import find
from everpool.survey.observation import Limits
from everpool.survey.run import Result, survey

TRACKING = Path("/proc/sys/net/netfilter")

# What was forgotten is not taken up again: a packet of a connection that is not tracked is dropped,
# unless it opens one.
RULES = """
table inet tracking {{
    chain arriving {{
        type filter hook input priority 0; policy accept;
        tcp dport {port} ct state invalid drop
        tcp sport {port} ct state invalid drop
        tcp dport {port} ct state new tcp flags & (syn|ack) != syn drop
        tcp sport {port} ct state new drop
    }}
}}
"""

# Keepalives come each second, and have to come twice within the cut: one may be late.
FORGETS = 3  # seconds


@pytest.fixture
def tracked() -> Iterator[PostgresServer]:
    """A server behind a path that forgets connections at rest."""
    try:
        with PrivateNetwork(), PostgresServer() as server:
            try:
                # The directory of the namespace that this thread is in.
                (TRACKING / "nf_conntrack_tcp_loose").write_text("0")
                (TRACKING / "nf_conntrack_tcp_timeout_established").write_text(str(FORGETS))
            except OSError as error:
                pytest.skip(f"this kernel has no connection tracking in namespaces: {error}")
            done = subprocess.run(
                ["nft", "-f", "-"],
                input=RULES.format(port=server.port),
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode:
                pytest.skip(f"this kernel has no connection tracking: {done.stderr.strip()}")
            yield server
    except Unavailable as reason:
        pytest.skip(str(reason))


def test_keepalives_alone_keep_what_counts_packets(tracked: PostgresServer) -> None:
    limits = Limits(connections=12, max_idle=5.0, budget=30.0)

    async def run() -> Result:
        return await survey(tracked.dsn, limits, ping_limit=1.0)

    result = asyncio.run(run())
    found = find(result.observations, limits)
    assert found.idle is not None
    # The kernel's clock for this runs in steps, and late.
    assert found.idle.value == pytest.approx(FORGETS, rel=0.1)
    assert found.idle.kill == "silence"
    assert found.activity == "packets"
    assert found.age is None
    assert found.silent > 0

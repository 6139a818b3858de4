"""Write docs/environments.md from the data in src/everpool/environments.

python tools/environments_page.py            write it
python tools/environments_page.py --check    fail if it is not what this would write
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from everpool.core import policy, rules
from everpool.environments import Entry, entries
from everpool.environments.entry import MEASURED
from everpool.environments.words import described, row, settings, source, trust

PAGE = Path(__file__).parents[1] / "docs" / "environments.md"

ABOVE = f"""\
<!-- Written by tools/environments_page.py: change src/everpool/environments and run `make generate`. -->

# Environments

{{count}} things that end connections on the way to a database, or spare them: clouds, proxies, balancers, poolers,
firewalls, and PostgreSQL itself. Each with its sources, their date, and how sure they are.

Name what is on your path, and the settings follow:

```python
from everpool import ConnectionPool

pool = ConnectionPool("postgresql://app@db/app", environment="aws-nlb")
```

Several things on the path are a list. Name all that you know of: a thing that is left out counts as harmless, and settings
may be laxer than the defaults. Where yours is set otherwise than by default, give your own figure:

```python
from dataclasses import replace
from everpool import environments

ours = replace(environments.find("haproxy").facts, idle_cut=1800, name="our haproxy")
pool = ConnectionPool("postgresql://app@db/app", environment=["aws-rds-proxy", ours])
```

`everpool environments` prints the table below, and `everpool environments NAME` all of one, with the settings that
follow and why. Names are found without regard to case, spaces and hyphens, and by other names: `"RDS Proxy"`, `"阿里云 RDS
数据库代理"`.

## What to make of it

Facts age. Vendors change their defaults, and your installation may have others. The date says when a source was
written, or else when it was looked up. `everpool survey DSN` measures a path: trust that more than this page.

| confidence | the figures are |
|---|---|
| documented | in the documents of the vendor or project |
| source | in its source, read by us |
| measured | from a run of our own |
| reported | from users or third parties |
| unknown | looked for and not found |

## How settings follow

The most demanding thing on the path counts. What you set yourself wins; if it does not suit the path, you are told.

| what is known | what follows |
|---|---|
| an idle cut | `keepalive` is {rules.KEEPALIVE_SHARE:g} × the shortest, at most {rules.KEEPALIVE_MOST:g} s; where packets count, `keepalives_idle` \
is {rules.TCP_KEEPALIVE_SHARE:g} × it where that is below {policy.KEEPALIVES_IDLE:g} s |
| an idle cut is not known | `keepalive` is at most {policy.KEEPALIVE:g} s |
| a maximum age | `max_lifetime` is {rules.LIFETIME_SHARE:g} × the shortest, where that is below \
{policy.MAX_LIFETIME:g} s |
| all connections end by `fin`, `rst` or `fatal`, none is lost at a failover | `verify_after` is \
{rules.VERIFY_AFTER_HEARD:g} s, because the pool hears each end |
| otherwise | `verify_after` stays at {policy.VERIFY_AFTER:g} s, because an end may be silent, and only a ping finds it |
| the database sleeps when nobody uses it | no keepalive, `min_size` 0, `max_idle` {rules.SLEEPER_IDLE_SHARE:g} × the \
time it takes, `connect_timeout` {rules.SLEEPER_CONNECT_TIMEOUT:g} s |
| connections are lost at a failover | `keepalives_idle` {rules.LOST_KEEPALIVES_IDLE:g} s, `keepalives_interval` \
{rules.LOST_KEEPALIVES_INTERVAL:g} s, `tcp_user_timeout` {rules.LOST_USER_TIMEOUT:g} s |

## All of them

- **idle cut**: a connection without activity for so long is ended, by default. **max age**: it is ended after so long,
  however busy.
- **ends by**: `fin` closed in good order, `rst` reset, `fatal` told why and closed: these are heard at once. `rst-next`
  nothing is said and the next packet is answered by a reset, `silence` packets vanish: only the next use finds out.
- **counts**: with `packets` TCP keepalives are activity, with `bytes` only data are, such as a ping.
- **failover**: when the server changes, connections are `kept`, `cut` or `lost` (they stop answering, in silence).
- **?**: not known. **–**: nothing to know.
"""


def page() -> str:
    lines = [ABOVE.format(count=len(entries())), *_table()]
    for group, members in groupby(entries().values(), key=lambda entry: entry.group):
        lines += ["", f"## {group}"]
        for entry in members:
            lines += ["", *_section(entry)]
    return "\n".join(lines) + "\n"


def _table() -> Iterator[str]:
    yield f"| name | what it is | {' | '.join(row(next(iter(entries().values()))))} |"
    yield "|---|---|---|---|---|---|---|---|"
    for entry in entries().values():
        cells = (f"[{entry.name}](#{entry.name})", entry.title, *row(entry).values())
        yield f"| {' | '.join(cells)} |"


def _section(entry: Entry) -> Iterator[str]:
    yield f"### {entry.name}"
    yield ""
    yield f"**{entry.title}.** {entry.text}"
    yield ""
    for label, text in described(entry):
        yield f"- {label}: {text}"
    if entry.hosts:
        yield f"- Host names: {', '.join(f'`{host}`' for host in entry.hosts)}"
    if entry.aliases:
        yield f"- Also called: {', '.join(entry.aliases)}"
    _, lines = settings(entry)
    follow = [f"`{line.partition(': ')[0]}`" for line in lines]
    yield f"- Settings: {', '.join(follow)}"
    links = [source(each) if each == MEASURED else f"<{each}>" for each in entry.sources]
    yield f"- Confidence: {trust(entry)}"
    yield f"- Sources: {', '.join(links)}"


def main() -> int:
    text = page()
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(text, "utf-8")
    elif not PAGE.exists() or PAGE.read_text("utf-8") != text:
        print(f"{PAGE.name} is not what tools/environments_page.py writes: run it")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

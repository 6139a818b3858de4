"""What a host's name gives away, in a sentence for the log."""

from __future__ import annotations

from ..core.policy import SETTINGS, build, shown
from .catalogue import hinted_by


def hint_for(host: str) -> str | None:
    """What would follow if the environment that a host name gives away were told to the pool."""
    entry = hinted_by(host)
    if entry is None:
        return None
    policy = build(environment=(entry.facts,))
    found = [
        f"{name} {shown(name, getattr(policy, name))} ({policy.reason(name).why})"
        for name in SETTINGS
        if policy.reason(name).origin == "environment"
    ]
    what = "; ".join(found) if found else "the settings that it has, with reasons"
    return (
        f"the host's name looks like {entry.title}. If that is so, environment={entry.name!r}"
        f" would give the pool {what}"
    )

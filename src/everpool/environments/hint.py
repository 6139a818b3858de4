"""What a host's name gives away, in a sentence for the log."""

from __future__ import annotations

from ..core.policy import SETTINGS, Policy, build, shown
from .catalogue import hinted_by


def hint_for(host: str, policy: Policy) -> str | None:
    """What would follow if the environment that a host's name gives away were told to a pool.

    :param policy: the pool's settings as they are. None is returned if nothing would change.
    """
    entry = hinted_by(host)
    if entry is None:
        return None
    given = {
        name: getattr(policy, name)
        for name in SETTINGS
        if policy.reason(name).origin in ("given", "changed")
    }
    told = build(environment=(entry.facts,), **{"pooled": policy.pooled, **given})
    changes = [
        f"{name} {shown(name, getattr(told, name))} ({told.reason(name).why})"
        for name in SETTINGS
        if getattr(told, name) != getattr(policy, name)
    ]
    changes += [f"a warning: {text}" for text in told.contradictions]
    if not changes:
        return None
    return (
        f"the host's name looks like {entry.title}. If that is so, environment={entry.name!r}"
        f" would give the pool {'; '.join(changes)}"
    )

"""What is known of clouds, proxies, balancers and poolers, and of how they end connections.

::

    from everpool import environments

    environments.find("aws-nlb").facts  # Environment(idle_cut=350, kill="rst-next", ...)

The data are TOML files beside this one, read when they are first asked for.
"""

from ..core.environment import Environment
from .catalogue import Path, UnknownEnvironment, entries, find, hinted_by, resolve
from .entry import Entry
from .fit import nearest
from .hint import hint_for

__all__ = [
    "Entry",
    "Environment",
    "Path",
    "UnknownEnvironment",
    "entries",
    "find",
    "hint_for",
    "hinted_by",
    "nearest",
    "resolve",
]

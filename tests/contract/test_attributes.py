"""Every attribute of psycopg_pool's classes: overridden, or kept, and why.

everpool's classes are true subclasses, so whatever the originals have, they have. An attribute that
works on the original's state, and that everpool forgot, would seem to work. So every one is in a table
here. A release of psycopg_pool that brings another one fails these tests until somebody has
looked at it.
"""

from __future__ import annotations

import psycopg_pool
import pytest

import everpool

OVERRIDDEN = "overridden"
KEPT = "kept"

# Of the classes: methods, properties, constants.
CLASS_ATTRIBUTES = {
    "_CONNECTIONS_ERRORS": (KEPT, "a name of a statistic"),
    "_CONNECTIONS_LOST": (KEPT, "a name of a statistic"),
    "_CONNECTIONS_MS": (KEPT, "a name of a statistic"),
    "_CONNECTIONS_NUM": (KEPT, "a name of a statistic"),
    "_POOL_AVAILABLE": (KEPT, "a name of a statistic"),
    "_POOL_MAX": (KEPT, "a name of a statistic"),
    "_POOL_MIN": (KEPT, "a name of a statistic"),
    "_POOL_SIZE": (KEPT, "a name of a statistic"),
    "_REQUESTS_ERRORS": (KEPT, "a name of a statistic"),
    "_REQUESTS_NUM": (KEPT, "a name of a statistic"),
    "_REQUESTS_QUEUED": (KEPT, "a name of a statistic"),
    "_REQUESTS_WAITING": (KEPT, "a name of a statistic"),
    "_REQUESTS_WAIT_MS": (KEPT, "a name of a statistic"),
    "_RETURNS_BAD": (KEPT, "a name of a statistic"),
    "_USAGE_MS": (KEPT, "a name of a statistic"),
    "__aenter__": (OVERRIDDEN, "opens everpool's engine"),
    "__aexit__": (OVERRIDDEN, "closes everpool's engine"),
    "__annotations__": (KEPT, "typing"),
    "__del__": (OVERRIDDEN, "the original's stops workers that everpool has not"),
    "__dict__": (KEPT, "the machinery of classes"),
    "__doc__": (OVERRIDDEN, "describes everpool's class"),
    "__enter__": (OVERRIDDEN, "opens everpool's engine"),
    "__exit__": (OVERRIDDEN, "closes everpool's engine"),
    "__firstlineno__": (KEPT, "the machinery of classes, since Python 3.13"),
    "__init__": (
        OVERRIDDEN,
        "takes everpool's own settings too, and starts nothing of the original",
    ),
    "__module__": (OVERRIDDEN, "names everpool's module"),
    "__orig_bases__": (KEPT, "typing"),
    "__parameters__": (KEPT, "typing"),
    "__repr__": (KEPT, "shows class and name"),
    "__static_attributes__": (KEPT, "the machinery of classes, since Python 3.13"),
    "__weakref__": (KEPT, "the machinery of classes"),
    "_add_connection": (KEPT, "private, and never reached: nothing of everpool calls it"),
    "_add_to_pool": (KEPT, "private, and never reached: nothing of everpool calls it"),
    "_check_connection": (KEPT, "private, and never reached: nothing of everpool calls it"),
    "_check_open": (KEPT, "the error text for a second opening"),
    "_check_open_getconn": (KEPT, "the error texts, and the warning for implicit opening"),
    "_check_pool_putconn": (KEPT, "the error texts for foreign connections"),
    "_check_size": (KEPT, "validates sizes, in the base's constructor"),
    "_close_connection": (KEPT, "private, and never reached: nothing of everpool calls it"),
    "_connect": (KEPT, "private, and never reached: nothing of everpool calls it"),
    "_ensure_lock": (KEPT, "never reached"),
    "_get_measures": (KEPT, "private, and never reached: nothing of everpool calls it"),
    "_get_ready_connection": (KEPT, "private, and never reached: nothing of everpool calls it"),
    "_getconn_unchecked": (KEPT, "private, and never reached: nothing of everpool calls it"),
    "_getconn_with_check_loop": (KEPT, "private, and never reached: nothing of everpool calls it"),
    "_jitter": (KEPT, "a pure function"),
    "_maybe_close_connection": (KEPT, "private, and never reached: nothing of everpool calls it"),
    "_maybe_grow_pool": (KEPT, "private, and never reached: nothing of everpool calls it"),
    "_num_pool": (KEPT, "both packages number their pools in one sequence"),
    "_open": (OVERRIDDEN, "the base's constructor calls it: starts everpool's engine"),
    "_putconn": (KEPT, "private, and never reached: nothing of everpool calls it"),
    "_reset_connection": (KEPT, "private, and never reached: nothing of everpool calls it"),
    "_resolve_conninfo": (KEPT, "private, and never reached: nothing of everpool calls it"),
    "_resolve_kwargs": (KEPT, "private, and never reached: nothing of everpool calls it"),
    "_return_connection": (KEPT, "private, and never reached: nothing of everpool calls it"),
    "_set_connection_expiry_date": (
        KEPT,
        "private, and never reached: nothing of everpool calls it",
    ),
    "_shrink_pool": (KEPT, "private, and never reached: nothing of everpool calls it"),
    "_signal_stop_worker": (KEPT, "private, and never reached: nothing of everpool calls it"),
    "_start_initial_tasks": (KEPT, "private, and never reached: nothing of everpool calls it"),
    "_start_workers": (KEPT, "private, and never reached: nothing of everpool calls it"),
    "_warn_open_async": (KEPT, "the text of the warning"),
    "check": (OVERRIDDEN, "tests everpool's slots"),
    "check_connection": (KEPT, "a round trip, documented for callers"),
    "close": (OVERRIDDEN, "everpool's engine"),
    "closed": (KEPT, "everpool sets the `_closed` it shows"),
    "connection": (OVERRIDDEN, "everpool's engine"),
    "drain": (OVERRIDDEN, "everpool's engine"),
    "get_stats": (OVERRIDDEN, "everpool's counters"),
    "getconn": (OVERRIDDEN, "everpool's engine"),
    "max_size": (KEPT, "everpool sets the `_max_size` it shows"),
    "min_size": (KEPT, "everpool sets the `_min_size` it shows"),
    "open": (OVERRIDDEN, "everpool's engine"),
    "pop_stats": (OVERRIDDEN, "everpool's counters"),
    "putconn": (OVERRIDDEN, "everpool's engine"),
    "reconnect_failed": (KEPT, "calls the user's callback; subclasses may override it"),
    "resize": (OVERRIDDEN, "everpool's engine"),
    "run_task": (KEPT, "no task is ever queued"),
    "schedule_task": (KEPT, "no task is ever scheduled"),
    "wait": (OVERRIDDEN, "everpool's engine"),
    "worker": (KEPT, "no worker is ever started"),
}

# Of the instances. Those overridden are descriptors of everpool's classes.
INSTANCE_ATTRIBUTES = {
    "_check": (KEPT, "the callback"),
    "_closed": (KEPT, "the truth behind `closed`"),
    "_configure": (KEPT, "the callback"),
    "_drained_at": (KEPT, "private, and never read: nothing of everpool uses it"),
    "_growing": (KEPT, "private, and never read: nothing of everpool uses it"),
    "_lock": (KEPT, "guards the opening, in threads"),
    "_max_size": (KEPT, "behind max_size"),
    "_min_size": (KEPT, "behind min_size"),
    "_nconns": (OVERRIDDEN, "a view: monitoring reads it"),
    "_nconns_min": (KEPT, "private, and never read: nothing of everpool uses it"),
    "_open_implicit": (KEPT, "the warning is due"),
    "_opened": (KEPT, "tells never opened from closed"),
    "_pool": (OVERRIDDEN, "a view: monitoring reads its length"),
    "_pool_full_event": (KEPT, "private, and never read: nothing of everpool uses it"),
    "_reconnect_failed": (KEPT, "the callback, called by reconnect_failed()"),
    "_reset": (KEPT, "the callback"),
    "_sched": (KEPT, "private, and never read: nothing of everpool uses it"),
    "_sched_runner": (KEPT, "private, and never read: nothing of everpool uses it"),
    "_stats": (KEPT, "private, and never read: nothing of everpool uses it"),
    "_tasks": (KEPT, "private, and never read: nothing of everpool uses it"),
    "_waiting": (OVERRIDDEN, "a view: monitoring reads its length"),
    "_workers": (KEPT, "private, and never read: nothing of everpool uses it"),
    "close_returns": (KEPT, "psycopg's close() reads it"),
    "connection_class": (KEPT, "read at every connect"),
    "conninfo": (KEPT, "read at every connect"),
    "kwargs": (KEPT, "read at every connect"),
    "max_idle": (OVERRIDDEN, "everpool's policy"),
    "max_lifetime": (OVERRIDDEN, "everpool's policy"),
    "max_waiting": (OVERRIDDEN, "everpool's policy"),
    "name": (KEPT, "in messages"),
    "num_workers": (OVERRIDDEN, "everpool's policy"),
    "reconnect_timeout": (OVERRIDDEN, "everpool's policy"),
    "timeout": (OVERRIDDEN, "everpool's policy"),
}

CLASSES = [
    "ConnectionPool",
    "AsyncConnectionPool",
    "NullConnectionPool",
    "AsyncNullConnectionPool",
]


def of_psycopg(cls: type) -> set[str]:
    """The names that psycopg_pool's classes define."""
    return {
        name
        for base in cls.__mro__
        if base.__module__.startswith("psycopg_pool")
        for name in vars(base)
    }


def definer(cls: type, name: str) -> str:
    """The package whose class the attribute comes from."""
    base = next(base for base in cls.__mro__ if name in vars(base))
    return base.__module__.partition(".")[0]


CLASSES_AND_ATTRIBUTES = [
    (name, attribute)
    for name in CLASSES
    for attribute in sorted(of_psycopg(getattr(psycopg_pool, name)))
]


def test_every_class_attribute_of_psycopg_pool_is_in_the_table() -> None:
    known = set(CLASS_ATTRIBUTES)
    found = {attribute for _, attribute in CLASSES_AND_ATTRIBUTES}
    assert found - known == set(), (
        "new in psycopg_pool: see what it does, and say what becomes of it"
    )


@pytest.mark.parametrize(("name", "attribute"), CLASSES_AND_ATTRIBUTES)
def test_class_attributes_are_overridden_or_kept_as_the_table_says(
    name: str, attribute: str
) -> None:
    verdict, reason = CLASS_ATTRIBUTES[attribute]
    assert reason
    where = definer(getattr(everpool, name), attribute)
    if attribute not in vars(object) and not attribute.startswith("__"):
        assert where == ("everpool" if verdict == OVERRIDDEN else "psycopg_pool")
    elif verdict == OVERRIDDEN:
        assert where == "everpool"


@pytest.mark.parametrize("name", CLASSES)
def test_every_instance_attribute_of_psycopg_pool_is_in_the_table(name: str) -> None:
    pool = getattr(psycopg_pool, name)(open=False)
    assert set(vars(pool)) - set(INSTANCE_ATTRIBUTES) == set()


@pytest.mark.parametrize("name", CLASSES)
def test_every_instance_attribute_of_psycopg_pool_can_be_read_from_everpool(name: str) -> None:
    theirs = getattr(psycopg_pool, name)(open=False)
    ours = getattr(everpool, name)(open=False)
    missing = [attribute for attribute in vars(theirs) if not hasattr(ours, attribute)]
    assert missing == []


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("attribute", sorted(INSTANCE_ATTRIBUTES))
def test_instance_attributes_are_overridden_or_kept_as_the_table_says(
    name: str, attribute: str
) -> None:
    verdict, reason = INSTANCE_ATTRIBUTES[attribute]
    assert reason
    found = any(
        attribute in vars(base) for base in getattr(everpool, name).__mro__ if definer_is_ours(base)
    )
    assert found is (verdict == OVERRIDDEN)


def definer_is_ours(base: type) -> bool:
    return base.__module__.partition(".")[0] == "everpool"

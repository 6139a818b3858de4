"""What is wrong is told at construction, and no secret is shown."""

from __future__ import annotations

from typing import Any

import pytest

from everpool import ConnectionPool
from everpool.discovery import Consul, Etcd, Instance, Registrar

WRONG = [
    ("consul:8500", "must begin with http:// or https://"),
    ("ftp://h3ll:8500", "must begin with http:// or https://"),
    ("", "must begin with http:// or https://"),
    ("http://", "no valid host"),
    ("http://ho st:8500", "no valid host"),
    ("http://h3ll\r\nX: y", "no valid host"),
    ("http://h3ll:hunter2", "no valid host and port"),
    ("http://h3ll:99999", "no valid host and port"),
    ("http://h3ll:0", "no valid port"),
    ("http://[::1:8500", "no valid host and port"),
    ("http://me:hunter2@h3ll:8500", "must not hold credentials"),
    ("http://hunter2@h3ll:8500", "must not hold credentials"),
    ("http://h3ll:8500/v1/hunter2", "must end after host and port"),
    ("http://h3ll:8500?token=hunter2", "must end after host and port"),
    ("http://h3ll:8500#hunter2", "must end after host and port"),
]


@pytest.mark.parametrize("make", [Consul, Etcd, lambda url: Etcd(["http://fine:2379", url])])
@pytest.mark.parametrize(("url", "what"), WRONG, ids=[url for url, _ in WRONG])
def test_a_wrong_url_is_told_with_scheme_and_host_at_most(make: Any, url: str, what: str) -> None:
    with pytest.raises(ValueError) as caught:
        make(url)
    text = str(caught.value)
    assert what in text
    assert "consul" in text.lower() or "etcd" in text.lower()
    for part in ("hunter2", "me:", "8500", "99999", "/v1"):
        assert part not in text


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lambda: Consul(ttl=0), "ttl must be from 1 to 86400"),
        (lambda: Consul(ttl=float("nan")), "ttl must be"),
        (lambda: Etcd(ttl=1), "ttl must be from 2 to 86400"),
        (lambda: Consul(deregister_after=59), "at least 60"),
        (lambda: Consul(deregister_after=float("inf")), "at least 60"),
        (lambda: Consul(warn="fail"), "'warning' or 'passing'"),  # type: ignore[arg-type]
        (lambda: Etcd([]), "at least one URL"),
        (lambda: Etcd(user="me"), "user and password"),
        (lambda: Instance("", "h", 1), "name of a service"),
        (lambda: Instance("a/b", "h", 1), "name of a service"),
        (lambda: Instance("a", "", 1), "address"),
        (lambda: Instance("a", "0.0.0.0", 1), "address"),
        (lambda: Instance("a", "::", 1), "address"),
        (lambda: Instance("a", "h", 0), "port"),
        (lambda: Instance("a", "h", 65536), "port"),
        (lambda: Instance("a", "h", 1, id="a/b"), "id of an instance"),
    ],
)
def test_a_wrong_value_is_told(make: Any, what: str) -> None:
    with pytest.raises(ValueError, match=what):
        make()


def test_a_token_that_cannot_be_sent_is_told_and_not_shown() -> None:
    with pytest.raises(ValueError, match="token") as caught:
        Consul(token="hunter2\n")
    assert "hunter2" not in str(caught.value)


def test_a_registrar_needs_pools_and_a_known_judgement() -> None:
    orders = Instance("orders", "10.0.0.7", 8000)
    pool = ConnectionPool(open=False)
    with pytest.raises(TypeError, match="needs a pool"):
        Registrar(Consul(), orders)
    with pytest.raises(TypeError, match="not str"):
        Registrar(Consul(), orders, "pool")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="'ready' or 'health'"):
        Registrar(Consul(), orders, pool, by="live")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="port must be an int"):
        Instance("a", "h", "1")  # type: ignore[arg-type]


def test_no_secret_is_in_a_repr() -> None:
    for registry in (
        Consul("https://h3ll:8500", token="hunter2"),
        Etcd("https://h3ll:2379", user="me", password="hunter2"),
    ):
        assert repr(registry) == f"{type(registry).__name__}('https://h3ll')"


def test_an_id_is_made_of_what_stays() -> None:
    assert Instance("orders", "10.0.0.7", 8000).id == "orders-10.0.0.7-8000"
    assert Instance("orders", "fd00::7", 8000).id == "orders-fd00::7-8000"

"""What errors mean: the texts of PostgreSQL, libpq and the common poolers."""

from __future__ import annotations

import pytest

from everpool.core.verdict import Cause, Trouble, judge_connect

AT = 'connection failed: connection to server at "10.0.0.7", port 5432 failed: '
SOCKET = 'connection to server on socket "/var/run/postgresql/.s.PGSQL.5432" failed: '

REJECTED = [
    AT + 'FATAL:  password authentication failed for user "joe"',
    AT + "fe_sendauth: no password supplied",
    AT + 'FATAL:  role "joe" does not exist',
    AT + 'FATAL:  database "shop" does not exist',
    AT + 'FATAL:  role "joe" is not permitted to log in',
    AT + 'FATAL:  database "shop" is not currently accepting connections',
    AT + 'FATAL:  permission denied for database "shop"\nDETAIL:  User does not have CONNECT '
    "privilege.",
    AT + 'FATAL:  no pg_hba.conf entry for host "10.0.0.9", user "joe", database "shop", no '
    "encryption",
    AT + 'FATAL:  pg_hba.conf rejects connection for host "10.0.0.9", user "joe", database '
    '"shop", SSL encryption',
    SOCKET + 'FATAL:  Peer authentication failed for user "joe"',
    AT + 'FATAL:  PAM authentication failed for user "joe"',
    AT + 'FATAL:  LDAP authentication failed for user "joe"',
    AT + "server does not support SSL, but SSL was required",
    AT + "SSL error: certificate verify failed",
    AT + "SSL error: ssl/tls alert certificate expired",
    AT + "SSL error: sslv3 alert certificate revoked",
    AT + "SSL error: tlsv1 alert unknown ca",
    AT + "SSL error: tlsv13 alert certificate required",
    AT + "FATAL:  connection requires a valid client certificate",
    AT + 'server certificate for "db.example" does not match host name "10.0.0.7"',
    (
        'root certificate file "/etc/ssl/root.crt" does not exist\nEither provide the file, use the '
        "system's trusted roots with sslrootcert=system, or change sslmode to disable server "
        "certificate verification."
    ),
    'invalid connection option "pasword"',
    'invalid URI query parameter: "foo"',
    AT + "FATAL:  Circuit breaker open: Too many authentication errors",
    AT + "FATAL:  Tenant or user not found",
    AT + "FATAL:  SASL authentication failed",
    AT + "FATAL:  no such user: joe",
    AT + "FATAL:  no such database: shop",
    AT + "FATAL:  This RDS proxy has no credentials for the role joe. Check the credentials for "
    "this role and try again.",
]
CROWDED = [
    AT + "FATAL:  sorry, too many clients already",
    AT + "FATAL:  remaining connection slots are reserved for non-replication superuser "
    "connections",
    AT + "FATAL:  remaining connection slots are reserved for roles with the SUPERUSER attribute",
    AT + "FATAL:  remaining connection slots are reserved for roles with privileges of the "
    '"pg_use_reserved_connections" role',
    AT + 'FATAL:  too many connections for role "joe"',
    AT + 'FATAL:  too many connections for database "shop"',
    AT + "FATAL:  no more connections allowed (max_client_conn)",
    AT + "FATAL:  MaxClientsInSessionMode: max clients reached - in Session mode max clients are "
    "limited to pool_size",
]
GONE = [
    AT + "Connection refused\n\tIs the server running on that host and accepting TCP/IP "
    "connections?",
    SOCKET + "No such file or directory\n\tIs the server running locally and accepting "
    "connections on that socket?",
    AT + "server closed the connection unexpectedly\n\tThis probably means the server terminated "
    "abnormally\n\tbefore or while processing the request.",
    AT + "could not receive data from server: Connection reset by peer",
    AT + "No route to host",
    AT + "Network is unreachable",
    AT + "FATAL:  the database system is starting up",
    AT + "FATAL:  the database system is shutting down",
    AT + "FATAL:  the database system is in recovery mode",
    AT + "FATAL:  the database system is not yet accepting connections\nDETAIL:  Consistent "
    "recovery state has not been yet reached.",
    AT + "FATAL:  the database system is not accepting connections\nDETAIL:  Hot standby mode is "
    "disabled.",
    AT + "FATAL:  server login has been failing, try again later (server_login_retry)",
    AT + "FATAL:  client_login_timeout (server down)",
    AT + "SSL SYSCALL error: EOF detected",
    AT + "SSL error: unexpected eof while reading",
    "Verbindungsaufbau abgelehnt",
    "",
]
SILENT = [
    "connection timeout expired",
    AT + "timeout expired",
    AT + "Connection timed out\n\tIs the server running on that host and accepting TCP/IP "
    "connections?",
]
UNRESOLVED = [
    'could not translate host name "db.nowhere" to address: Name or service not known',
    "failed to resolve host 'db.nowhere': [Errno -2] Name or service not known",
]
RESOLVER_DOWN = [
    'could not translate host name "db" to address: Temporary failure in name resolution',
    "failed to resolve host 'db': [Errno -3] Temporary failure in name resolution",
]


def judge(text: str, **others: bool) -> Trouble:
    return judge_connect(text, **{"connected_before": False, **others})


@pytest.mark.parametrize("text", REJECTED)
def test_only_a_person_can_help(text):
    assert judge(text) is Trouble.REJECTED
    assert judge(text, connected_before=True) is Trouble.REJECTED


@pytest.mark.parametrize("text", CROWDED)
def test_the_server_is_full(text):
    assert judge(text) is Trouble.CROWDED


@pytest.mark.parametrize("text", GONE)
def test_try_again_soon(text):
    assert judge(text) is Trouble.GONE


@pytest.mark.parametrize("text", SILENT)
def test_no_answer(text):
    assert judge(text) is Trouble.SILENT


@pytest.mark.parametrize("text", UNRESOLVED)
def test_an_unknown_host_is_a_mistake_at_first_and_a_fault_later(text):
    assert judge(text) is Trouble.REJECTED
    assert judge(text, connected_before=True) is Trouble.GONE


@pytest.mark.parametrize("text", RESOLVER_DOWN)
def test_a_resolver_that_says_temporary_is_believed(text):
    assert judge(text) is Trouble.GONE


def test_a_server_that_wants_a_password_we_lack_is_no_passing_fault_in_any_language():
    assert judge("Passwort fehlt", needs_password=True) is Trouble.REJECTED


def test_crowded_is_said_even_to_those_without_a_password():
    assert judge(CROWDED[0], needs_password=True) is Trouble.CROWDED


class TestCause:
    @pytest.mark.parametrize("state", ["57P01", "57P02", "57P03", "57P04", "08P01", "58000"])
    def test_some_deaths_concern_all(self, state):
        assert Cause("FATAL", state, "whatever").concerns_all

    @pytest.mark.parametrize("state", ["57P05", "25P03", "53300", "40001", ""])
    def test_others_do_not(self, state):
        assert not Cause("FATAL", state, "whatever").concerns_all

    def test_a_demotion_does(self):
        assert Cause("demoted", "25006").concerns_all

    @pytest.mark.parametrize("state", ["57P01", "25P04", "08P01", "XX000"])
    def test_an_sqlstate_is_counted(self, state):
        assert Cause("FATAL", state, "whatever").kind == f"FATAL {state}"

    @pytest.mark.parametrize("state", ["57XYZ", "57p01", "57P99", "x", "<b>", "2F003"])
    def test_what_a_server_makes_up_is_not(self, state):
        assert Cause("FATAL", state, "whatever").kind == "FATAL of another kind"

    def test_it_reads_well(self):
        assert str(Cause("RST")) == "RST"
        assert str(Cause("FATAL", "57P01", "terminating")) == "FATAL (57P01 terminating)"
        assert str(Cause("FATAL", "", "bye")) == "FATAL (bye)"

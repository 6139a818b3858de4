"""The wire protocol: whatever the pieces the bytes arrive in, the messages are the same."""

from __future__ import annotations

import random
import struct

import pytest

from everpool.lab import frames
from everpool.lab.dialogue import Dialogue
from everpool.lab.frames import ClientReader, Frame, ServerReader, build

SSL_REQUEST = struct.pack("!II", 8, 80877103)
QUERY = build(b"Q", b"SELECT 1\0")
SYNC = build(b"S")
READY = frames.ready_for_query()
SERVER = [
    frames.parameter_status("client_encoding", "UTF8"),
    build(b"K", struct.pack("!II", 4711, 42)),
    READY,
    frames.error_response("57P01", "bye", hint="come again"),
    frames.notice_response("01000", "well"),
    frames.notification_response(7, "chan", "payload"),
    build(b"D", b"\0\1\0\0\0\1x"),
    build(b"C", b"SELECT 1\0"),
]
CLIENT = [SSL_REQUEST, frames.startup_message("me", "db", application_name="x"), QUERY, SYNC]


@pytest.mark.parametrize("seed", range(20))
def test_any_pieces_give_the_same_messages(seed: int) -> None:
    dice = random.Random(seed)
    for reader, messages in ((ServerReader(), SERVER), (ClientReader(), CLIENT)):
        stream = b"".join(messages)
        got: list[bytes] = []
        while stream:
            size = dice.randint(1, 30)
            got += [frame.data for frame in reader.feed(stream[:size])]
            stream = stream[size:]
        assert got == messages
        assert not reader.opaque
        assert reader.pending == 0


def test_names_and_bodies() -> None:
    assert [frame.kind for frame in ServerReader().feed(b"".join(SERVER))] == [
        "ParameterStatus", "BackendKeyData", "ReadyForQuery", "ErrorResponse", "NoticeResponse",
        "NotificationResponse", "DataRow", "CommandComplete",
    ]  # fmt: skip
    kinds = [frame.kind for frame in ClientReader().feed(b"".join(CLIENT))]
    assert kinds == ["SSLRequest", "StartupMessage", "Query", "Sync"]
    assert ClientReader().feed(frames.cancel_request(1, 2))[0].kind == "CancelRequest"
    (error,) = ServerReader().feed(frames.error_response("57P01", "bye"))
    assert error.body == b"SFATAL\0VFATAL\0C57P01\0Mbye\0\0"
    assert Frame("Opaque", b"", b"x").body == b"x"


@pytest.mark.parametrize("reply", [b"N", b"S", b"G"])
def test_the_reply_to_an_encryption_request_is_one_byte(reply: bytes) -> None:
    reader = ServerReader()
    reader.expect_reply()
    assert reader.feed(reply) == [Frame("EncryptionReply", b"", reply)]
    assert reader.opaque == (reply != b"N")
    (after,) = reader.feed(READY)
    assert after.kind == ("ReadyForQuery" if reply == b"N" else "Opaque")


def test_a_server_may_answer_an_encryption_request_with_an_error() -> None:
    reader = ServerReader()
    reader.expect_reply()
    message = frames.error_response("08P01", "what?")
    assert reader.feed(message[:3]) == []
    assert [frame.kind for frame in reader.feed(message[3:])] == ["ErrorResponse"]


@pytest.mark.parametrize(
    "garbage", [b"\x16\x03\x01", b"GET / HTTP/1.1\r\n", struct.pack("!II", 7, 1), b"\xff" * 9]
)
def test_what_is_not_postgresql_is_opaque_and_kept_whole(garbage: bytes) -> None:
    reader = ClientReader()
    assert b"".join(frame.data for frame in reader.feed(garbage)) == garbage
    assert reader.opaque


@pytest.mark.parametrize("garbage", [b"?\0\0\0\4", b"Z\0\0\0\3"])
def test_garbage_from_a_server_is_opaque(garbage: bytes) -> None:
    reader = ServerReader()
    assert [frame.kind for frame in reader.feed(READY + garbage)] == ["ReadyForQuery", "Opaque"]


def test_builders_refuse_nonsense() -> None:
    with pytest.raises(ValueError, match="SQLSTATE"):
        frames.error_response("57", "x")
    with pytest.raises(ValueError, match="NUL"):
        frames.parameter_status("a", "b\0c")
    with pytest.raises(ValueError, match="status"):
        frames.ready_for_query("X")


def talk(dialogue: Dialogue, *pieces: tuple[str, bytes]) -> list[bool]:
    """Feed pieces and return, after each, whether a request was in hand."""
    states = []
    for sender, data in pieces:
        if sender == "client":
            dialogue.from_client(data)
        else:
            for frame in dialogue.from_server(data):
                dialogue.delivered(frame)
        states.append(dialogue.in_hand)
    return states


def logged_in() -> Dialogue:
    dialogue = Dialogue()
    key = build(b"K", struct.pack("!II", 4711, 42))
    talk(dialogue, ("client", frames.startup_message("me")), ("server", key + READY))
    assert dialogue.ready
    assert dialogue.backend_pid == 4711
    assert not dialogue.in_hand
    return dialogue


def test_a_request_is_in_hand_until_it_is_answered() -> None:
    pieces = ("client", QUERY), ("server", build(b"C", b"SELECT 1\0")), ("server", READY)
    assert talk(logged_in(), *pieces) == [True, True, False]


def test_an_open_transaction_is_in_hand() -> None:
    dialogue = logged_in()
    for status, expected in (("T", True), ("E", True), ("I", False)):
        pieces = ("client", QUERY), ("server", frames.ready_for_query(status))
        assert talk(dialogue, *pieces)[-1] == expected


def test_a_pipeline_is_in_hand_until_its_last_sync_is_answered() -> None:
    parse = build(b"P", b"\0SELECT 1\0\0\0")
    pieces = (
        ("client", parse),
        ("client", SYNC + parse + SYNC),
        ("server", READY),
        ("server", READY),
    )
    assert talk(logged_in(), *pieces) == [True, True, True, False]
    assert talk(logged_in(), ("client", build(b"H"))) == [False], "a Flush asks for nothing"


def test_copy_in_of_either_protocol() -> None:
    simple = talk(
        logged_in(),
        ("client", QUERY), ("server", build(b"G", b"\0\0\0")),
        ("client", build(b"d", b"1\n")), ("client", build(b"c")), ("server", READY),
    )  # fmt: skip
    assert simple == [True, True, True, True, False]
    extended = talk(
        logged_in(),
        ("client", build(b"E", b"\0\0\0\0\0") + SYNC), ("server", build(b"G", b"\0\0\0")),
        ("client", build(b"d", b"1\n")), ("client", build(b"c") + SYNC), ("server", READY),
    )  # fmt: skip
    assert extended == [True, True, True, True, False]

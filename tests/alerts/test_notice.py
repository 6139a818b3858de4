"""What a notice says, and what becomes of those that wait."""

from __future__ import annotations

from everpool.alerts.notice import MOST_IN_JSON, MOST_IN_TEXT, MOST_RESOLVED
from tests.alerts.receiver import alert, notice


def test_the_body_of_a_webhook_stays() -> None:
    """Changing this breaks receivers: only add, or raise the version."""
    fires = alert()
    passed = alert("saturated", severity="warning", title="pool saturated", ended=30.5, new=False)
    assert notice(fires, resolved=(passed,)).json() == {
        "version": 1,
        "id": "n-1",
        "source": "billing",
        "status": "firing",
        "severity": "critical",
        "repeated": False,
        "sent_at": "2023-11-14T22:14:00.000Z",
        "title": "[critical] billing: database unreachable, pool main",
        "text": "CRITICAL: database unreachable, pool main, for 30 s.\n"
        "No connection can be opened.\nWhat to do: Look.\n\n"
        "RESOLVED: pool saturated, pool main. It lasted 20 s.",
        "alerts": [
            {
                "status": "firing",
                "pool": "main",
                "condition": "unreachable",
                "severity": "critical",
                "title": "database unreachable",
                "summary": "No connection can be opened.",
                "advice": "Look.",
                "detail": "",
                "started_at": "2023-11-14T22:13:30.000Z",
                "ended_at": None,
                "new": True,
            },
            {
                "status": "resolved",
                "pool": "main",
                "condition": "saturated",
                "severity": "warning",
                "title": "pool saturated",
                "summary": "No connection can be opened.",
                "advice": "Look.",
                "detail": "",
                "started_at": "2023-11-14T22:13:30.000Z",
                "ended_at": "2023-11-14T22:13:50.500Z",
                "new": False,
            },
        ],
        "omitted": 0,
    }


def test_titles() -> None:
    a, b = alert(pool="a"), alert(pool="b")
    assert notice(a, b).title() == "[critical] billing: database unreachable, 2 pools"
    assert notice(a, alert("leak", title="leak", pool="a")).title() == (
        "[critical] billing: 2 alerts, pool a"
    )
    assert notice(a, repeated=True).title().startswith("[still critical] ")
    assert notice(resolved=(alert(ended=20.0),)).title() == (
        "[resolved] billing: database unreachable, pool main"
    )


def test_details_stand_in_the_text_if_there_are_any() -> None:
    assert "Details: said the server" in notice(alert(detail="said the server")).text()


def test_many_alerts_are_cut_short() -> None:
    many = notice(*(alert(pool=f"p{n}") for n in range(200)))
    assert many.text().endswith(f"… and {200 - MOST_IN_TEXT} more.")
    assert len(many.json()["alerts"]) == MOST_IN_JSON
    assert many.json()["omitted"] == 200 - MOST_IN_JSON


def test_a_newer_notice_takes_up_an_older_one() -> None:
    leak = alert("leak", new=True)
    older = notice(leak, alert("unreachable", new=True), resolved=(alert("slow", ended=5.0),))
    newer = notice(
        alert("leak", new=False),
        resolved=(alert("unreachable", ended=35.0, new=False),),
        repeated=True,
    )
    both = newer.after(older)
    assert [(a.condition, a.new) for a in both.firing] == [("leak", True)]
    assert [a.condition for a in both.resolved] == ["slow", "unreachable"]
    assert not both.repeated


def test_what_fires_again_is_not_resolved() -> None:
    both = notice(alert()).after(notice(resolved=(alert(started=1.0, ended=5.0),)))
    assert both.resolved == ()


def test_waiting_for_a_dead_sink_does_not_fill_the_memory() -> None:
    waiting = notice()
    for n in range(5 * MOST_RESOLVED):
        waiting = notice(resolved=(alert(started=n, ended=n + 0.5),)).after(waiting)
    assert len(waiting.resolved) == MOST_RESOLVED
    assert waiting.resolved[-1].started == 5 * MOST_RESOLVED - 1

"""The books of a survey: the probes that run, and what was observed of those that do not."""

from __future__ import annotations

from collections.abc import Sequence

from .observation import BUSY, LIVED, Observation
from .plan import Phase, Probe


class Books:
    """Keeps count. All times are seconds of the survey.

    :param observations: what was observed before.
    """

    def __init__(self, observations: Sequence[Observation] = ()) -> None:
        self.observations = list(observations)
        self.probes: dict[int, Probe] = {}
        self._numbers = 0

    def open(self, kind: str, rest: float, now: float) -> Probe:
        """A probe takes its place."""
        self._numbers += 1
        probe = Probe(self._numbers, kind, rest, began=now)
        self.probes[probe.number] = probe
        return probe

    def opened(self, probe: Probe, now: float) -> None:
        """It is connected, and last heard of at that time."""
        probe.phase = Phase.RESTING
        probe.quiet_since = probe.asked_at = now
        probe.lived = now - probe.began

    def asked(self, probe: Probe, now: float) -> None:
        probe.phase = Phase.ASKED
        probe.asked_at = now

    def answered(self, probe: Probe, now: float) -> None:
        """A busy one goes on; the others have served."""
        probe.lived = now - probe.began
        if probe.kind == BUSY:
            probe.phase = Phase.RESTING
            probe.quiet_since = now
        else:
            self._note(probe, now, LIVED)

    def ended(
        self, probe: Probe, now: float, outcome: str, sqlstate: str = "", text: str = ""
    ) -> None:
        """It died, or was lost in an outage."""
        self._note(probe, now, outcome, sqlstate, text)

    def finish(self, probe: Probe) -> None:
        """A busy one has been watched for long enough: it lived at its last answer."""
        at = probe.began + probe.lived
        self.observations.append(
            Observation(probe.kind, probe.began, at, 0.0, probe.lived, probe.lived, LIVED)
        )
        probe.phase = Phase.CLOSING

    def dropped(self, probe: Probe) -> None:
        """It is closed without having told anything."""
        probe.phase = Phase.CLOSING

    def gone(self, probe: Probe) -> None:
        """Its place is free."""
        del self.probes[probe.number]

    def _note(
        self, probe: Probe, now: float, outcome: str, sqlstate: str = "", text: str = ""
    ) -> None:
        # What was asked had its time alone, and its age, when it was.
        at = probe.asked_at if probe.phase in (Phase.ASKED, Phase.JUDGED) else now
        self.observations.append(
            Observation(
                kind=probe.kind,
                began=probe.began,
                ended=at,
                quiet=at - probe.quiet_since,
                age=at - probe.began,
                lived=probe.lived,
                outcome=outcome,
                sqlstate=sqlstate,
                text=text,
            )
        )
        probe.phase = Phase.CLOSING

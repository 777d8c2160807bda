import json
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path

import pytest

from flagd_server.domain.restart import Restore
from flagd_server.domain.times import format_time
from flagd_server.services.aftermath import AFTERMATH, TOLD, AftermathWatch
from flagd_server.services.announcements import Announcements
from flagd_server.services.receipts import Receipts
from flagd_server.storage.records import EvidenceNote
from flagd_server.storage.release_records import HealthyVersion
from tests.server.services.guarded_world import ENVIRONMENT, FLAG, RecordingHub, World, cell

BOOM = "error:Boom"


class Guarded:
    """A world in which the guard kills, and a watch on what follows, driven by hand."""

    def __init__(self, path: Path) -> None:
        self.world = World(path)
        self.processes = frozenset({"i-1", "i-2", "i-3"})
        self.restart()

    def restart(self) -> None:
        """Forget what is in memory only."""
        clock = self.world.clock
        self.receipts = Receipts(lambda environment: self.processes, lambda: clock.at.timestamp())
        self.announcements = Announcements(RecordingHub(), clock)
        self.watch = AftermathWatch(
            self.world.storage, self.receipts, self.announcements, self.world.clock
        )

    def kill(self) -> str:
        """Let the guard kill the flag; return the report's id."""
        version = self.world.release()
        self.hurt(version)
        kill = self.world.configurations.get(ENVIRONMENT, FLAG).configuration.kill
        assert kill is not None
        assert kill.evidence is not None
        return kill.evidence

    def hurt(self, version: int) -> None:
        """Report that 40 requests of 500 failed with the feature, and none of 750 without."""
        failing = {BOOM: list(range(40))}
        self.world.report(1, [cell("on", version, exposures=250), cell("off", version)])
        on = cell("on", version, exposures=250, failing=failing)
        self.world.report(2, [on, cell("off", version, exposures=740)])

    def announce(self, evidence: str, sequence: int = 7) -> None:
        self.announcements.publish(ENVIRONMENT, sequence, b"")
        self.watch.notice(ENVIRONMENT, evidence)

    def confirm(self, *instances: str, sequence: int = 7) -> None:
        for instance in instances:
            self.receipts.applied(ENVIRONMENT, instance, sequence)

    def serve_off(self, failed: int, sequence: int = 3) -> None:
        """Report a thousand requests of the flag that is off, of which some failed."""
        failing = {BOOM: list(range(failed))}
        off = cell("off", self.world.version(), exposures=1_000, failing=failing, split=None)
        self.world.report(sequence, [off])

    def notes(self, evidence: str) -> Mapping[tuple[str, int], dict[str, object]]:
        with self.world.storage.read() as reader:
            notes = reader.evidence_notes(evidence)
        return {(note.kind, note.window_s): json.loads(note.document) for note in notes}


@pytest.fixture
def guarded(database: str) -> Iterator[Guarded]:
    guarded = Guarded(database)
    yield guarded
    guarded.world.close()


def test_notes_whom_a_kill_has_reached_and_how_long_each_step_took(guarded: Guarded) -> None:
    decided = guarded.world.clock.at + timedelta(seconds=2)
    evidence = guarded.kill()
    assert guarded.world.clock.at == decided
    guarded.announce(evidence)
    for name in ("i-2", "i-3", "i-1"):
        guarded.world.clock.forward(0.010)
        guarded.confirm(name)
    guarded.world.clock.forward(0.150)
    guarded.watch.catch_up()
    told = guarded.notes(evidence)[TOLD, 0]
    assert (told["processes"], told["confirmed"], told["unconfirmed"]) == (3, 3, [])
    assert told["confirmed_after_ms"] == pytest.approx({"50": 20.0, "99": 30.0, "100": 30.0})
    at = format_time(decided)
    assert told["steps"] == {
        "first_failure": at,
        "received": at,
        "decided": at,
        "committed": at,
        "sent": at,
        "last_confirmation": format_time(decided + timedelta(milliseconds=30)),
    }


def test_waits_for_those_who_have_not_confirmed_then_names_them(guarded: Guarded) -> None:
    evidence = guarded.kill()
    guarded.announce(evidence)
    guarded.confirm("i-1", "i-2")
    assert guarded.watch.catch_up() == pytest.approx(0.2)
    assert guarded.notes(evidence) == {}
    guarded.world.clock.forward(10)
    guarded.watch.catch_up()
    told = guarded.notes(evidence)[TOLD, 0]
    assert (told["confirmed"], told["unconfirmed"]) == (2, ["i-3"])
    assert told["confirmed_after_ms"] == pytest.approx({"50": 0.0, "99": None, "100": None})


def test_nothing_is_said_of_a_kill_that_is_about_to_be_announced(guarded: Guarded) -> None:
    evidence = guarded.kill()
    guarded.confirm("i-1", "i-2", "i-3")
    guarded.watch.catch_up()
    assert guarded.notes(evidence) == {}


def test_failures_that_end_are_noted_for_both_windows(guarded: Guarded) -> None:
    evidence = guarded.kill()
    guarded.serve_off(0)
    guarded.world.clock.forward(118)
    assert guarded.watch.catch_up() == pytest.approx(0.2)  # nobody has confirmed yet
    guarded.world.clock.forward(1)
    guarded.watch.catch_up()
    guarded.watch.catch_up()
    guarded.world.clock.forward(480)
    guarded.watch.catch_up()
    notes = guarded.notes(evidence)
    assert [key for key in notes if key[0] == AFTERMATH] == [(AFTERMATH, 120), (AFTERMATH, 600)]
    soon = notes[AFTERMATH, 120]
    assert soon["outcome"] == "fell"
    assert soon["before"] == {"exposures": 1_250, "bad": 40, "share": pytest.approx(0.032)}
    assert soon["after"] == {"exposures": 1_000, "bad": 0, "share": 0.0}
    assert soon["expected_share"] == 0.0


def test_failures_that_go_on_say_that_the_kill_did_not_help(guarded: Guarded) -> None:
    evidence = guarded.kill()
    guarded.serve_off(40)
    guarded.world.clock.forward(120)
    guarded.watch.catch_up()
    assert guarded.notes(evidence)[AFTERMATH, 120]["outcome"] == "did not fall"


def test_requests_of_a_restored_flag_are_not_those_after_the_kill(guarded: Guarded) -> None:
    evidence = guarded.kill()
    guarded.serve_off(0)
    kill = guarded.world.configurations.get(ENVIRONMENT, FLAG).configuration.kill
    assert kill is not None
    guarded.world.patch(comment="the kill stands")
    guarded.serve_off(0, sequence=4)
    guarded.world.kills.restore(ENVIRONMENT, FLAG, Restore(kill.id, "fixed"), actor="test")
    version = guarded.world.version()
    guarded.world.report(5, [cell("on", version, exposures=500, failing={BOOM: [1]})])
    guarded.world.clock.forward(120)
    guarded.watch.catch_up()
    after = guarded.notes(evidence)[AFTERMATH, 120]["after"]
    assert after == {"exposures": 2_000, "bad": 0, "share": 0.0}


def test_a_rollback_is_followed_too_and_what_is_left_of_the_fault_is_expected(
    guarded: Guarded,
) -> None:
    world = guarded.world
    world.release(5_000, guard={"on_breach": "rollback"})
    mark = HealthyVersion(ENVIRONMENT, FLAG, world.version(), world.clock.at, "")
    with world.storage.transaction() as tx:
        tx.mark_healthy(mark)
    guarded.hurt(world.release(25_000))
    ((*_, evidence),) = world.decisions
    assert world.evidence()[0]["action"] == "rollback"
    on = cell("on", world.version(), exposures=50, failing={BOOM: list(range(8))})
    world.report(3, [on, cell("off", world.version(), exposures=950)])
    guarded.announce(evidence)
    guarded.confirm("i-1", "i-2")
    world.clock.forward(10)
    guarded.watch.catch_up()
    assert (TOLD, 0) not in guarded.notes(evidence), "they confirm with the next summary"
    guarded.confirm("i-3")
    world.clock.forward(110)
    guarded.watch.catch_up()
    notes = guarded.notes(evidence)
    assert notes[TOLD, 0]["confirmed"] == 3
    found = notes[AFTERMATH, 120]
    assert found["after"] == {"exposures": 1_000, "bad": 8, "share": 0.008}
    # 40 of 1,250 failed, and a fifth of those with the feature have it still.
    assert found["expected_share"] == pytest.approx(0.032 / 5)
    assert found["outcome"] == "fell"


def test_a_restart_goes_on_with_what_is_missing_and_repeats_nothing(guarded: Guarded) -> None:
    evidence = guarded.kill()
    guarded.serve_off(0)
    guarded.world.clock.forward(120)
    guarded.watch.catch_up()
    guarded.restart()
    guarded.world.clock.forward(480)
    guarded.confirm("i-1", "i-2", "i-3", sequence=1 << 60)
    assert guarded.watch.catch_up() is None
    notes = guarded.notes(evidence)
    assert set(notes) == {(TOLD, 0), (AFTERMATH, 120), (AFTERMATH, 600)}
    told = notes[TOLD, 0]
    assert (told["processes"], told["confirmed"]) == (3, 3)
    assert told["confirmed_after_ms"] == {"50": None, "99": None, "100": None}
    assert guarded.watch.catch_up() is None


def test_old_kills_are_left_alone_after_a_restart(guarded: Guarded) -> None:
    evidence = guarded.kill()
    guarded.world.clock.forward(15 * 60 + 1)
    guarded.restart()
    assert guarded.watch.catch_up() is None
    assert guarded.notes(evidence) == {}


def test_a_report_that_killed_nothing_has_no_aftermath(guarded: Guarded) -> None:
    version = guarded.world.release(guard={"mode": "observe"})
    guarded.hurt(version)
    ((*decided, evidence),) = guarded.world.decisions
    assert decided == [ENVIRONMENT, FLAG, "observe"]
    guarded.announce(evidence)
    assert guarded.watch.catch_up() is None


def test_a_note_that_someone_else_wrote_is_not_written_again(guarded: Guarded) -> None:
    evidence = guarded.kill()
    now = guarded.world.clock.at
    with guarded.world.storage.transaction() as tx:
        tx.insert_evidence_note(EvidenceNote(evidence, TOLD, 0, now, '{"first":true}'))
    guarded.announce(evidence)
    guarded.confirm("i-1", "i-2", "i-3")
    guarded.watch.catch_up()
    assert guarded.notes(evidence) == {(TOLD, 0): {"first": True}}


def test_its_thread_ends_when_asked(guarded: Guarded) -> None:
    guarded.watch.start()
    thread = guarded.watch._thread
    assert thread is not None
    guarded.watch.close()
    assert not thread.is_alive()

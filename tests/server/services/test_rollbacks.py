"""The guard goes back to what was healthy, and to off where that hurts too: all by itself."""

from collections.abc import Iterator

import pytest

from flagd_server.domain.configuration import KillSource
from flagd_server.domain.guard.prose.page import page
from flagd_server.domain.release import Plan
from flagd_server.domain.restart import FixedIn, Restore
from flagd_server.domain.rollout import State
from flagd_server.domain.stages import Stage
from flagd_server.errors import InvalidError
from flagd_server.services.healthy import HealthWatch
from flagd_server.storage.records import Segment
from flagd_server.storage.release_records import HealthyVersion
from tests.server.services.guarded_world import ENVIRONMENT, FLAG, World, cell
from tests.server.services.released_world import Release
from tests.server.services.test_brakes import fail

BAD = "error:PaymentError"
BACK = {"on_breach": "rollback"}


@pytest.fixture
def release(database: str) -> Iterator[Release]:
    release = Release(database)
    release.world.release(0, guard=BACK)
    yield release
    release.world.close()


@pytest.fixture
def world(release: Release) -> World:
    return release.world


def hurt(release: Release, first_unit: int = 1) -> None:
    """Report until the guard has acted on the flag: one user more fails with the feature each time.

    The traffic has the sides in the shares that the weights say.
    """
    decided = len(release.world.decisions)
    for n in range(first_unit, first_unit + 60):
        release.traffic(failing={BAD: [n]})
        if len(release.world.decisions) > decided:
            return
    raise AssertionError("the guard has not decided")


def mark(world: World, version: int | None = None) -> int:
    """Mark a version as healthy, as the watch does; the newest where none is named."""
    version = world.version() if version is None else version
    with world.storage.transaction() as tx:
        tx.mark_healthy(HealthyVersion(ENVIRONMENT, FLAG, version, world.clock.now(), "it was"))
    return version


def marked(world: World) -> list[int]:
    with world.storage.read() as reader:
        return [mark.version for mark in reader.healthy_versions(ENVIRONMENT, FLAG)]


def test_a_bad_stage_goes_back_to_the_last_healthy_one_and_off_if_that_turns_bad(
    release: Release,
) -> None:
    """1 % and 5 % are healthy, 25 % is bad: back to 5 %, the same users. Then 5 % is bad: off."""
    world = release.world
    stages = (Stage(1.0, bake_time_s=10.0), Stage(5.0, bake_time_s=10.0))
    release.start(*stages, Stage(25.0, bake_time_s=600.0))
    had = []
    for _ in range(60):
        release.forward(1)
        newest = world.configurations.get(ENVIRONMENT, FLAG)
        if release.percent == 25.0:
            break
        had = newest.configuration.default_serve["split"]["allocation"]
    assert release.percent == 25.0
    healthy_version, bad_version = newest.version - 1, newest.version
    assert marked(world) == [healthy_version, healthy_version - 1]

    hurt(release)
    back = world.configurations.get(ENVIRONMENT, FLAG)
    assert (release.percent, world.is_killed()) == (5.0, False)
    assert (back.action, back.actor, back.version) == ("rollback", "guard", bad_version + 1)
    running = world.guarding.running_evidence(ENVIRONMENT, FLAG)
    assert running is not None, "it is watched from the same moment"
    assert back.configuration.default_serve["split"]["allocation"] == had
    assert back.configuration.guard["on_breach"] == "rollback"
    (report,) = world.evidence()
    assert (report["action"], report["kill"]) == ("rollback", None)
    done = report["rollback"]
    assert (done["from_version"], done["to_version"], done["version"]) == (
        bad_version,
        healthy_version,
        back.version,
    )
    assert (done["from_percent"], done["to_percent"]) == (25.0, 5.0)
    text = page({**report, "notes": []})
    assert "rolled back by the guard" in text
    assert f"version {healthy_version} of the configuration" in " ".join(text.split())
    release.forward(1)
    assert (release.rollout.state, release.rollout.moves[-1].by) == (State.ROLLED_BACK, "guard")

    # Late reports of 25 % are not held against 5 %, and the 5 % are watched anew.
    late = [cell("on", bad_version, exposures=50, failing={BAD: list(range(200, 240))})]
    world.report(release.sequence + 1, late)
    release.sequence += 1
    assert (release.percent, world.is_killed()) == (5.0, False)
    release.forward(30)
    running = world.guarding.running_evidence(ENVIRONMENT, FLAG)
    assert running is not None
    assert running["configuration_version"] == back.version
    assert running["decision"]["kill"] is False

    hurt(release, first_unit=500)
    killed = world.configurations.get(ENVIRONMENT, FLAG).configuration.kill
    assert killed is not None
    assert killed.source is KillSource.GUARD
    kill, rollback = world.evidence()
    assert (kill["action"], rollback["action"]) == ("kill", "rollback")
    assert "had gone back to" in kill["not_rolled_back"]
    assert rollback["not_rolled_back"] is None
    kinds = [told.kind for told in world.told if told.kind not in ("stage", "waiting")]
    assert kinds == ["rollback", "kill"]


def test_without_anything_healthy_the_flag_goes_off(release: Release, world: World) -> None:
    world.release(25_000)
    hurt(release)
    assert world.is_killed()
    (report,) = world.evidence()
    assert (report["action"], report["rollback"]) == ("kill", None)
    assert report["not_rolled_back"] == "no healthy configuration serves less of “on”"


def test_what_was_healthy_with_as_much_is_nothing_to_go_back_to(
    release: Release, world: World
) -> None:
    world.release(50_000)
    mark(world)
    world.release(25_000)
    mark(world)
    hurt(release)
    assert world.is_killed()
    assert marked(world) == [], "what has hurt with 25 % is healthy with no more"


def test_marks_of_less_stay_when_more_has_hurt(release: Release, world: World) -> None:
    world.release(5_000)
    small = mark(world)
    world.release(20_000)
    mark(world)
    world.release(10_000)
    hurt(release)
    assert release.percent == 5.0
    assert marked(world) == [small]


def test_the_policy_of_that_time_does_not_come_back(release: Release, world: World) -> None:
    world.release(5_000, guard={"mode": "off"})
    mark(world)
    world.release(25_000, guard=BACK)
    hurt(release)
    assert release.percent == 5.0
    guard = world.configurations.get(ENVIRONMENT, FLAG).configuration.guard
    assert (guard["mode"], guard["on_breach"]) == ("enforce", "rollback")


def test_a_healthy_version_that_no_longer_fits_is_passed_over(
    release: Release, world: World
) -> None:
    world.release(2_000)
    fitting = mark(world)
    segment = {"attribute": "country", "op": "in", "values": ["NL"]}
    with world.storage.transaction() as tx:
        tx.put_segment(Segment(ENVIRONMENT, "dutch", segment, "", 1, world.clock.now()))
    rule = {"id": "dutch", "condition": {"segment": "dutch"}, "serve": {"variant": "off"}}
    world.release(5_000, rules=[rule])
    mark(world)
    world.release(25_000, rules=[])
    with world.storage.transaction() as tx:
        tx.delete_segment(ENVIRONMENT, "dutch")
    hurt(release)
    assert release.percent == 2.0
    assert world.evidence()[0]["rollback"]["to_version"] == fitting


@pytest.mark.parametrize(
    ("policy", "action"),
    [
        ({"on_breach": "kill"}, "kill"),
        ({"on_breach": "hold"}, "hold"),
        ({"mode": "observe"}, "none"),
    ],
    ids=str,
)
def test_only_the_policy_that_says_so_goes_back(
    release: Release, world: World, policy: dict[str, str], action: str
) -> None:
    world.release(5_000, guard={**BACK, **policy})
    mark(world)
    world.release(25_000)
    hurt(release)
    assert world.evidence()[0]["action"] == action
    assert release.percent == 25.0


def test_rollbacks_count_for_the_brake(release: Release, world: World) -> None:
    flags = [f"flag-{n}" for n in range(1, 7)]
    for flag in flags:
        small = world.release(5_000, flag=flag, guard=BACK)
        with world.storage.transaction() as tx:
            tx.mark_healthy(HealthyVersion(ENVIRONMENT, flag, small, world.clock.now(), ""))
    fail(world, 1, {flag: world.release(25_000, flag=flag) for flag in flags})
    assert [world.evidence(flag)[0]["action"] for flag in flags] == ["rollback"] * 5 + ["braked"]
    world.brakes.release(ENVIRONMENT, actor="ana")
    assert [row["action"] for row in world.evidence("flag-6")] == ["rollback", "braked"]


def test_another_flag_that_shares_the_salt_starts_anew_and_the_rest_are_told(
    release: Release, world: World
) -> None:
    world.release(5_000, flag="other")
    world.release(5_000)
    mark(world)
    world.release(25_000)
    release.traffic()
    world.report(900, [cell("on", world.version("other"), flag="other")], instance="i-9")
    before = world.guarding.running_evidence(ENVIRONMENT, "other")
    hurt(release)
    after = world.guarding.running_evidence(ENVIRONMENT, "other")
    assert before is not None
    assert after is not None
    assert after["life"] == before["life"], "it tosses another coin"
    events = [row for row in _events(world, after["life"]) if "rollback of" in row]
    assert len(events) == 1


def _events(world: World, life: int) -> list[str]:
    with world.storage.read() as reader:
        return [event.document for event in reader.guard_events_after(life, 0)]


def test_a_restart_after_a_rollback_changes_nothing(release: Release, database: str) -> None:
    world = release.world
    world.release(5_000)
    mark(world)
    world.release(25_000)
    hurt(release)
    release.forward(3)
    before = world.guarding.running_evidence(ENVIRONMENT, FLAG)
    world.close()
    again = World(database, world.clock)
    assert again.guarding.running_evidence(ENVIRONMENT, FLAG) == before
    again.close()


def test_a_release_after_a_fix_grows_around_those_who_met_the_fault(
    release: Release, world: World
) -> None:
    """25 % go back to 5 %, and those are bad too: all 25 % have met the fault, and come last."""
    world.release(5_000)
    mark(world)
    world.release(25_000)
    hurt(release)
    hurt(release, first_unit=500)
    killed = world.configurations.get(ENVIRONMENT, FLAG).configuration.kill
    assert killed is not None
    restore = Restore(killed.id, fixed_in=FixedIn("shop", "v42"), leave_out_exposed=True)
    stages = [Stage(2.0, bake_time_s=5.0), Stage(50.0, bake_time_s=5.0), Stage(95.0)]
    release.rollouts.start(ENVIRONMENT, FLAG, Plan(stages=stages), actor="ann", restore=restore)
    seen = []
    for _ in range(60):
        split = world.configurations.get(ENVIRONMENT, FLAG).configuration.default_serve["split"]
        if split["allocation"] not in seen:
            seen.append(split["allocation"])
        release.forward(1)
    assert seen == [
        [[25_000, "off"], [27_000, "on"], [100_000, "off"]],
        [[25_000, "off"], [75_000, "on"], [100_000, "off"]],
        [[20_000, "on"], [25_000, "off"], [100_000, "on"]],
    ]
    assert release.rollout.state is State.COMPLETED
    told = [each.kind for each in world.told if each.kind != "waiting"]
    assert told == ["rollback", "kill", "restore", *["stage"] * 3, "completed"]


def test_a_rollout_that_can_not_start_leaves_the_kill(release: Release, world: World) -> None:
    world.release(25_000)
    kill = world.kills.kill(
        ENVIRONMENT, FLAG, source=KillSource.OPERATOR, reason="bad", actor="bob"
    ).kill
    before = world.version()
    restore = Restore(kill.id, "fixed")
    for plan in (Plan(template="none"), Plan(stages=[Stage(5.0)], to_variant="blue")):
        with pytest.raises(InvalidError) as caught:
            release.rollouts.start(ENVIRONMENT, FLAG, plan, actor="ann", restore=restore)
        assert all(fault.field.startswith("rollout.") for fault in caught.value.faults)
    assert (world.version(), world.is_killed()) == (before, True)


class TestWithoutARollout:
    """A change by hand is healthy once it has stood its hour."""

    @pytest.fixture
    def watch(self, world: World) -> HealthWatch:
        return HealthWatch(world.storage, world.guarding, world.clock, after_s=3_600.0)

    def stand(
        self, release: Release, watch: HealthWatch, minutes: int, *, traffic: bool = True
    ) -> None:
        """Let time pass in steps of ten seconds, so that each has a look."""
        for _ in range(minutes * 6):
            release.now_s += 10
            release.world.clock.forward(9 if traffic else 10)
            if traffic:
                release.traffic(exposures=5)
            watch.tick(release.now_s)

    def test_it_is_marked_after_an_hour_and_not_before(
        self, release: Release, watch: HealthWatch
    ) -> None:
        version = release.world.release(25_000)
        self.stand(release, watch, 59)
        assert marked(release.world) == []
        # The first 240 exposures are not seen yet.
        self.stand(release, watch, 20)
        assert marked(release.world) == [version]
        shown = release.world.configurations.get(ENVIRONMENT, FLAG)
        assert shown.healthy_at is not None
        history = release.world.configurations.history(ENVIRONMENT, FLAG).items
        assert [row.version for row in history if row.healthy_at is not None] == [version]

    def test_silence_is_not_health(self, release: Release, watch: HealthWatch) -> None:
        release.world.release(25_000)
        self.stand(release, watch, 30)
        self.stand(release, watch, 120, traffic=False)
        assert marked(release.world) == []

    def test_a_change_begins_the_hour_anew(self, release: Release, watch: HealthWatch) -> None:
        release.world.release(5_000)
        self.stand(release, watch, 50)
        version = release.world.release(10_000)
        self.stand(release, watch, 50)
        assert marked(release.world) == []
        self.stand(release, watch, 20)
        assert marked(release.world) == [version]

    def test_time_in_which_nobody_looked_does_not_count(
        self, release: Release, watch: HealthWatch
    ) -> None:
        release.world.release(25_000)
        self.stand(release, watch, 12)
        release.now_s += 36_000
        self.stand(release, watch, 1)
        assert marked(release.world) == []

    def test_a_stage_is_marked_by_its_rollout_only(
        self, release: Release, watch: HealthWatch
    ) -> None:
        release.start(Stage(5.0, bake_time_s=86_400.0), Stage(25.0))
        self.stand(release, watch, 90)
        assert marked(release.world) == []


def test_a_stage_that_was_over_before_much_was_served_proves_nothing(
    release: Release, world: World
) -> None:
    """The guard sees from the first stage on; but the second one ends at once."""
    release.start(Stage(1.0, bake_time_s=5.0), Stage(5.0), Stage(25.0, bake_time_s=600.0))
    while release.percent < 5.0:
        release.forward(1)
    (first,) = marked(world)
    release.forward(3, traffic=False)
    assert release.percent == 25.0
    assert marked(world) == [first]


def test_a_stage_without_a_guard_proves_nothing(release: Release, world: World) -> None:
    world.patch(guard={"mode": "off"})
    release.start(Stage(1.0, bake_time_s=5.0), Stage(5.0))
    release.forward(8)
    assert release.percent == 5.0
    assert marked(world) == []

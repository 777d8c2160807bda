import json
from pathlib import Path

import pytest

from flagd_server.domain.configuration import KillSource
from flagd_server.domain.restart import Restore
from flagd_server.domain.telemetry import ErrorKind
from flagd_server.services.flags import NewFlag
from flagd_server.services.lives import SAMPLED_HASHES
from tests.server.services.guarded_world import ENVIRONMENT, FLAG, World, cell

BAD = "error:PaymentError"


@pytest.fixture
def world(database: str):
    world = World(database)
    yield world
    world.close()


def break_treatment(
    world: World, version: int, *, start: int = 1, until: int = 40, first_unit: int = 1, **more
) -> int | None:
    """Report one failing treatment unit a second; return the sequence that killed, if any."""
    for sequence in range(start, until):
        world.report(
            sequence,
            [
                cell("on", version, exposures=5, failing={BAD: [first_unit + sequence]}),
                cell("off", version, exposures=15),
            ],
            **more,
        )
        if world.is_killed():
            return sequence
    return None


def test_a_flag_that_hurts_is_killed_with_its_evidence_in_one_go(world: World) -> None:
    version = world.release()
    assert break_treatment(world, version) is not None

    standing = world.configurations.get(ENVIRONMENT, FLAG)
    kill = standing.configuration.kill
    assert kill is not None
    assert (kill.source, kill.by) == (KillSource.GUARD, "guard")
    with world.storage.read() as reader:
        (evidence,) = reader.list_evidence(ENVIRONMENT, FLAG)
    document = json.loads(evidence.document)
    assert kill.evidence == evidence.id == document["id"]
    assert document["action"] == "kill"
    assert document["decision"]["kill"] is True
    comparison, _latency = document["comparisons"]
    assert comparison["e_value"] >= comparison["threshold"]
    assert comparison["control"]["failing_units"] == 0
    assert {toss["kind"] for toss in comparison["tosses"]} == {BAD}
    assert len(comparison["tosses"]) == comparison["treatment"]["failing_units"]
    assert comparison["path"][-1]["e_value"] == pytest.approx(comparison["e_value"])
    assert [decision[:3] for decision in world.decisions] == [(ENVIRONMENT, FLAG, "enforce")]


def test_a_report_tells_of_the_errors_in_the_very_summary_that_decided(world: World) -> None:
    version = world.release()
    world.report(1, [cell("on", version), cell("off", version)])
    units = list(range(40))
    world.report(
        2,
        [cell("on", version, exposures=40, failing={BAD: units}), cell("off", version)],
        error_kinds=(ErrorKind(FLAG, "on", BAD, "shop:pay:7", 40, "declined"),),
    )
    (report,) = world.evidence()
    assert [(kind["kind"], kind["count"]) for kind in report["error_kinds"]] == [(BAD, 40)]


def test_the_kill_is_announced_after_its_commit(world: World) -> None:
    version = world.release()
    break_treatment(world, version)
    environment, _, event = world.hub.events[-1]
    assert environment == ENVIRONMENT
    assert b'"kill":{' in event


def test_errors_on_both_sides_kill_nothing(world: World) -> None:
    version = world.release()
    for sequence in range(1, 200):
        # One in four of the failing users has the feature, as the hash would deal them.
        side = "on" if sequence % 4 == 0 else "off"
        failing = {"error:TimeoutError": [sequence]}
        world.report(
            sequence,
            [
                cell("on", version, exposures=5, failing=failing if side == "on" else None),
                cell("off", version, exposures=15, failing=failing if side == "off" else None),
            ],
        )
    assert not world.is_killed()
    running = world.guarding.running_evidence(ENVIRONMENT, FLAG)
    assert running is not None
    comparison, _latency = running["comparisons"]
    assert comparison["treatment"]["exposures"] == 5 * 199
    assert comparison["control"]["exposures"] == 15 * 199


def test_observe_reports_once_and_does_not_kill(world: World) -> None:
    version = world.release(guard={"mode": "observe"})
    assert break_treatment(world, version) is None
    with world.storage.read() as reader:
        (evidence,) = reader.list_evidence(ENVIRONMENT, FLAG)
    assert json.loads(evidence.document)["action"] == "none"
    assert [decision[:3] for decision in world.decisions] == [(ENVIRONMENT, FLAG, "observe")]


def test_off_watches_nothing(world: World) -> None:
    version = world.release(guard={"mode": "off"})
    assert break_treatment(world, version) is None
    assert world.guarding.running_evidence(ENVIRONMENT, FLAG) is None


def test_a_client_token_never_feeds_the_guard(world: World) -> None:
    version = world.release()
    assert break_treatment(world, version, kind="client") is None
    with world.storage.read() as reader:
        counted = reader.counts(ENVIRONMENT, FLAG, 0)
    assert sum(row.errors for row in counted) == 39


def test_a_unit_counts_once_whichever_process_reports_it(world: World) -> None:
    version = world.release()
    for sequence in range(1, 60):
        for instance in ("i-1", "i-2"):
            world.report(
                sequence,
                [cell("on", version, failing={BAD: [7]}), cell("off", version)],
                instance=instance,
            )
    assert not world.is_killed()
    running = world.guarding.running_evidence(ENVIRONMENT, FLAG)
    assert running is not None
    assert running["comparisons"][0]["treatment"]["failing_units"] == 1


def test_a_restart_continues_with_the_same_bits(tmp_path: Path) -> None:
    """The second server takes over in the middle; a third sees it all. They agree to the bit."""
    streams = []
    for restart_at in (None, 5):
        path = tmp_path / f"{restart_at}.db"
        world = World(path)
        version = world.release()
        for sequence in range(1, 9):
            world.report(
                sequence,
                [
                    cell("on", version, exposures=5, failing={BAD: [sequence]}),
                    cell("off", version, exposures=15, failing={"error:Old": [100 + sequence]}),
                ],
            )
            if sequence == restart_at:
                world.close()
                world = World(path, world.clock)
        running = world.guarding.running_evidence(ENVIRONMENT, FLAG)
        assert running is not None
        streams.append(running["comparisons"][0]["streams"])
        world.close()
    assert streams[0] == streams[1]


def test_a_restart_after_a_saved_state_continues_with_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flagd_server.services.lives.EVENTS_PER_STATE", 3)
    test_a_restart_continues_with_the_same_bits(tmp_path)


def test_weights_are_announced_and_do_not_end_the_life(world: World) -> None:
    version = world.release(1_000)
    world.report(1, [cell("on", version), cell("off", version)])
    before = world.guarding.running_evidence(ENVIRONMENT, FLAG)
    version = world.release(5_000)
    world.report(2, [cell("on", version, failing={BAD: [1]}), cell("off", version)])
    after = world.guarding.running_evidence(ENVIRONMENT, FLAG)
    assert before is not None
    assert after is not None
    assert before["life"] == after["life"]
    assert after["configuration_version"] == version
    names = {stream["name"] for stream in after["comparisons"][0]["streams"]}
    assert "errors, epoch 1 (weights)" in names


def test_a_new_version_of_the_service_is_announced(world: World) -> None:
    version = world.release()
    world.report(1, [cell("on", version), cell("off", version)])
    world.report(2, [cell("on", version), cell("off", version)], service_version="v2")
    running = world.guarding.running_evidence(ENVIRONMENT, FLAG)
    assert running is not None
    names = {stream["name"] for stream in running["comparisons"][0]["streams"]}
    assert "errors, epoch 1 (version v2 of shop)" in names


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"guard": {"alpha": 0.01}}, id="policy"),
        pytest.param({"guard": {"margin": 1.2}}, id="margin"),
    ],
)
def test_a_change_of_policy_starts_a_new_life(world: World, change: dict) -> None:
    version = world.release()
    world.report(1, [cell("on", version, failing={BAD: [1]}), cell("off", version)])
    before = world.guarding.running_evidence(ENVIRONMENT, FLAG)
    version = world.patch(**change)
    world.report(2, [cell("on", version), cell("off", version)])
    after = world.guarding.running_evidence(ENVIRONMENT, FLAG)
    assert before is not None
    assert after is not None
    assert before["life"] != after["life"]
    assert after["comparisons"][0]["treatment"]["failing_units"] == 0


def test_restored_the_flag_starts_afresh_and_late_reports_of_the_killed_version_are_not_held(
    world: World,
) -> None:
    version = world.release()
    killed_at = break_treatment(world, version)
    assert killed_at is not None
    kill = world.configurations.get(ENVIRONMENT, FLAG).configuration.kill
    assert kill is not None
    restored = world.kills.restore(
        ENVIRONMENT, FLAG, Restore(kill.id, "fixed", keep=True), actor="test"
    )
    late = [cell("on", version, failing={BAD: list(range(500, 560))}), cell("off", version)]
    world.report(killed_at + 1, late)
    assert not world.is_killed()
    again = break_treatment(
        world, restored.version, start=killed_at + 2, until=killed_at + 40, first_unit=1_000
    )
    assert again is not None, "a life after a restore guards as the first one did"


def test_a_killed_flag_opens_an_epoch_for_the_others(world: World) -> None:
    other = world.release(flag="other")
    version = world.release()
    world.report(1, [cell("on", other, flag="other"), cell("off", other, flag="other")])
    break_treatment(world, version, start=2)
    assert world.is_killed()
    running = world.guarding.running_evidence(ENVIRONMENT, "other")
    assert running is not None
    names = {stream["name"] for stream in running["comparisons"][0]["streams"]}
    assert f"errors, epoch 1 (kill of {FLAG})" in names


def test_an_operators_kill_ends_the_life_and_is_announced_to_the_others(world: World) -> None:
    other = world.release(flag="other")
    version = world.release()
    reports = [
        cell("on", other, flag="other"),
        cell("off", other, flag="other"),
        cell("on", version),
        cell("off", version),
    ]
    world.report(1, reports)
    world.kills.kill(
        ENVIRONMENT, FLAG, source=KillSource.OPERATOR, reason="a customer called", actor="ana"
    )
    world.report(2, reports)
    assert world.guarding.running_evidence(ENVIRONMENT, FLAG) is None
    running = world.guarding.running_evidence(ENVIRONMENT, "other")
    assert running is not None
    names = {stream["name"] for stream in running["comparisons"][0]["streams"]}
    assert f"errors, epoch 1 (kill of {FLAG})" in names


def test_an_archived_flag_is_guarded_no_longer(world: World) -> None:
    version = world.release()
    world.report(1, [cell("on", version), cell("off", version)])
    world.flags.update(FLAG, {"archived": True}, actor="test")
    world.report(2, [])
    assert world.guarding.running_evidence(ENVIRONMENT, FLAG) is None


def test_a_life_is_followed_by_a_new_one_after_seven_days(world: World) -> None:
    version = world.release()
    world.report(1, [cell("on", version), cell("off", version)])
    before = world.guarding.running_evidence(ENVIRONMENT, FLAG)
    world.clock.forward(7 * 86_400)
    world.report(2, [cell("on", version), cell("off", version)])
    after = world.guarding.running_evidence(ENVIRONMENT, FLAG)
    assert before is not None
    assert after is not None
    assert before["life"] != after["life"]


def test_three_variants_share_alpha(world: World) -> None:
    world.release()
    world.flags.create(
        NewFlag(key="banner", type="string", variants={"a": "A", "b": "B", "none": ""}),
        actor="test",
    )
    version = world.patch(
        "banner",
        enabled=True,
        default_serve={"split": {"weights": {"a": 20_000, "b": 20_000, "none": 60_000}}},
    )
    cells = [cell(variant, version, flag="banner") for variant in ("a", "b", "none")]
    world.report(1, cells)
    running = world.guarding.running_evidence(ENVIRONMENT, "banner")
    assert running is not None
    assert [c["alpha"] for c in running["comparisons"]] == pytest.approx(
        [0.00035, 0.00015, 0.00035, 0.00015]
    )
    assert {c["control"]["variant"] for c in running["comparisons"]} == {"none"}


class TestWithoutAControl:
    """A flag that everybody has: no split decides, so there is no coin, only the objective."""

    @pytest.fixture
    def version(self, world: World) -> int:
        world.release()
        return world.patch(default_serve={"variant": "on"})

    def report(self, world: World, version: int, seconds: range, errors: int) -> None:
        for second in seconds:
            failing = {"error:Boom": [1_000 * second + n for n in range(errors)]}
            cells = [cell("on", version, exposures=100, failing=failing, split=None)]
            world.report(second, cells)

    def test_nothing_watches_until_the_service_has_an_objective(
        self, world: World, version: int
    ) -> None:
        self.report(world, version, range(1, 20), errors=50)
        assert world.guarding.running_evidence(ENVIRONMENT, FLAG) is None

    def test_a_missed_objective_holds_and_is_reported(self, world: World, version: int) -> None:
        world.slos.put(ENVIRONMENT, "shop", 0.999, actor="test")
        self.report(world, version, range(1, 30), errors=0)
        self.report(world, version, range(30, 60), errors=20)
        running = world.guarding.running_evidence(ENVIRONMENT, FLAG)
        assert running is not None
        assert running["decision"]["hold"]
        assert running["decision"]["guard"] == "availability"
        assert not world.is_killed()
        (service,) = running["availability"]
        assert (service["service"], service["errors"]) == ("shop", 600)

    def test_it_kills_where_the_policy_says_so(self, world: World, version: int) -> None:
        world.slos.put(ENVIRONMENT, "shop", 0.999, actor="test")
        version = world.patch(guard={"on_burn": "kill"})
        self.report(world, version, range(1, 30), errors=20)
        assert world.is_killed()

    def test_another_objective_starts_another_life(self, world: World, version: int) -> None:
        world.slos.put(ENVIRONMENT, "shop", 0.999, actor="test")
        self.report(world, version, range(1, 3), errors=0)
        before = world.guarding.running_evidence(ENVIRONMENT, FLAG)
        world.slos.put(ENVIRONMENT, "shop", 0.99, actor="test")
        self.report(world, version, range(3, 5), errors=0)
        after = world.guarding.running_evidence(ENVIRONMENT, FLAG)
        assert before is not None
        assert after is not None
        assert after["life"] > before["life"]
        assert after["availability"][0]["objective"] == 0.99

    def test_without_objectives_the_life_ends(self, world: World, version: int) -> None:
        world.slos.put(ENVIRONMENT, "shop", 0.999, actor="test")
        self.report(world, version, range(1, 3), errors=0)
        world.slos.delete(ENVIRONMENT, "shop", actor="test")
        self.report(world, version, range(3, 5), errors=0)
        assert world.guarding.running_evidence(ENVIRONMENT, FLAG) is None


def test_fewer_units_are_asked_for_once_every_life_has_enough_of_them(world: World) -> None:
    version = world.release()

    def sample(sequence: int, flag: str, of: int) -> int:
        units = tuple(f"{n * 0x9E3779B97F4A7C15 % (1 << 62):016x}" for n in range(of))
        exposed = cell("off", of_version[flag], exposures=of, flag=flag)._replace(units={})
        cells = [exposed._replace(units={"exposed": units})]
        return world.report(sequence, cells).exposed_below

    of_version = {FLAG: version}
    assert sample(1, FLAG, 100) == SAMPLED_HASHES
    sample(2, FLAG, 10_001)
    thinned = sample(3, FLAG, 1)
    assert thinned < SAMPLED_HASHES
    # Another flag has none yet, and must not go without.
    of_version["banner"] = world.release(flag="banner")
    assert sample(4, "banner", 1) == SAMPLED_HASHES
    world.patch("banner", enabled=False, guard={"mode": "off"})
    sample(5, FLAG, 1)
    assert sample(6, FLAG, 1) == thinned

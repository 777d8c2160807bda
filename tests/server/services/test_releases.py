"""Versions that report become deployments, and flags belong to the version that brought them."""

from pathlib import Path

import pytest

from flagd_server.services.deployments import brought_by
from tests.server.services.deployed_world import DeployedWorld
from tests.server.services.guarded_world import ENVIRONMENT, FLAG, cell


@pytest.fixture
def world(database: str):
    world = DeployedWorld(database)
    yield world
    world.close()


def brought(world: DeployedWorld, version: str, service: str = "shop") -> list[str]:
    with world.storage.read() as reader:
        deployment = reader.deployment_of(ENVIRONMENT, service, version)
        assert deployment is not None
        return brought_by(reader.first_served(ENVIRONMENT), deployment)


def test_a_version_that_reports_is_a_deployment_from_then_on(world: DeployedWorld) -> None:
    version = world.release()
    world.report(1, [cell("on", version)])
    first_seen = world.clock.now()
    world.report(2, [cell("on", version)])
    (found,) = world.deployments.list(limit=9).items
    assert (found.service, found.version, found.source) == ("shop", "v1", "telemetry")
    assert (found.image, found.registered_at) == (None, None)
    assert found.first_seen_at == first_seen


def test_a_process_that_served_nothing_yet_is_at_work_too(world: DeployedWorld) -> None:
    world.release()
    world.report(1, [], service_version="v7")
    assert world.deployed() == [("shop", "v7", "telemetry")]


@pytest.mark.parametrize("names", [{"service": ""}, {"service_version": ""}])
def test_what_has_no_name_is_no_deployment(world: DeployedWorld, names: dict[str, str]) -> None:
    version = world.release()
    world.report(1, [cell("on", version)], **names)
    assert world.deployed() == []


def test_devices_of_people_deploy_nothing(world: DeployedWorld) -> None:
    version = world.release()
    world.report(1, [cell("on", version)], kind="client")
    assert world.deployed() == []


def test_a_registered_version_is_completed_when_it_is_seen(world: DeployedWorld) -> None:
    version = world.release()
    registered = world.register("v2")
    assert registered.first_seen_at is None
    world.report(1, [cell("on", version)], service_version="v2")
    (found,) = world.deployments.list(limit=9).items
    assert found.id == registered.id
    assert found.image == registered.image
    assert found.first_seen_at == world.clock.now()


def test_a_flag_belongs_to_the_version_that_served_it_first(world: DeployedWorld) -> None:
    old = world.release(flag="old")
    world.report(1, [cell("on", old, flag="old")])
    new = world.release(flag="new")
    cells = [cell("on", old, flag="old"), cell("on", new, flag="new")]
    world.report(1, cells, instance="i-2", service_version="v2")
    assert brought(world, "v1") == ["old"]
    assert brought(world, "v2") == ["new"]


def test_a_flag_of_old_and_new_alike_is_the_old_ones_whoever_reports_first(
    world: DeployedWorld,
) -> None:
    old = world.release(flag="old")
    world.report(1, [cell("on", old, flag="old")])
    rare = world.release(flag="rare")
    world.report(1, [cell("on", rare, flag="rare")], instance="i-2", service_version="v2")
    assert brought(world, "v2") == ["rare"]
    world.report(2, [cell("on", rare, flag="rare")])
    assert brought(world, "v2") == []
    assert brought(world, "v1") == ["old", "rare"]


def test_registering_first_does_not_make_a_version_the_older_one(world: DeployedWorld) -> None:
    version = world.release()
    world.register("v2")
    world.report(1, [cell("on", version)])
    world.report(1, [cell("on", version)], instance="i-2", service_version="v2")
    assert brought(world, "v1") == [FLAG]
    assert brought(world, "v2") == []


def test_a_clock_that_is_set_back_makes_no_version_older(world: DeployedWorld) -> None:
    version = world.release()
    world.report(1, [cell("on", version)])
    world.clock.forward(-3_600)
    world.report(1, [cell("on", version)], instance="i-2", service_version="v2")
    assert brought(world, "v1") == [FLAG]
    assert brought(world, "v2") == []


def test_a_flag_that_another_service_had_before_is_not_brought(world: DeployedWorld) -> None:
    version = world.release()
    world.report(1, [cell("on", version)], service="till", service_version="t1")
    world.report(1, [cell("on", version)], instance="i-2", service_version="v2")
    assert brought(world, "v2") == []
    assert brought(world, "t1", "till") == [FLAG]


def test_a_flag_that_two_services_bring_together_is_brought_by_both(world: DeployedWorld) -> None:
    world.release()
    world.report(1, [], service="till", service_version="t1")
    world.report(1, [], instance="i-2", service_version="v2")
    version = world.version()
    world.report(2, [cell("on", version)], service="till", service_version="t1")
    world.report(2, [cell("on", version)], instance="i-2", service_version="v2")
    assert brought(world, "v2") == brought(world, "t1", "till") == [FLAG]


def test_what_is_known_costs_no_write_and_a_restart_forgets_nothing(tmp_path: Path) -> None:
    path = tmp_path / "again.db"
    world = DeployedWorld(path)
    version = world.release()
    world.report(1, [cell("on", version)])
    with world.storage.read() as reader:
        before = (reader.deployments(9), reader.first_served(ENVIRONMENT))
    world.close()
    world = DeployedWorld(path, world.clock)
    world.report(2, [cell("on", version)])
    with world.storage.read() as reader:
        assert (reader.deployments(9), reader.first_served(ENVIRONMENT)) == before
    world.close()


def test_invented_versions_meet_a_limit_and_raise_an_alarm(
    world: DeployedWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "flagd_server.services.releases.DEPLOYMENTS_OF_ENVIRONMENT",
        type("Rate", (), {"per_s": 0.0, "burst": 3.0})(),
    )
    version = world.release()
    world.register("v-known")
    for number in range(6):
        world.report(1, [cell("on", version)], instance=f"i-{number}", service_version=f"x{number}")
    assert [row[1] for row in world.deployed()] == ["v-known", "x0", "x1", "x2"]
    assert (ENVIRONMENT, "deployments") in world.capped
    assert brought(world, "x0") == [FLAG]
    world.report(1, [cell("on", version)], instance="i-9", service_version="v-known")
    (known,) = (each for each in world.deployments.list(limit=9).items if each.image)
    assert known.first_seen_at is not None, "what tooling registered is no invention"


def test_a_deleted_environment_leaves_nothing_to_the_one_of_its_name(world: DeployedWorld) -> None:
    version = world.release()
    for sequence in (1, 2):
        world.report(sequence, [cell("on", version)])
    world.environments.delete(ENVIRONMENT, actor="test")
    assert world.deployments.list(limit=9).items == ()
    version = world.release()
    world.report(3, [cell("on", version)])
    assert brought(world, "v1") == [FLAG]

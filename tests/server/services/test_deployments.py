"""Artefacts are immutable, and what a version brought goes off together."""

from collections.abc import Iterator

import pytest

from flagd_server.domain.configuration import KillSource
from flagd_server.errors import ConflictError, InvalidError, NotFoundError
from flagd_server.services.audit import Audit
from flagd_server.services.deployments import NewDeployment
from tests.server.services.deployed_world import DIGEST, OTHER_DIGEST, DeployedWorld
from tests.server.services.guarded_world import ENVIRONMENT, cell


@pytest.fixture
def world(database: str) -> Iterator[DeployedWorld]:
    world = DeployedWorld(database)
    world.environments.create(ENVIRONMENT, "Production", actor="test")
    world.environments.create("staging", "Staging", actor="test")
    yield world
    world.close()


def test_the_same_again_changes_nothing(world: DeployedWorld) -> None:
    first = world.register(commit="3f2c1ab", url="https://ci/1")
    assert (first.registered_by, first.source) == ("pipeline", "registered")
    world.clock.forward(60)
    new = NewDeployment(
        ENVIRONMENT, "shop", "v2", f"shop@{DIGEST}", commit="3f2c1ab", url="https://ci/1"
    )
    again = world.deployments.register(new, actor="somebody else")
    assert again.is_new is False
    assert again.deployment == first
    entries = Audit(world.storage).list(9).items
    assert [entry.action for entry in entries].count("deployment.register") == 1
    assert entries[0].target == f"deployments/{first.id}"
    assert entries[0].detail["image"] == f"shop@{DIGEST}"


def test_another_digest_is_refused_and_the_registered_one_named(world: DeployedWorld) -> None:
    world.register()
    with pytest.raises(ConflictError, match=DIGEST):
        world.register(image=f"shop@{OTHER_DIGEST}")
    assert world.register(version="v3", image=f"shop@{OTHER_DIGEST}").image is not None


def test_what_is_promoted_is_the_same_artefact(world: DeployedWorld) -> None:
    world.register(environment="staging")
    with pytest.raises(ConflictError, match="staging"):
        world.register(image=f"shop@{OTHER_DIGEST}")
    promoted = world.register(image=f"mirror/shop:v2@{DIGEST}")
    assert promoted.environment == ENVIRONMENT


def test_another_commit_of_the_same_bytes_is_refused(world: DeployedWorld) -> None:
    world.register(environment="staging", commit="3f2c1ab")
    with pytest.raises(ConflictError, match="3f2c1ab"):
        world.register(commit="0000000")
    assert world.register().commit is None
    assert world.register(commit="3f2c1ab").commit == "3f2c1ab"


def test_a_version_seen_at_work_is_completed(world: DeployedWorld) -> None:
    world.report(1, [], service_version="v2")
    seen_at = world.clock.now()
    world.clock.forward(5)
    new = NewDeployment(ENVIRONMENT, "shop", "v2", f"shop@{DIGEST}")
    completed = world.deployments.register(new, actor="pipeline")
    assert completed.is_new is False
    assert completed.deployment.source == "registered"
    assert completed.deployment.first_seen_at == seen_at
    assert completed.deployment.registered_at == world.clock.now()


def test_every_fault_is_named(world: DeployedWorld) -> None:
    with pytest.raises(InvalidError) as caught:
        world.register(environment="nowhere", image="shop:latest")
    assert [fault.field for fault in caught.value.faults] == ["environment", "image"]
    assert world.deployments.list(limit=9).items == ()


def test_lists_are_paged_and_filtered(world: DeployedWorld) -> None:
    versions = [world.register(version=f"v{n}", image=f"s@sha256:{n:064x}") for n in range(4)]
    world.register(environment="staging", version="v0", image=f"s@sha256:{0:064x}")
    first = world.deployments.list(environment=ENVIRONMENT, limit=3)
    assert list(first.items) == versions[:0:-1]
    rest = world.deployments.list(environment=ENVIRONMENT, limit=3, before=first.next)
    assert list(rest.items) == versions[:1]
    assert rest.next is None
    assert len(world.deployments.list(service="shop", limit=9).items) == 5
    assert world.deployments.list(service="till", limit=9).items == ()
    with pytest.raises(NotFoundError):
        world.deployments.list(environment="nowhere", limit=9)


@pytest.fixture
def shop(world: DeployedWorld) -> DeployedWorld:
    """v1 serves "old"; v2 serves it too and brought "new" and "newer"."""
    old = world.release(flag="old")
    world.report(1, [cell("on", old, flag="old")])
    flags = {key: world.release(flag=key) for key in ("new", "newer")}
    cells = [cell("on", version, flag=key) for key, version in flags.items()]
    world.report(1, [*cells, cell("on", old, flag="old")], instance="i-2", service_version="v2")
    return world


def killed_flags(world: DeployedWorld) -> list[str]:
    return [key for key in ("new", "newer", "old") if world.is_killed(key)]


def test_a_deployments_kill_takes_what_it_brought_and_nothing_else(shop: DeployedWorld) -> None:
    shop.kills.kill(ENVIRONMENT, "newer", source=KillSource.OPERATOR, reason="mine", actor="ann")
    (v2,) = (each for each in shop.deployments.list(limit=9).items if each.version == "v2")
    environment, killed = shop.deployments.kill(v2.id, reason="orders fail", actor="pipeline")
    assert environment == ENVIRONMENT
    assert [(each.flag, each.killed.already) for each in killed] == [
        ("new", False),
        ("newer", True),
    ]
    kill = killed[0].killed.kill
    assert (kill.source, kill.by, kill.reason) == (KillSource.DEPLOYMENT, "pipeline", "orders fail")
    assert killed[1].killed.kill.by == "ann"
    assert killed_flags(shop) == ["new", "newer"]
    _, again = shop.deployments.kill(v2.id, reason="again", actor="x")
    assert [each.killed.already for each in again] == [True, True]
    assert again[0].killed.kill == kill
    with pytest.raises(NotFoundError):
        shop.deployments.kill("dp-0", reason="r", actor="x")


def test_a_dry_run_says_it_and_does_nothing(shop: DeployedWorld) -> None:
    named = {"service": "shop", "version": "v2", "reason": "r", "actor": "x"}
    events = len(shop.hub.events)
    dry = shop.deployments.kill_version(ENVIRONMENT, **named, is_dry_run=True)
    assert [(each.flag, each.killed) for each in dry] == [("new", None), ("newer", None)]
    assert killed_flags(shop) == []
    assert len(shop.hub.events) == events
    shop.deployments.kill_version(ENVIRONMENT, **named)
    assert killed_flags(shop) == ["new", "newer"]
    with pytest.raises(NotFoundError, match="shop v9"):
        shop.deployments.kill_version(ENVIRONMENT, **{**named, "version": "v9"})


def test_an_archived_flag_is_left_out(shop: DeployedWorld) -> None:
    shop.flags.update("new", {"archived": True}, expected_version=1, actor="ann")
    killed = shop.deployments.kill_version(ENVIRONMENT, "shop", "v2", reason="r", actor="x")
    assert [each.flag for each in killed] == ["newer"]


def test_a_tag_takes_every_flag_that_carries_it(shop: DeployedWorld) -> None:
    for key in ("old", "new"):
        shop.flags.update(key, {"tags": ["checkout"]}, expected_version=1, actor="ann")
    killed = shop.deployments.kill_tag(
        ENVIRONMENT, "checkout", source=KillSource.ALERT, reason="r", actor="alertmanager"
    )
    assert [each.flag for each in killed] == ["new", "old"]
    assert {each.killed.kill.source for each in killed} == {KillSource.ALERT}
    assert killed_flags(shop) == ["new", "old"]
    assert shop.configurations.get("staging", "new").configuration.kill is None
    assert shop.deployments.kill_tag(ENVIRONMENT, "none", reason="r", actor="x") == []
    with pytest.raises(NotFoundError):
        shop.deployments.kill_tag("nowhere", "checkout", reason="r", actor="x")


def test_a_kill_that_fails_in_the_middle_takes_nothing(
    shop: DeployedWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill_in = shop.kills.kill_in
    pressed = []

    def fail_at_the_second(*arguments, **named):
        pressed.append(arguments)
        if len(pressed) == 2:
            raise RuntimeError("the disk")
        return kill_in(*arguments, **named)

    monkeypatch.setattr(shop.kills, "kill_in", fail_at_the_second)
    with pytest.raises(RuntimeError):
        shop.deployments.kill_version(ENVIRONMENT, "shop", "v2", reason="r", actor="x")
    assert killed_flags(shop) == []

"""Flag or version? Simulated shops report through the real ingestion to the real guard."""

from collections.abc import Iterator, Mapping

import pytest

from flagd_server.domain.configuration import KillSource
from flagd_server.domain.deployment_health import SloWord
from flagd_server.domain.guard.deployment_verdict import CountedBy
from flagd_server.domain.guard.verdict_table import Word
from flagd_server.domain.health import Health
from flagd_server.errors import NotFoundError
from tests.server.services.deployed_world import DeployedWorld, Fails, Shop
from tests.server.services.guarded_world import ENVIRONMENT, cell

SERVES = {"v1": ["old"], "v2": ["old", "new"]}
CANARY = {"v1": 0.7, "v2": 0.3}


@pytest.fixture
def world(database: str) -> Iterator[DeployedWorld]:
    world = DeployedWorld(database)
    for flag in ("new", "old"):
        world.release(flag=flag)
    yield world
    world.close()


def open_shop(
    world: DeployedWorld,
    fails: Fails,
    *,
    seed: str = "a",
    serves: Mapping[str, list[str]] = SERVES,
    alone_for: int = 5,
) -> Shop:
    """Open with v1 alone, then bring v2 to a part of the traffic."""
    shop = Shop(world, seed, serves, {"v1": 1.0}, fails)
    shop.run(alone_for)
    shop.shares = CANARY
    return shop


def killed(world: DeployedWorld) -> list[str]:
    return [flag for flag in ("new", "old") if world.is_killed(flag)]


@pytest.mark.parametrize("seed", ["a", "b", "c"])
def test_a_bad_version_with_healthy_flags_is_named_and_kills_no_flag(
    world: DeployedWorld, seed: str
) -> None:
    shop = open_shop(world, lambda version, on: 0.05 if version == "v2" else 0.005, seed=seed)
    shop.run(30)
    bad, good = world.state("v2"), world.state("v1")
    assert killed(world) == []
    assert (bad.blame.verdict.word, bad.blame.verdict.flags) == (Word.VERSION, ())
    assert "v2 fails" in bad.blame.verdict.reasons[0]
    assert bad.blame.service is not None
    assert bad.blame.service.other == "v1"
    assert bad.blame.service.comparison.low > 2
    assert bad.health is Health.UNHEALTHY
    assert good.blame.verdict.word is Word.NEITHER
    assert [(each.check, each.word) for each in bad.checks] == [
        ("traffic", Health.HEALTHY),
        ("verdict", Health.UNHEALTHY),
        ("flag new", Health.HEALTHY),
    ]


@pytest.mark.parametrize("seed", ["a", "b", "c"])
def test_a_bad_flag_in_a_good_version_is_killed_and_the_version_is_not_blamed(
    world: DeployedWorld, seed: str
) -> None:
    shop = open_shop(world, lambda version, on: 0.2 if "new" in on else 0.005, seed=seed)
    shop.run(40)
    assert killed(world) == ["new"]
    state = world.state("v2")
    assert (state.blame.verdict.word, state.blame.verdict.flags) == (Word.FLAG, ("new",))
    assert state.health is Health.UNHEALTHY
    (brought,) = state.flags
    assert brought.state.off is not None
    assert "killed by guard" in brought.state.off
    assert len(brought.decisions) == 1
    assert world.state("v1").blame.verdict.word in (Word.CANNOT_TELL, Word.NEITHER)


def test_what_a_flag_did_before_its_kill_is_not_counted_against_the_version(
    world: DeployedWorld,
) -> None:
    """For half an hour nobody watched the flag, and the other one saw the version fail."""
    world.patch("new", guard={"mode": "off"})
    shop = open_shop(world, lambda version, on: 0.2 if "new" in on else 0.005)
    shop.run(30)
    assert world.state("v2").blame.verdict.word is Word.VERSION
    world.patch("new", guard={"mode": "enforce"})
    shop.run(20)
    assert killed(world) == ["new"]
    verdict = world.state("v2").blame.verdict
    assert (verdict.word, verdict.flags) == (Word.FLAG, ("new",))


def test_a_bad_flag_in_a_bad_version_are_both_to_blame(world: DeployedWorld) -> None:
    def fails(version: str, on: frozenset[str]) -> float:
        return 0.2 if "new" in on else 0.04 if version == "v2" else 0.005

    open_shop(world, fails).run(40)
    assert killed(world) == ["new"]
    verdict = world.state("v2").blame.verdict
    assert (verdict.word, verdict.flags) == (Word.BOTH, ("new",))
    assert "since then" in verdict.reasons[1]


def test_a_flag_that_hurts_on_the_new_version_alone_says_so(world: DeployedWorld) -> None:
    def fails(version: str, on: frozenset[str]) -> float:
        return 0.25 if "old" in on and version == "v2" else 0.02

    open_shop(world, fails, serves={"v1": ["old"], "v2": ["old"]}, alone_for=60).run(20)
    assert killed(world) == ["old"]
    assert world.state("v2").blame.verdict.word is Word.FLAG_HERE
    assert world.state("v1").blame.verdict.word not in (Word.FLAG, Word.FLAG_HERE, Word.BOTH)


def test_a_healthy_release_is_blamed_for_nothing(world: DeployedWorld) -> None:
    shop = open_shop(world, lambda version, on: 0.03)
    words = set()
    for _ in range(8):
        shop.run(10)
        words.add(world.state("v2").blame.verdict.word)
    assert words <= {Word.CANNOT_TELL, Word.NEITHER}
    state = world.state("v2")
    assert (state.blame.verdict.word, state.health) == (Word.NEITHER, Health.HEALTHY)


@pytest.mark.parametrize("seed", range(4))
def test_users_who_always_fail_blame_no_version_where_only_requests_are_counted(
    world: DeployedWorld, seed: int
) -> None:
    for flag in ("new", "old"):
        world.patch(flag, guard={"mode": "off"})
    shop = open_shop(world, lambda version, on: 0.02, seed=f"unguarded {seed}")
    shop.broken_users = 10
    for _ in range(4):
        shop.run(10)
        state = world.state("v2")
        assert state.blame.verdict.word in (Word.CANNOT_TELL, Word.NEITHER)
    assert state.blame.service is not None
    assert state.blame.service.counted_by is CountedBy.REQUESTS


def test_without_a_guard_a_bad_version_is_found_by_its_requests(world: DeployedWorld) -> None:
    for flag in ("new", "old"):
        world.patch(flag, guard={"mode": "off"})
    open_shop(world, lambda version, on: 0.06 if version == "v2" else 0.005).run(40)
    state = world.state("v2")
    assert state.blame.verdict.word is Word.VERSION
    assert state.blame.service is not None
    assert state.blame.service.counted_by is CountedBy.REQUESTS


def test_the_figures_are_those_of_the_last_ten_minutes(world: DeployedWorld) -> None:
    open_shop(world, lambda version, on: 0.02 if version == "v2" else 0.0, alone_for=30).run(20)
    state = world.state("v2")
    # The minute that has just begun is empty: nine full ones are in the window.
    assert state.requests.own in (9 * 120, 10 * 120)
    assert state.requests.share == pytest.approx(0.3)
    assert (state.processes.own, state.processes.of_service) == (1, 2)
    assert state.traffic.error_rate == pytest.approx(0.02, abs=0.02)
    assert state.traffic.latency_ms(0.5) == pytest.approx(4.6, rel=0.01)
    assert state.traffic.latency_ms(0.999) == pytest.approx(147, rel=0.01)


def test_a_met_objective_has_the_word_where_nearly_nothing_fails(world: DeployedWorld) -> None:
    shop = open_shop(world, lambda version, on: 0.0005)
    shop.run(30)
    state = world.state("v2")
    assert (state.blame.verdict.word, state.health) == (Word.CANNOT_TELL, Health.INCONCLUSIVE)
    assert "with an objective" in state.checks[1].detail
    world.slos.put(ENVIRONMENT, "shop", 0.995, actor="ann")
    state = world.state("v2")
    assert state.slo is not None
    assert (state.slo.word, state.slo.exposures) == (SloWord.MET, 3_600)
    assert state.health is Health.HEALTHY


def test_a_missed_objective_is_unhealthy(world: DeployedWorld) -> None:
    world.slos.put(ENVIRONMENT, "shop", 0.995, actor="ann")
    open_shop(world, lambda version, on: 0.05).run(10)
    state = world.state("v2")
    assert state.slo is not None
    assert state.slo.word is SloWord.MISSED
    assert state.slo.burn_rate == pytest.approx(10, rel=0.5)
    assert state.health is Health.UNHEALTHY


def test_a_registered_version_that_nobody_runs_is_inconclusive(world: DeployedWorld) -> None:
    world.register("v9")
    state = world.state("v9")
    assert (state.requests.own, state.requests.share, state.processes.share) == (0, None, None)
    assert state.health is Health.INCONCLUSIVE
    health, checks = world.states.deployment_health(ENVIRONMENT, "shop", "v8")
    assert health is Health.INCONCLUSIVE
    assert "register it" in checks[0].detail
    with pytest.raises(NotFoundError):
        world.states.deployment_health("nowhere", "shop", "v8")


@pytest.mark.parametrize("source", [KillSource.OPERATOR, KillSource.ALERT])
def test_a_flag_that_it_brought_and_someone_killed_is_unhealthy_until_it_is_restored(
    world: DeployedWorld, source: KillSource
) -> None:
    open_shop(world, lambda version, on: 0.03).run(60)
    done = world.kills.kill(ENVIRONMENT, "new", source=source, reason="orders fail", actor="ann")
    health, checks = world.states.deployment_health(ENVIRONMENT, "shop", "v2")
    assert health is Health.UNHEALTHY
    assert [each.detail for each in checks if each.word is Health.UNHEALTHY] == [
        f"it is off: killed by ann at {done.kill.to_document()['at']}: orders fail"
    ]
    world.flags.update("new", {"archived": True}, expected_version=1, actor="ann")
    assert world.states.deployment_health(ENVIRONMENT, "shop", "v2")[0] is Health.HEALTHY


def test_a_flag_that_everybody_has_is_not_blindness(world: DeployedWorld) -> None:
    world.slos.put(ENVIRONMENT, "shop", 0.99, actor="ann")
    version = world.patch("new", default_serve={"variant": "on"})
    everybody = cell("on", version, flag="new", split=None)
    world.report(1, [everybody], service_version="v2")
    assert world.guarding.running_evidence(ENVIRONMENT, "new") is not None
    checks = {each.check: each for each in world.state("v2").checks}
    assert checks["flag new"].word is Health.HEALTHY


def test_a_guard_that_cannot_see_is_inconclusive(world: DeployedWorld) -> None:
    version = world.version("new")
    world.report(1, [cell("on", version, flag="new")], service_version="v2")
    checks = {each.check: each for each in world.state("v2").checks}
    assert checks["flag new"].word is Health.INCONCLUSIVE
    assert "can't see" in checks["flag new"].detail

"""One of two tokens that report a flag forges failures, through the whole way in."""

import pytest

from tests.server.services.guarded_world import ENVIRONMENT, FLAG, World, cell

BAD = "error:PaymentError"
HONEST = [f"i-{number}" for number in range(4)]


@pytest.fixture
def world(database: str):
    world = World(database)
    yield world
    world.close()


def serve(world: World, version: int, seconds: range, *, is_faulty: bool = False) -> None:
    """Report a second at a time, the honest processes in turn, 20 exposures each."""
    for second in seconds:
        failing = {BAD: [1_000_000 + second]} if is_faulty else {}
        world.report(
            second,
            [cell("on", version, exposures=5, failing=failing), cell("off", version, exposures=15)],
            instance=HONEST[second % len(HONEST)],
        )
        if world.is_killed():
            return


def forge(world: World, version: int, variant: str, seconds: range) -> None:
    for second in seconds:
        units = list(range(second * 1_000, second * 1_000 + 200))
        world.report(
            second,
            [cell(variant, version, exposures=200, failing={"error:Forged": units})],
            instance=f"evil-{second}",
            token="tok-leaked",
        )


@pytest.mark.parametrize("variant", ["on", "off"])
def test_it_kills_nothing_is_told_and_does_not_shield_a_real_fault(
    world: World, variant: str
) -> None:
    version = world.release()
    serve(world, version, range(1, 51))
    forge(world, version, variant, range(51, 80))
    serve(world, version, range(80, 100))
    assert not world.is_killed()
    assert (ENVIRONMENT, "poisoned_telemetry") in world.raised
    running = world.guarding.running_evidence(ENVIRONMENT, FLAG)
    assert running is not None
    assert ("token", "tok-leaked") in {(row["who"], row["name"]) for row in running["set_aside"]}
    errors = running["comparisons"][0]
    assert (errors["treatment"]["failing_units"], errors["control"]["failing_units"]) == (0, 0)
    assert errors["treatment"]["exposures"] == 5 * 70
    serve(world, version, range(100, 140), is_faulty=True)
    assert world.is_killed()
    (evidence,) = world.evidence()
    assert {toss["instance"] for toss in evidence["comparisons"][0]["tosses"]} <= set(HONEST)

"""A server's services with deployments, and two versions of a shop that report to them."""

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from random import Random

from flagd_server.domain.telemetry import Cell
from flagd_server.services.deployment_states import DeploymentState, DeploymentStates
from flagd_server.services.deployments import Deployments, NewDeployment
from flagd_server.services.publishing import Publisher
from flagd_server.storage.release_records import Deployment
from tests.server.services.guarded_world import ENVIRONMENT, FakeClock, World

DIGEST = "sha256:" + "0a" * 32
OTHER_DIGEST = "sha256:" + "0b" * 32


class DeployedWorld(World):
    def __init__(self, path: Path, clock: FakeClock | None = None) -> None:
        super().__init__(path, clock)
        publisher = Publisher(self.clock)
        self.deployments = Deployments(self.storage, publisher, self.kills)
        self.states = DeploymentStates(self.storage, self.guarding, self.receipts, self.clock)
        self.sequence = 0

    def register(
        self,
        version: str = "v2",
        service: str = "shop",
        environment: str = ENVIRONMENT,
        image: str = f"shop@{DIGEST}",
        **more: str,
    ) -> Deployment:
        new = NewDeployment(environment, service, version, image, **more)
        return self.deployments.register(new, actor="pipeline").deployment

    def state(self, version: str, service: str = "shop") -> DeploymentState:
        with self.storage.read() as reader:
            deployment = reader.deployment_of(ENVIRONMENT, service, version)
        assert deployment is not None
        return self.states.get(deployment.id)

    def deployed(self) -> list[tuple[str, str, str]]:
        """Return (service, version, source) of each, in order."""
        found = self.deployments.list(environment=ENVIRONMENT, limit=200).items
        return [(each.service, each.version, each.source) for each in reversed(found)]


Fails = Callable[[str, frozenset[str]], float]
"""(version, flags that are on for the user) → probability that the request fails."""
UNITS = 20_000


class Shop:
    """Processes of several versions that serve the same users, and report once a minute each.

    Args:
        serves: version → the flags that its code asks for.
        shares: version → its share of the requests.
        broken_users: so many always fail; a tenth of the requests is theirs, whatever is served.
    """

    def __init__(
        self,
        world: DeployedWorld,
        seed: str,
        serves: Mapping[str, list[str]],
        shares: Mapping[str, float],
        fails: Fails,
        broken_users: int = 0,
    ) -> None:
        self.world = world
        self.random = Random(seed)
        self.serves = serves
        self.shares = shares
        self.fails = fails
        self.broken_users = broken_users

    def run(self, minutes: int, requests: int = 400) -> None:
        for _ in range(minutes):
            self.world.sequence += 1
            for version, share in self.shares.items():
                self._minute(version, round(requests * share))
            self.world.clock.forward(60 - len(self.shares))

    def _minute(self, version: str, requests: int) -> None:
        flags = self.serves[version]
        killed = {flag for flag in flags if self.world.is_killed(flag)}
        exposures = {(flag, variant): 0 for flag in flags for variant in ("on", "off")}
        failing: dict[tuple[str, str], list[int]] = {key: [] for key in exposures}
        for _ in range(requests):
            is_theirs = self.broken_users and self.random.random() < 0.1
            unit = self.random.randrange(self.broken_users if is_theirs else UNITS)
            on = frozenset(f for f in flags if f not in killed and _is_on(f, unit))
            has_failed = is_theirs or self.random.random() < self.fails(version, on)
            for flag in flags:
                key = flag, "on" if flag in on else "off"
                exposures[key] += 1
                if has_failed:
                    failing[key].append(unit)
        cells = []
        for (flag, variant), count in exposures.items():
            units = failing[flag, variant]
            if count:
                hashes = tuple({f"{unit * 0x9E3779B97F4A7C15 % (1 << 64):016x}" for unit in units})
                cells.append(
                    Cell(
                        flag=flag,
                        split=None if flag in killed else "default",
                        variant=variant,
                        config_version=self.world.version(flag),
                        exposures=count,
                        errors=len(units),
                        latency={80: count - len(units), 120: len(units)} if units else {80: count},
                        units={"error:PaymentError": hashes} if units else {},
                    )
                )
        self.world.report(
            self.world.sequence, cells, instance=f"i-{version}", service_version=version
        )


@cache
def _is_on(flag: str, unit: int) -> bool:
    return Random(f"{flag} {unit}").random() < 0.25

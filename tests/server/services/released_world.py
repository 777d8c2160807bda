"""A guarded world whose flag is rolled out, on a clock that a test moves."""

from pathlib import Path
from typing import Any

from flagd_server.domain.release import Plan
from flagd_server.domain.rollout import Move, Rollout
from flagd_server.domain.stages import Stage
from flagd_server.services.publishing import Publisher
from flagd_server.services.rollout_moves import RolloutMoves
from flagd_server.services.rollout_watch import RolloutWatch
from flagd_server.services.rollouts import Rollouts
from tests.server.services.guarded_world import ENVIRONMENT, FLAG, World, cell

STAGES = (Stage(1.0, bake_time_s=10.0), Stage(5.0, bake_time_s=10.0), Stage(25.0))


class Release:
    """A world with a flag, and what rolls it out. Time passes only by `forward`."""

    def __init__(self, path: Path, world: World | None = None) -> None:
        self.world = world or World(path)
        self.told = self.world.told
        publisher = Publisher(self.world.clock)
        self.gates = Gates()
        moves = RolloutMoves(publisher, self.world.guarding, self.gates, self, self.world)
        self.rollouts = Rollouts(self.world.storage, moves, self.world.kills)
        self.watch = RolloutWatch(self.world.storage, moves)
        self.now_s = 1_000.0
        self.sequence = 0
        self.held_off_in = 0

    def standing_in(self, reader: object, environment: str, flag: str) -> int:
        return self.held_off_in

    def start(self, *stages: Stage, **plan: Any) -> Rollout:
        asked = Plan(stages=stages or STAGES, **plan)
        return self.rollouts.start(ENVIRONMENT, FLAG, asked, actor="ann")

    def steer(self, move: Move) -> Rollout:
        return self.rollouts.steer(
            ENVIRONMENT, FLAG, self.rollout.id, move, actor="ann", reason="because"
        )

    @property
    def rollout(self) -> Rollout:
        return self.rollouts.list(ENVIRONMENT, FLAG)[0]

    @property
    def percent(self) -> float:
        weights = self.world.configurations.get(ENVIRONMENT, FLAG).configuration.split_weights()
        return weights["default"]["on"] / 1_000

    def traffic(self, exposures: int = 500, failing: dict[str, list[int]] | None = None) -> None:
        """Report as a process does that has the newest configuration."""
        self.sequence += 1
        version = self.world.version()
        on = cell("on", version, exposures=exposures, failing=failing)
        off = cell("off", version, exposures=exposures * 3)
        self.world.report(self.sequence, [on, off])

    def forward(self, seconds: int, *, traffic: bool = True) -> None:
        for _ in range(seconds):
            self.now_s += 1
            if traffic:
                self.traffic()
            else:
                self.world.clock.forward(1)
            self.watch.tick(self.now_s)


class Gates:
    def __init__(self) -> None:
        self.green: dict[str, bool] = {}

    def exists(self, reader: object, environment: str, gate: str) -> bool:
        return gate in self.green

    def is_green(self, environment: str, gate: str) -> tuple[bool, str]:
        return self.green[gate], f"gate {gate} is not green"

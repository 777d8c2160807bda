"""The bodies of `/api/v1/flags/{flag}/environments/{environment}/rollouts`, and of `…/restore`."""

from dataclasses import replace
from typing import Annotated

from pydantic import Field, StringConstraints

from flagd_server.api.schemas.base import Document, Key, Name, Text, Timestamp
from flagd_server.domain.release import Plan
from flagd_server.domain.restart import FixedIn, Restore
from flagd_server.domain.stages import MAX_BAKE_TIME_S, MAX_EXPOSURES, MAX_STAGES, Stage


class StageBody(Document):
    percent: Annotated[float, Field(gt=0, le=100)]
    bake_time_s: Annotated[float, Field(ge=0, le=MAX_BAKE_TIME_S)] = 0.0
    min_exposures: Annotated[int, Field(ge=0, le=MAX_EXPOSURES)] = 0
    gates: Annotated[list[Key], Field(max_length=20)] = Field(default_factory=list)
    approval: bool = False

    def to_domain(self) -> Stage:
        return Stage(
            self.percent, self.bake_time_s, self.min_exposures, tuple(self.gates), self.approval
        )


Stages = Annotated[list[StageBody], Field(min_length=1, max_length=MAX_STAGES)]


class RolloutNow(Document):
    split: Key = "default"
    from_variant: Key | None = None
    to_variant: Key | None = None
    template: Key | None = None
    stages: Stages | None = None

    def to_domain(self) -> Plan:
        return Plan(
            split=self.split,
            from_variant=self.from_variant,
            to_variant=self.to_variant,
            template=self.template,
            stages=None if self.stages is None else [each.to_domain() for each in self.stages],
        )


class RolloutCreate(RolloutNow):
    starts_at: Timestamp | None = None

    def to_domain(self) -> Plan:
        return replace(super().to_domain(), starts_at=self.starts_at)


class FixedInBody(Document):
    service: Name
    version: Name


class RestoreBody(Document):
    """Lifts a kill, and may start a rollout with it."""

    kill: Annotated[str, StringConstraints(min_length=1, max_length=128)]
    reason: Annotated[str, StringConstraints(max_length=2_000, pattern=r"\S")] | None = None
    fixed_in: FixedInBody | None = None
    start_percent: Annotated[float, Field(ge=0.001, le=100)] | None = None
    keep: bool = False
    leave_out_exposed: bool = False
    rollout: RolloutNow | None = None

    def to_domain(self) -> Restore:
        fixed = self.fixed_in
        return Restore(
            kill=self.kill,
            reason=self.reason or "",
            fixed_in=None if fixed is None else FixedIn(fixed.service, fixed.version),
            start_percent=self.start_percent,
            keep=self.keep,
            leave_out_exposed=self.leave_out_exposed,
        )


class SteerBody(Document):
    reason: Text = ""

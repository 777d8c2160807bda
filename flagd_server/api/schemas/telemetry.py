"""The body of `POST /sdk/v1/telemetry` → `domain.telemetry.Summary`."""

import re
from typing import Annotated

from pydantic import AfterValidator, Field, StringConstraints, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from flagd_server.api.schemas.base import (
    MAX_SAFE_INTEGER,
    NO_CONTROL_CHARACTERS,
    Document,
    Key,
    Line,
    Timestamp,
    Version,
)
from flagd_server.domain import telemetry
from flagd_server.domain.telemetry import MAX_COUNT

Count = Annotated[int, Field(ge=0, le=MAX_COUNT)]
Kind = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.:-]{1,64}$")]
UnitHash = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{16}$")]
InstanceId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.:-]{1,64}$")]

_BUCKET = re.compile(r"0|[1-9][0-9]{0,3}", re.ASCII)


def _bucket(text: str) -> str:
    if _BUCKET.fullmatch(text) and int(text) <= telemetry.MAX_LATENCY_BUCKET:
        return text
    raise PydanticCustomError(
        "latency_bucket",
        "should be the index of a bucket, a decimal from 0 to {last}",
        {"last": telemetry.MAX_LATENCY_BUCKET},
    )


class CellBody(Document):
    flag: Key
    split: Key | None
    variant: Key
    config_version: Version
    exposures: Count
    errors: Count
    latency: dict[Annotated[str, AfterValidator(_bucket)], Count] = Field(default_factory=dict)
    units: dict[Kind, Annotated[list[UnitHash], Field(max_length=telemetry.MAX_UNITS_PER_KIND)]] = (
        Field(default_factory=dict, max_length=telemetry.MAX_KINDS_PER_CELL)
    )

    @field_validator("errors")
    @classmethod
    def _only_what_was_exposed_can_have_failed(cls, errors: int, info: ValidationInfo) -> int:
        if errors > info.data.get("exposures", errors):
            raise PydanticCustomError("errors_exceed_exposures", "should be at most exposures")
        return errors

    def to_domain(self) -> telemetry.Cell:
        return telemetry.Cell(
            flag=self.flag,
            split=self.split,
            variant=self.variant,
            config_version=self.config_version,
            exposures=self.exposures,
            errors=self.errors,
            latency={int(bucket): count for bucket, count in self.latency.items()},
            units={kind: tuple(hashes) for kind, hashes in self.units.items()},
        )


class ErrorKindBody(Document):
    flag: Key
    variant: Key
    kind: Kind
    where: Annotated[str, StringConstraints(max_length=256, pattern=NO_CONTROL_CHARACTERS)]
    count: Count
    sample: Annotated[str, StringConstraints(max_length=512, pattern=NO_CONTROL_CHARACTERS)]

    def to_domain(self) -> telemetry.ErrorKind:
        return telemetry.ErrorKind(
            flag=self.flag,
            variant=self.variant,
            kind=self.kind,
            where=self.where,
            count=self.count,
            sample=self.sample,
        )


class SummaryBody(Document):
    instance: InstanceId
    sequence: Version
    service: Line
    service_version: Line
    applied_sequence: Annotated[int, Field(ge=0, le=MAX_SAFE_INTEGER)]
    started_at: Timestamp
    ended_at: Timestamp
    cells: Annotated[list[CellBody], Field(max_length=telemetry.MAX_CELLS)]
    unscoped: dict[Key, Count] = Field(default_factory=dict, max_length=telemetry.MAX_UNSCOPED)
    error_kinds: Annotated[list[ErrorKindBody], Field(max_length=telemetry.MAX_ERROR_KINDS)] = (
        Field(default_factory=list)
    )
    # Reserved for an SDK that kills by its own evidence. Accepting what nothing acts on yet would
    # let such an SDK believe that the server knows.
    local_kills: Annotated[list[object], Field(max_length=0)] = Field(default_factory=list)
    dropped: dict[Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,63}$")], Count] = (
        Field(default_factory=dict, max_length=telemetry.MAX_DROPPED)
    )

    def to_domain(self) -> telemetry.Summary:
        return telemetry.Summary(
            instance=self.instance,
            sequence=self.sequence,
            service=self.service,
            service_version=self.service_version,
            applied_sequence=self.applied_sequence,
            started_at=self.started_at,
            ended_at=self.ended_at,
            cells=tuple(cell.to_domain() for cell in self.cells),
            unscoped=self.unscoped,
            error_kinds=tuple(kind.to_domain() for kind in self.error_kinds),
            dropped=self.dropped,
        )

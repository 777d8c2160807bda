"""The body of `POST /sdk/v1/telemetry` → `domain.telemetry.Summary`.

A report in order is validated once, as a whole. Where that fails, and every fault is within a row
of `ROWS`, the rows at fault are taken out and the rest is validated again.
"""

import re
from collections.abc import Collection, Iterable
from dataclasses import replace
from functools import lru_cache
from typing import Annotated, Any, TypeVar

from pydantic import (
    AfterValidator,
    FailFast,
    Field,
    StringConstraints,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_core import PydanticCustomError

from flagd_sdk.core.local_kill import MAX_LOCAL_KILLS, Evidence, LocalKill
from flagd_server.api.schemas.base import (
    MAX_SAFE_INTEGER,
    NO_CONTROL_CHARACTERS,
    Document,
    Key,
    Line,
    Timestamp,
    Version,
)
from flagd_server.api.schemas.faults import MAX_FAULTS, fault_of
from flagd_server.domain import telemetry
from flagd_server.domain.faults import Fault
from flagd_server.domain.telemetry import MAX_COUNT, most_units
from flagd_server.domain.times import format_time

Count = Annotated[int, Field(ge=0, le=MAX_COUNT)]
Kind = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.:-]{1,64}$")]
UnitHash = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{16}$")]
LogEvidence = Annotated[float, Field(ge=0.0, le=1_000.0)]
InstanceId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.:-]{1,64}$")]

ROWS = ("cells", "error_kinds", "local_kills")
"""The lists of a summary whose items are refused one by one."""

_T = TypeVar("_T")
_BUCKET = re.compile(r"0|[1-9][0-9]{0,3}", re.ASCII)


@lru_cache(maxsize=telemetry.MAX_LATENCY_BUCKET + 1)
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
    units: dict[
        Kind, Annotated[list[UnitHash], Field(max_length=telemetry.MAX_UNITS_PER_KIND), FailFast()]
    ] = Field(default_factory=dict, max_length=telemetry.MAX_KINDS_PER_CELL)

    @field_validator("errors")
    @classmethod
    def _only_what_was_exposed_can_have_failed(cls, errors: int, info: ValidationInfo) -> int:
        if errors > info.data.get("exposures", errors):
            raise PydanticCustomError("errors_exceed_exposures", "should be at most exposures")
        return errors

    @field_validator("latency")
    @classmethod
    def _only_what_was_exposed_took_time(
        cls, latency: dict[str, int], info: ValidationInfo
    ) -> dict[str, int]:
        exposures = info.data.get("exposures")
        if exposures is not None and sum(latency.values()) > exposures:
            raise PydanticCustomError(
                "latency_exceeds_exposures", "should add up to at most exposures"
            )
        return latency

    @field_validator("units")
    @classmethod
    def _only_what_was_exposed_has_units(
        cls, units: dict[str, list[str]], info: ValidationInfo
    ) -> dict[str, list[str]]:
        exposures, errors = info.data.get("exposures"), info.data.get("errors")
        if exposures is None or errors is None:
            return units  # what is wrong with them is said already
        for kind, hashes in units.items():
            most = most_units(kind, exposures, errors)
            if len(hashes) > most:
                raise PydanticCustomError(
                    "too_many_units",
                    "should name at most {most} units with {kind}: as many as errors for kinds of"
                    " errors, as exposures for others",
                    {"most": most, "kind": kind},
                )
        return units

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


class LocalKillBody(Document):
    id: InstanceId
    at: Timestamp
    flag: Key
    config_version: Version
    split: Key
    treatment: Key
    control: Key
    kind: Kind | None
    log_e_value: LogEvidence
    log_threshold: LogEvidence
    in_treatment: Count
    in_control: Count
    expected_share: Annotated[float, Field(ge=0.0, le=1.0)]

    def to_domain(self) -> LocalKill:
        fields = self.model_dump(exclude={"id", "at"})
        return LocalKill(self.id, format_time(self.at), Evidence(**fields))


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
    local_kills: Annotated[list[LocalKillBody], Field(max_length=MAX_LOCAL_KILLS)] = Field(
        default_factory=list
    )
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
            local_kills=tuple(kill.to_domain() for kill in self.local_kills),
        )


def read_summary(document: Any) -> telemetry.Summary:
    """Return the summary that a JSON document is, without the rows that can't be.

    Raises:
        ValidationError: it is no summary: something besides its rows is at fault.
    """
    try:
        return SummaryBody.model_validate(document).to_domain()
    except ValidationError as error:
        bad, refused = _rows_at_fault(error)
    kept = {
        name: [row for index, row in enumerate(document[name]) if (name, index) not in bad]
        for name in ROWS
        if name in document
    }
    summary = SummaryBody.model_validate({**document, **kept}).to_domain()
    return replace(
        summary,
        cells=_with_gaps(summary.cells, {index for name, index in bad if name == "cells"}),
        error_kinds=_with_gaps(
            summary.error_kinds, {index for name, index in bad if name == "error_kinds"}
        ),
        local_kills=_with_gaps(
            summary.local_kills, {index for name, index in bad if name == "local_kills"}
        ),
        refused=refused,
    )


def _rows_at_fault(error: ValidationError) -> tuple[set[tuple[str, int]], tuple[Fault, ...]]:
    """Return the rows (list, index) with faults, and the faults.

    Each row is named; all of its faults are while the answer stays short.

    Raises:
        ValidationError: the one given, where a fault is not within a row.
    """
    bad: set[tuple[str, int]] = set()
    refused: list[Fault] = []
    for detail in error.errors(include_url=False, include_context=False, include_input=False):
        name, *place = detail["loc"] or ("",)
        if name not in ROWS or not place or not isinstance(place[0], int):
            raise error
        row = (str(name), place[0])
        if row not in bad or len(refused) < MAX_FAULTS:
            refused.append(fault_of(detail))
        bad.add(row)
    return bad, tuple(refused)


def _with_gaps(kept: Iterable[_T], gaps: Collection[int]) -> tuple[_T | None, ...]:
    """Return the rows with None at the places of those that were taken out."""
    rows: list[_T | None] = list(kept)
    for gap in sorted(gaps):
        rows.insert(gap, None)
    return tuple(rows)

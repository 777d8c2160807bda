"""The bodies about gates."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from flagd_server.api.schemas.base import Document, Key, Name, Reason, Text
from flagd_server.api.schemas.objectives import BaseUrl, Query, Url
from flagd_server.domain.gates import GateDefinition

# The default of a field that may be left out but has no value of its own.
_NOT_GIVEN: Any = None
_DAY_S = 86_400

Matcher = Annotated[
    str,
    StringConstraints(
        max_length=300, pattern=r'^[A-Za-z_][A-Za-z0-9_]* ?(=~|!~|!=|=) ?("[ !#-~]*"|[!#-~]+)$'
    ),
]


class SloCheckBody(Document):
    service: Name
    error_budget_left_at_least: Annotated[float, Field(ge=0, le=1)] = _NOT_GIVEN
    burn_rate_below: Annotated[float, Field(ge=0.1, le=1_000)] = _NOT_GIVEN

    @model_validator(mode="after")
    def _asks_for_something(self) -> Self:
        if not self.model_fields_set & {"error_budget_left_at_least", "burn_rate_below"}:
            raise PydanticCustomError(
                "slo_check", "should have error_budget_left_at_least or burn_rate_below"
            )
        return self


class PrometheusCheckBody(Document):
    url: BaseUrl
    query: Query
    op: Literal["lt", "lte", "gt", "gte"]
    threshold: Annotated[float, Field(allow_inf_nan=False)]


class AlertmanagerCheckBody(Document):
    url: BaseUrl
    matchers: Annotated[list[Matcher], Field(min_length=1, max_length=10)]


class DeploymentBody(Document):
    service: Name
    version: Name


class GuardCheckBody(Document):
    flags: Annotated[list[Key], Field(min_length=1, max_length=50)] = _NOT_GIVEN
    deployment: DeploymentBody = _NOT_GIVEN

    @model_validator(mode="after")
    def _names_one(self) -> Self:
        if len(self.model_fields_set) != 1:
            raise PydanticCustomError("guard_check", "should have flags or deployment, one of them")
        return self


class MinExposuresBody(Document):
    flag: Key
    count: Annotated[int, Field(ge=1, le=1_000_000_000)]


class GateBody(Document):
    description: Text = ""
    health_checks: Annotated[list[Url], Field(max_length=10)] = _NOT_GIVEN
    slo: SloCheckBody | None = None
    prometheus: Annotated[list[PrometheusCheckBody], Field(max_length=10)] = _NOT_GIVEN
    alertmanager: AlertmanagerCheckBody | None = None
    guard: GuardCheckBody | None = None
    min_exposures: MinExposuresBody | None = None
    approval: bool = False

    def definition(self) -> GateDefinition:
        return GateDefinition.from_document(self.given())


class ApprovalBody(Document):
    reason: Reason
    valid_for_s: Annotated[int, Field(ge=60, le=7 * _DAY_S)] = _DAY_S // 3


class WithdrawalBody(Document):
    reason: Reason

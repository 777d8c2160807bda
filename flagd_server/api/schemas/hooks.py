"""What tools send. They grow: a field that is not known here is let be, and the rest is checked."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from flagd_server.api.schemas.admin import Tag
from flagd_server.api.schemas.base import Document, Key, Name, Reason, Timestamp
from flagd_server.domain.hooks import HOOKS
from flagd_server.services.called_kills import Target

_NOT_GIVEN: Any = None
_MAX_ALERTS = 1_000

Short = Annotated[str, StringConstraints(max_length=512)]
Labels = Annotated[dict[str, str], Field(max_length=200)]


class ToolDocument(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)


class FlaggerBody(ToolDocument):
    """CanaryWebhookPayload of fluxcd/flagger, `pkg/apis/flagger/v1beta1/canary.go`."""

    name: Short
    namespace: Short
    phase: Short
    checksum: Short = ""
    metadata: Labels | None = None

    @property
    def hook(self) -> str | None:
        return (self.metadata or {}).get("hook")

    @model_validator(mode="after")
    def _names_a_hook_that_there_is(self) -> "FlaggerBody":
        if self.hook is not None and self.hook not in HOOKS:
            # Taken for another one, a mistyped "rollback" would roll back what is healthy.
            raise PydanticCustomError(
                "hook", "metadata.hook should be one of {hooks}", {"hooks": ", ".join(HOOKS)}
            )
        return self


class Alert(ToolDocument):
    status: Literal["firing", "resolved"]
    labels: Labels
    annotations: Labels = Field(default_factory=dict)
    startsAt: Timestamp  # noqa: N815 - Alertmanager's spelling
    fingerprint: Short = ""

    @property
    def name(self) -> str:
        return self.labels.get("alertname", "")

    @property
    def target(self) -> Target:
        label = self.labels.get
        return Target(label("flag"), label("tag"), label("service"), label("version"))


class AlertmanagerBody(ToolDocument):
    """Version 4 of prometheus/alertmanager, `notify/webhook/webhook.go`."""

    version: Literal["4"]
    alerts: Annotated[list[Alert], Field(max_length=_MAX_ALERTS)]
    truncatedAlerts: int = 0  # noqa: N815 - Alertmanager's spelling


class SignedBody(Document):
    """What whoever has the environment's secret may call for."""

    action: Literal["kill"]
    flag: Key = _NOT_GIVEN
    tag: Tag = _NOT_GIVEN
    service: Name = _NOT_GIVEN
    version: Name = _NOT_GIVEN
    reason: Reason

    @property
    def target(self) -> Target:
        return Target(self.flag, self.tag, self.service, self.version)

    @model_validator(mode="after")
    def _names_one_thing(self) -> "SignedBody":
        named = self.model_fields_set & {"flag", "tag", "service", "version"}
        if named not in ({"flag"}, {"tag"}, {"service", "version"}):
            raise PydanticCustomError(
                "names_one_thing", "should have one of flag, tag, or service and version"
            )
        return self

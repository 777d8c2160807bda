"""Bodies and queries about deployments, and of kills of several flags."""

from typing import Annotated, Any, Literal

from pydantic import StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from flagd_server.api.schemas.admin import Tag
from flagd_server.api.schemas.base import Document, EnvironmentKey, Name, Reason
from flagd_server.api.schemas.queries import PageQuery
from flagd_server.domain.configuration import KillSource

Commit = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{7,64}$")]
Url = Annotated[str, StringConstraints(max_length=2_000, pattern=r"^https?://[!-~]+$")]
_NOT_GIVEN: Any = None


class DeploymentCreate(Document):
    service: Name
    version: Name
    image: Annotated[str, StringConstraints(min_length=1, max_length=512)]
    environment: EnvironmentKey
    commit: Commit | None = None
    url: Url | None = None


class DeploymentsQuery(PageQuery):
    environment: EnvironmentKey | None = None
    service: Name | None = None


class DeploymentKill(Document):
    reason: Reason


class EnvironmentKill(Document):
    """Of the flags with a tag, or of those that a version of a service brought."""

    tag: Tag | None = None
    service: Name = _NOT_GIVEN
    version: Name = _NOT_GIVEN
    reason: Reason
    source: Literal["operator", "deployment", "alert"] = _NOT_GIVEN
    dry_run: bool = False

    @property
    def kill_source(self) -> KillSource:
        """Who presses, where nobody says: for a version, whoever deploys it."""
        by_default = KillSource.DEPLOYMENT if self.tag is None else KillSource.OPERATOR
        return by_default if self.source is None else KillSource(self.source)

    @model_validator(mode="after")
    def _names_one_thing(self) -> "EnvironmentKill":
        is_version = self.service is not None and self.version is not None
        is_part = self.service is not None or self.version is not None
        if (self.tag is None) != is_version or (self.tag is not None and is_part):
            raise PydanticCustomError(
                "names_one_thing", "should have either tag, or service and version"
            )
        return self

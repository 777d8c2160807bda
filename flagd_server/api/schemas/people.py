"""Bodies about people and their sessions."""

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, StringConstraints
from pydantic_core import PydanticCustomError

from flagd_server.api.schemas.base import Document, EnvironmentKey
from flagd_server.domain.passwords import MAX_CHARS
from flagd_server.domain.roles import Role

_NOT_GIVEN: Any = None
_MAX_ROLES = 200

PersonName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._@+-]{0,127}$")]
Password = Annotated[str, StringConstraints(min_length=1, max_length=MAX_CHARS)]


class RoleBody(Document):
    environment: EnvironmentKey | None
    role: Literal["viewer", "editor", "releaser", "admin"]


def _one_each(roles: list[RoleBody]) -> list[RoleBody]:
    if len({role.environment for role in roles}) < len(roles):
        raise PydanticCustomError("one_role_each", "should name each environment once")
    return roles


RolesBody = Annotated[list[RoleBody], Field(max_length=_MAX_ROLES), AfterValidator(_one_each)]


class PersonCreate(Document):
    name: PersonName
    roles: RolesBody = Field(default_factory=list)


class PersonChange(Document):
    roles: RolesBody = _NOT_GIVEN
    disabled: bool = _NOT_GIVEN


class LoginBody(Document):
    name: Annotated[str, StringConstraints(min_length=1, max_length=128)]
    password: Password


class PasswordBody(Document):
    current_password: Password
    new_password: Password


def roles_of(bodies: Iterable[RoleBody]) -> dict[str | None, Role]:
    return {body.environment: Role(body.role) for body in bodies}

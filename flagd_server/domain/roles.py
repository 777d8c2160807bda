"""What people may do, and where: a role for one environment, or for all of them."""

from collections.abc import Mapping
from enum import StrEnum


class Role(StrEnum):
    """Each includes the ones before it; docs/access.md says what each may do."""

    VIEWER = "viewer"
    EDITOR = "editor"
    RELEASER = "releaser"
    ADMIN = "admin"

    def includes(self, other: "Role") -> bool:
        return _RANKS[self] >= _RANKS[other]


_RANKS = {role: rank for rank, role in enumerate(Role)}

EVERYWHERE = None
"""In place of an environment: all of them, those to come too."""

Roles = Mapping[str | None, Role]
"""Environment → role; at most one each, and one for everywhere."""


def has_role(roles: Roles, wanted: Role, environment: str | None) -> bool:
    """Tell whether the roles include the wanted one in an environment, or everywhere."""
    return any(
        place in roles and roles[place].includes(wanted) for place in {EVERYWHERE, environment}
    )


def has_role_somewhere(roles: Roles, wanted: Role) -> bool:
    """Tell whether the roles include the wanted one in any environment at all."""
    return any(role.includes(wanted) for role in roles.values())

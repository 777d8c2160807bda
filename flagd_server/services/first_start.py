"""What a server makes of an empty database: three environments and the tokens to begin with."""

from collections.abc import Callable
from dataclasses import dataclass

from flagd_server.services.environments import Environments
from flagd_server.services.tokens import Tokens
from flagd_server.storage.base import Storage

FIRST_ENVIRONMENTS = {
    "production": "Production",
    "staging": "Staging",
    "development": "Development",
}
_ACTOR = "first start"


@dataclass(frozen=True, slots=True)
class InitialTokens:
    """The texts of the first tokens; they can't be had again. `sdk` is by environment."""

    admin: str
    sdk: dict[str, str]


def first_start(
    storage: Storage,
    environments: Environments,
    tokens: Tokens,
    deliver: Callable[[InitialTokens], None],
    admin_token: str | None = None,
) -> InitialTokens | None:
    """Set up an empty database; return None, and do nothing, where there is anything in it.

    Args:
        deliver: hands the tokens to whoever starts the server. It is called before the commit:
            where it fails, the database stays empty and the next start tries again.
        admin_token: the first admin token, where it is not to be a random one.
    """
    with storage.transaction() as tx:
        if tx.environments() or tx.tokens():
            return None
        for key, name in FIRST_ENVIRONMENTS.items():
            environments.create_in(tx, key, name, actor=_ACTOR)
        admin = tokens.create_in(tx, "admin", "first admin", actor=_ACTOR, text=admin_token)
        sdk = {
            key: tokens.create_in(tx, "sdk", f"first SDK, {key}", key, actor=_ACTOR).text
            for key in FIRST_ENVIRONMENTS
        }
        initial = InitialTokens(admin.text, sdk)
        deliver(initial)
    return initial

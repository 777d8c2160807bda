"""Who is calling, and whether the token allows it: one decorator above every view but health's."""

from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from flask import g, request

from flagd_server.api.problems import Problem, ProblemError
from flagd_server.api.requests import read_query
from flagd_server.api.schemas.queries import NoQuery
from flagd_server.api.wiring import services
from flagd_server.services.tokens import Tokens
from flagd_server.storage.records import Token

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

_P = ParamSpec("_P")
_R = TypeVar("_R")

# Scopes that may do it. `admin` includes the other scopes of the admin API; the SDK's API takes
# only SDK tokens, so that an admin token never has to be in an application.
READ = ("admin", "read")
WRITE = ("admin",)
KILL = ("admin", "kill")
SDK = ("sdk",)

_MAX_TOKEN_CHARS = 512
_CHALLENGE = 'Bearer realm="flagd-server"'


def requires(
    *scopes: str, takes_query: bool = False
) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
    """Let a view be called only with a token of one of the scopes.

    A view that reads no query string refuses one: a mistyped parameter shouldn't pass unseen.
    """

    def decorate(view: Callable[_P, _R]) -> Callable[_P, _R]:
        @wraps(view)
        def guarded(*args: _P.args, **kwargs: _P.kwargs) -> _R:
            token = _authenticate()
            if token.scope not in scopes:
                raise ProblemError(_forbidden(token, scopes))
            g.token = token
            if request.query_string and not takes_query:
                read_query(NoQuery)
            return view(*args, **kwargs)

        return guarded

    return decorate


def caller() -> Token:
    """Return the token of the request; only inside a view under `requires`."""
    token: Token = g.token
    return token


def caller_environment() -> str:
    """Return the environment of an SDK's token."""
    environment = caller().environment
    assert environment is not None, "an SDK token is made for one environment"
    return environment


def token_text(header: str) -> str | None:
    """Return the token in an `Authorization` header; None where there is none."""
    scheme, _, text = header.partition(" ")
    text = text.strip()
    if scheme.lower() != "bearer" or not 0 < len(text) <= _MAX_TOKEN_CHARS:
        return None
    return text


def token_before_flask(
    environ: "WSGIEnvironment", tokens: Tokens, scopes: tuple[str, ...]
) -> Token | None:
    """Return the token of a request that Flask has not seen; None where it would be refused."""
    text = token_text(environ.get("HTTP_AUTHORIZATION", ""))
    token = None if text is None else tokens.authenticate(text)
    return token if token is not None and token.scope in scopes else None


def _authenticate() -> Token:
    text = token_text(request.headers.get("Authorization", ""))
    if text is None:
        raise ProblemError(
            _unauthorized("expected the header Authorization: Bearer <token>", _CHALLENGE)
        )
    token = services().tokens.authenticate(text)
    if token is None:
        challenge = f'{_CHALLENGE}, error="invalid_token"'
        raise ProblemError(_unauthorized("the token is unknown or was revoked", challenge))
    return token


def _unauthorized(detail: str, challenge: str) -> Problem:
    return Problem("unauthorized", detail, headers={"WWW-Authenticate": challenge})


def _forbidden(token: Token, scopes: tuple[str, ...]) -> Problem:
    wanted = " or ".join(scopes)
    return Problem(
        "forbidden",
        f"this needs a token of scope {wanted}; yours has scope {token.scope}",
        {"required_scopes": list(scopes)},
    )

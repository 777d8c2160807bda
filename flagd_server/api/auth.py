"""Who is calling: a token in a header, or a person by the cookie of a session."""

from collections.abc import Callable
from dataclasses import dataclass

from flask import g, request

from flagd_server.api import cross_site
from flagd_server.api.problems import Problem, ProblemError
from flagd_server.api.requests import read_body_by
from flagd_server.api.wiring import services
from flagd_server.domain.times import format_time
from flagd_server.services.people import actor_of
from flagd_server.storage.identity_records import Person, Session
from flagd_server.storage.records import Token

MAX_TOKEN_CHARS = 512
MAX_FLAGGER_BYTES = 64 * 1024
_CHALLENGE = 'Bearer realm="flagd-server"'
_UNKNOWN = "the token is unknown or was revoked"
_SAFE_METHODS = frozenset({"GET", "HEAD"})


@dataclass(frozen=True, slots=True)
class Caller:
    """A token, or a person in a session.

    Attributes:
        name: as the audit and kills have it.
    """

    name: str
    token: Token | None = None
    person: Person | None = None
    session: Session | None = None

    @property
    def id(self) -> str:
        """What there is no other of."""
        return self.name if self.token is None else self.token.id


def caller() -> Caller:
    """Return who was let in; only inside a view that not everybody may call."""
    caller: Caller = g.caller
    return caller


def caller_token() -> Token:
    """Return the token of the request, where only tokens are let in."""
    token = caller().token
    assert token is not None, "the table lets no person in here"
    return token


def caller_environment() -> str:
    """Return the environment of an application's token."""
    environment = caller_token().environment
    assert environment is not None, "an application's token is made for one environment"
    return environment


def caller_person() -> tuple[Person, Session]:
    """Return whose session it is, where only people are let in."""
    person, session = caller().person, caller().session
    assert person is not None, "the table lets no token in here"
    assert session is not None
    return person, session


def identify(presented: Callable[[], Token], *, is_for_people: bool) -> Caller:
    """Return who asks. A token that is presented counts, whatever cookies come with it.

    Args:
        presented: returns the token of the request, or raises ProblemError.
        is_for_people: whether a session would do.

    Raises:
        ProblemError: nobody known asks, or another site's page may have made a browser ask.
    """
    has_token = "Authorization" in request.headers
    cookie = cross_site.session_cookie() if is_for_people and not has_token else None
    if cookie is None:
        token = presented()
        return Caller(token.name, token=token)
    found = services().sessions.find(cookie)
    if found is None:
        raise refused("the session has ended; log in again")
    if request.method not in _SAFE_METHODS:
        cross_site.require_own_page(cookie)
    session, person = found
    return Caller(actor_of(person), person=person, session=session)


def bearer_token() -> Token:
    """Return the token in the `Authorization` header of the request.

    Raises:
        ProblemError: there is none, or it is unknown, revoked or expired.
    """
    text = token_text(request.headers.get("Authorization", ""))
    if text is None:
        detail = "expected the header Authorization: Bearer <token>"
        raise ProblemError(_unauthorized(detail, _CHALLENGE))
    return _known_token(text)


def ofrep_token() -> Token:
    """Return the token in either of OFREP's two headers, or raise as `bearer_token` does."""
    key = request.headers.get("X-API-Key")
    if key is None or "Authorization" in request.headers:
        return bearer_token()
    if len(key) > MAX_TOKEN_CHARS:
        raise refused(_UNKNOWN)
    return _known_token(key)


def ticket_or_token() -> Token:
    """Return the token for which the ticket in the query was issued, or that of the headers."""
    ticket = request.args.get("ticket")
    if ticket is None:
        return ofrep_token()
    token = services().tickets.redeem(ticket)
    if token is None:
        raise refused("the ticket has expired or never was one; evaluate again to get another")
    return token


def flagger_token() -> Token:
    """Return the token in the body's metadata: Flagger sends no header of its own."""
    body = read_body_by(lambda document: document, MAX_FLAGGER_BYTES)
    g.flagger_body = body
    if "Authorization" in request.headers:
        return bearer_token()
    metadata = body.get("metadata") if isinstance(body, dict) else None
    text = metadata.get("token") if isinstance(metadata, dict) else None
    if not isinstance(text, str) or not 0 < len(text) <= MAX_TOKEN_CHARS:
        raise refused("expected a token in metadata.token of the webhook")
    return _known_token(text)


def token_text(header: str) -> str | None:
    """Return the token in an `Authorization` header; None where there is none."""
    scheme, _, text = header.partition(" ")
    text = text.strip()
    if scheme.lower() != "bearer" or not 0 < len(text) <= MAX_TOKEN_CHARS:
        return None
    return text


def refused(detail: str) -> ProblemError:
    """Return the error that says that what was presented opens nothing."""
    return ProblemError(_unauthorized(detail, f'{_CHALLENGE}, error="invalid_token"'))


def _known_token(text: str) -> Token:
    token = services().tokens.authenticate(text)
    if token is not None:
        return token
    expired_at = services().tokens.expired_at(text)
    if expired_at is not None:
        raise refused(f"the token expired at {format_time(expired_at)}")
    raise refused(_UNKNOWN)


def _unauthorized(detail: str, challenge: str) -> Problem:
    return Problem("unauthorized", detail, headers={"WWW-Authenticate": challenge})

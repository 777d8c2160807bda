"""Who may do what: decided here, before any view runs, and by one table.

A route without a row is closed to everybody. Requests answered before Flask are held to the same
rows (`opens`). docs/access.md says the same in words; tests/server/api/test_access_matrix.py holds
every route to it, and openapi.yaml to the table.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from flask import g, request

from flagd_server.api import auth
from flagd_server.api.auth import Caller
from flagd_server.api.json_body import MAX_BODY_BYTES, UnreadableBodyError, parse_json
from flagd_server.api.problems import Problem, ProblemError
from flagd_server.api.wiring import services
from flagd_server.domain.roles import Role, has_role, has_role_somewhere
from flagd_server.errors import NotAllowedError
from flagd_server.services.tokens import Tokens
from flagd_server.storage.records import Token

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Right:
    """What it takes: a token of one of the scopes, or a session of a person with the role.

    Attributes:
        role: the least; None where no person may.
        is_for_anybody: also without a token, or by what the view itself asks for.
        is_for_any_person: with a session, whatever the person's roles.
    """

    scopes: tuple[str, ...] = ()
    role: Role | None = None
    is_for_anybody: bool = False
    is_for_any_person: bool = False


# `admin` includes the other scopes of the admin API; what applications ask takes only their tokens,
# so that an admin token never has to be in one.
READ = Right(("admin", "read", "deploy"), Role.VIEWER)
# What reaches no user; the views ask `require_release` where it would.
EDIT = Right(("admin",), Role.EDITOR)
RELEASE = Right(("admin",), Role.RELEASER)
KILL = Right(("admin", "kill", "deploy"), Role.RELEASER)
# What a pipeline tells and decides: deployments, and whether they may go on.
DEPLOY = Right(("admin", "deploy"), Role.RELEASER)
# What only admins change, and tools may look at.
INSPECT = Right(("admin", "read", "deploy"), Role.ADMIN)
ADMINISTER = Right(("admin",), Role.ADMIN)
# Tools that speak in their own way.
ASK = Right(("admin", "read", "deploy"))
ALERT = Right(("admin", "kill", "deploy"))
# Applications.
SDK = Right(("sdk",))
OFREP = Right(("sdk", "ofrep"))

OWN = Right(is_for_any_person=True)
OPEN = Right(is_for_anybody=True)
# By the signature over the body, which the view checks.
SIGNED = Right(is_for_anybody=True)


_UNLIMITED = frozenset({KILL, ALERT, SDK, OFREP})


class Where(Enum):
    """For which environment a person needs the role. Tokens of applications have theirs; the
    others are for all."""

    PATH = "the one in the path"
    QUERY = "the one in the query, or everywhere without it"
    BODY = "the one in the body, or everywhere without it"
    DEPLOYMENT = "that of the deployment in the path"
    OF_TOKEN = "that of the token in the path, or everywhere"  # noqa: S105 - no password
    EVERYWHERE = "all of them"
    SOMEWHERE = "any; the view shows no more than the person may see"
    CALLER = "that of the token which is presented"
    NONE = "no environment is touched"


@dataclass(frozen=True, slots=True)
class Row:
    right: Right
    where: Where
    presented: Callable[[], Token] = auth.bearer_token


TABLE: dict[str, Row] = {
    # For those who run the server
    "health.live": Row(OPEN, Where.NONE),
    "health.ready": Row(OPEN, Where.NONE),
    "health.metrics": Row(OPEN, Where.NONE),
    "health.version": Row(OPEN, Where.NONE),
    # People, and their sessions
    "session.log_in": Row(OPEN, Where.NONE),
    "session.get_session": Row(OWN, Where.NONE),
    "session.log_out": Row(OWN, Where.NONE),
    "session.choose_password": Row(OWN, Where.NONE),
    "people.list_people": Row(ADMINISTER, Where.EVERYWHERE),
    "people.add_person": Row(ADMINISTER, Where.EVERYWHERE),
    "people.get_person": Row(ADMINISTER, Where.EVERYWHERE),
    "people.change_person": Row(ADMINISTER, Where.EVERYWHERE),
    "people.reset_password": Row(ADMINISTER, Where.EVERYWHERE),
    # Tokens
    "tokens.list_tokens": Row(INSPECT, Where.SOMEWHERE),
    "tokens.create_token": Row(ADMINISTER, Where.BODY),
    "tokens.revoke_token": Row(ADMINISTER, Where.OF_TOKEN),
    # Environments
    "environments.list_environments": Row(READ, Where.SOMEWHERE),
    "environments.create_environment": Row(ADMINISTER, Where.EVERYWHERE),
    "environments.get_environment": Row(READ, Where.PATH),
    "environments.rename_environment": Row(ADMINISTER, Where.PATH),
    "environments.delete_environment": Row(ADMINISTER, Where.EVERYWHERE),
    "audit.list_audit": Row(READ, Where.QUERY),
    "audit.get_audit_head": Row(READ, Where.EVERYWHERE),
    "alarms.list_alarms": Row(READ, Where.PATH),
    "brakes.get_brake": Row(READ, Where.PATH),
    "brakes.release_brake": Row(RELEASE, Where.PATH),
    "hook_secrets.get_hook_secret": Row(READ, Where.PATH),
    "hook_secrets.renew_hook_secret": Row(ADMINISTER, Where.PATH),
    "hook_secrets.delete_hook_secret": Row(ADMINISTER, Where.PATH),
    "webhooks.list_webhooks": Row(READ, Where.PATH),
    "webhooks.get_webhook": Row(READ, Where.PATH),
    "webhooks.put_webhook": Row(ADMINISTER, Where.PATH),
    "webhooks.delete_webhook": Row(ADMINISTER, Where.PATH),
    "webhooks.list_deliveries": Row(READ, Where.PATH),
    "webhooks.try_webhook": Row(ADMINISTER, Where.PATH),
    "segments.list_segments": Row(READ, Where.PATH),
    "segments.get_segment": Row(READ, Where.PATH),
    "segments.put_segment": Row(RELEASE, Where.PATH),
    "segments.delete_segment": Row(RELEASE, Where.PATH),
    "slos.list_slos": Row(READ, Where.PATH),
    "slos.get_slo": Row(READ, Where.PATH),
    "slos.get_slo_state": Row(READ, Where.PATH),
    "slos.put_slo": Row(RELEASE, Where.PATH),
    "slos.delete_slo": Row(RELEASE, Where.PATH),
    "gates.list_gates": Row(READ, Where.PATH),
    "gates.get_gate": Row(READ, Where.PATH),
    "gates.get_gate_verdict": Row(READ, Where.PATH),
    "gates.put_gate": Row(RELEASE, Where.PATH),
    "gates.delete_gate": Row(RELEASE, Where.PATH),
    "gates.approve_gate": Row(RELEASE, Where.PATH),
    "gates.withdraw_gate_approval": Row(RELEASE, Where.PATH),
    # Flags
    "flags.list_flags": Row(READ, Where.SOMEWHERE),
    "flags.create_flag": Row(EDIT, Where.SOMEWHERE),
    "flags.get_flag": Row(READ, Where.SOMEWHERE),
    "flags.update_flag": Row(EDIT, Where.SOMEWHERE),
    "configurations.get_configuration": Row(READ, Where.PATH),
    "configurations.update_configuration": Row(EDIT, Where.PATH),
    "configurations.roll_back": Row(RELEASE, Where.PATH),
    "configurations.list_history": Row(READ, Where.PATH),
    "configurations.get_history_version": Row(READ, Where.PATH),
    "evidence.list_evidence": Row(READ, Where.PATH),
    "evidence.get_evidence": Row(READ, Where.PATH),
    "kills.kill": Row(KILL, Where.PATH),
    "kills.get_kill": Row(READ, Where.PATH),
    "kills.restore": Row(RELEASE, Where.PATH),
    "local_kills.list_local_kills": Row(READ, Where.PATH),
    "local_kills.lift_local_kills": Row(RELEASE, Where.PATH),
    "rollouts.list_templates": Row(READ, Where.SOMEWHERE),
    "rollouts.list_rollouts": Row(READ, Where.PATH),
    "rollouts.start_rollout": Row(RELEASE, Where.PATH),
    "rollouts.get_rollout": Row(READ, Where.PATH),
    "rollouts.pause_rollout": Row(RELEASE, Where.PATH),
    "rollouts.resume_rollout": Row(RELEASE, Where.PATH),
    "rollouts.advance_rollout": Row(RELEASE, Where.PATH),
    "rollouts.abort_rollout": Row(RELEASE, Where.PATH),
    "rollouts.approve_rollout": Row(RELEASE, Where.PATH),
    # Deployments
    "deployments.register_deployment": Row(DEPLOY, Where.BODY),
    "deployments.list_deployments": Row(READ, Where.QUERY),
    "deployments.get_deployment": Row(READ, Where.DEPLOYMENT),
    "deployments.kill_deployment": Row(KILL, Where.DEPLOYMENT),
    "deployments.kill_in_environment": Row(KILL, Where.PATH),
    # Applications
    "sdk.get_flags": Row(SDK, Where.CALLER),
    "sdk.report_telemetry": Row(SDK, Where.CALLER),
    "stream.stream": Row(SDK, Where.CALLER),
    "ofrep.evaluate_flag": Row(OFREP, Where.CALLER, auth.ofrep_token),
    "ofrep.evaluate_flags": Row(OFREP, Where.CALLER, auth.ofrep_token),
    "ofrep.stream_changes": Row(OFREP, Where.CALLER, auth.ticket_or_token),
    # Tools
    "hooks.answer_flagger": Row(ASK, Where.PATH, auth.flagger_token),
    "hooks.answer_argo": Row(ASK, Where.PATH),
    "hooks.take_alerts": Row(ALERT, Where.PATH),
    "hooks.take_signed": Row(SIGNED, Where.NONE),
}
"""Endpoint, as Flask calls it → what it takes."""


def decide() -> None:
    """Let the request through to its view, or refuse it; before every request.

    Raises:
        ProblemError: it is not known who asks, or they may not.
    """
    endpoint = request.endpoint
    if endpoint is None:
        return  # no such path or method: there is nothing to guard, and Flask says which it is
    row = TABLE.get(endpoint)
    if row is None:
        _log.error("%s is closed: it has no row in the table of access", endpoint)
        raise ProblemError(Problem("forbidden", "nobody may do this", _needs(Right(), None)))
    if row.right.is_for_anybody:
        return
    is_for_people = row.right.role is not None or row.right.is_for_any_person
    caller = auth.identify(row.presented, is_for_people=is_for_people)
    _require(caller, row)
    g.caller = caller
    # Off is easy; and what applications ask has limits of its own.
    if row.right not in _UNLIMITED:
        services().limits.require_turn(caller.id)


def opens(environ: "WSGIEnvironment", tokens: Tokens, endpoint: str) -> Token | None:
    """Return the token of a request that Flask has not seen; None where it would be refused."""
    text = auth.token_text(environ.get("HTTP_AUTHORIZATION", ""))
    token = None if text is None else tokens.authenticate(text)
    return token if token is not None and token.scope in TABLE[endpoint].right.scopes else None


def may(right: Right, environment: str | None) -> bool:
    """Tell whether the caller has the right in an environment; in all of them, for None."""
    caller = auth.caller()
    if caller.person is None:
        return caller.token is not None and caller.token.scope in right.scopes
    return right.role is not None and has_role(caller.person.roles, right.role, environment)


def require_release(environment: str) -> None:
    """Let what is about to be changed reach the users of an environment.

    Raises:
        NotAllowedError: the caller may only change what reaches nobody.
    """
    if not may(RELEASE, environment):
        role = Role.RELEASER.value
        raise NotAllowedError(
            f"this would reach users in {environment!r}, which takes the role {role} there",
            role,
            environment,
        )


def _require(caller: Caller, row: Row) -> None:
    right = row.right
    if caller.token is not None:
        if caller.token.scope not in right.scopes:
            raise ProblemError(_forbidden_token(caller.token, right))
        return
    person = caller.person
    assert person is not None, "whoever is identified is a token or a person"
    if right.is_for_any_person:
        return
    if person.password_expires_at is not None:
        raise ProblemError(
            Problem(
                "forbidden",
                "first choose a password of your own: POST /api/v1/session/password",
                _needs(right, None),
            )
        )
    assert right.role is not None, "people are identified only where they may be let in"
    if row.where is Where.SOMEWHERE:
        if has_role_somewhere(person.roles, right.role):
            return
        raise ProblemError(_forbidden_person(right, "in some environment", None))
    environment = _environment(row.where)
    if not has_role(person.roles, right.role, environment):
        place = "for all environments" if environment is None else f"in {environment!r}"
        raise ProblemError(_forbidden_person(right, place, environment))


def _environment(where: Where) -> str | None:
    """Return the environment that the request is about; None stands for all."""
    path = request.view_args or {}
    if where is Where.PATH:
        return str(path["environment"])
    if where is Where.QUERY:
        named = request.args.getlist("environment")
        return named[0] if len(named) == 1 else None
    if where is Where.BODY:
        return _environment_in_body()
    if where is Where.DEPLOYMENT:
        return services().deployments.environment_of(path["deployment"])
    if where is Where.OF_TOKEN:
        token = services().tokens.get(path["token"])
        return None if token is None else token.environment
    return None


def _environment_in_body() -> str | None:
    # Kept for the view, which reads the same body again, and says what is wrong with it.
    body = request.get_data(cache=True)
    try:
        document = parse_json(body) if len(body) <= MAX_BODY_BYTES else None
    except UnreadableBodyError:
        return None
    environment = document.get("environment") if isinstance(document, dict) else None
    return environment if isinstance(environment, str) else None


def _forbidden_token(token: Token, right: Right) -> Problem:
    if not right.scopes:
        detail = "this is for people who have logged in, not for tokens"
    else:
        wanted = " or ".join(right.scopes)
        detail = f"this needs a token of scope {wanted}; yours has scope {token.scope}"
    return Problem("forbidden", detail, _needs(right, None))


def _forbidden_person(right: Right, place: str, environment: str | None) -> Problem:
    assert right.role is not None
    detail = f"this needs the role {right.role.value} {place}"
    return Problem("forbidden", detail, _needs(right, environment))


def _needs(right: Right, environment: str | None) -> dict[str, object]:
    return {
        "required_scopes": list(right.scopes),
        "required_role": None if right.role is None else right.role.value,
        "environment": environment,
    }

"""/api/v1/session: a person logs in, sees who they are, chooses a password, logs out."""

from flask import Blueprint, Response, jsonify, request

from flagd_server.api import cross_site, documents
from flagd_server.api.auth import caller_person
from flagd_server.api.documents import Json
from flagd_server.api.requests import read_body
from flagd_server.api.schemas.people import LoginBody, PasswordBody
from flagd_server.api.wiring import services
from flagd_server.domain.times import format_time
from flagd_server.services.sessions import IDLE, Login, csrf_token
from flagd_server.storage.identity_records import Person, Session

blueprint = Blueprint("session", __name__, url_prefix="/api/v1/session")

_NOT_KEPT = {"Cache-Control": "no-store"}


@blueprint.post("")
def log_in() -> tuple[Response, int]:
    """Needs no session, of course; but neither may another site log a browser in here."""
    services().limits.require_open_turn()
    cross_site.require_own_origin()
    body = read_body(LoginBody)
    login = services().sessions.log_in(
        body.name,
        body.password,
        address=_address(),
        device=cross_site.device_cookie(),
        replaces=cross_site.session_cookie(),
    )
    return _begun(login), 201


@blueprint.get("")
def get_session() -> Response:
    person, session = caller_person()
    cookie = cross_site.session_cookie()
    assert cookie is not None, "it has named the session"
    return _answer(session, person, cookie)


@blueprint.delete("")
def log_out() -> Response:
    person, session = caller_person()
    services().sessions.log_out(session, person)
    response = Response(status=204)
    cross_site.drop_session_cookie(response)
    return response


@blueprint.post("/password")
def choose_password() -> Response:
    """All sessions end, and a new one begins for who has just shown to know the password."""
    person, _ = caller_person()
    body = read_body(PasswordBody)
    changed = services().people.choose_password(
        person.name, body.current_password, body.new_password, address=_address()
    )
    return _begun(services().sessions.renew(changed, _address()))


def _begun(login: Login) -> Response:
    response = _answer(login.session, login.person, login.cookie)
    cross_site.set_cookies(response, login)
    return response


def _answer(session: Session, person: Person, cookie: str) -> Response:
    response = jsonify(_document(session, person, cookie))
    response.headers.update(_NOT_KEPT)
    return response


def _document(session: Session, person: Person, cookie: str) -> Json:
    return {
        "person": person.name,
        "roles": documents.roles(person),
        "must_choose_password": person.password_expires_at is not None,
        "csrf_token": csrf_token(cookie),
        "created_at": format_time(session.created_at),
        "expires_at": format_time(session.expires_at),
        "idle_s": int(IDLE.total_seconds()),
    }


def _address() -> str:
    return request.remote_addr or "unknown"

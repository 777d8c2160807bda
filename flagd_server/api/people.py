"""/api/v1/people: a password that is made is in the answer that makes it, and nowhere else."""

from flask import Blueprint

from flagd_server.api import documents
from flagd_server.api.auth import caller
from flagd_server.api.documents import Json
from flagd_server.api.requests import read_body
from flagd_server.api.schemas.people import PersonChange, PersonCreate, roles_of
from flagd_server.api.wiring import services
from flagd_server.services.people import NewPassword

blueprint = Blueprint("people", __name__, url_prefix="/api/v1/people")

_NOT_KEPT = {"Cache-Control": "no-store"}


@blueprint.get("")
def list_people() -> Json:
    return documents.items(map(documents.person, services().people.list()))


@blueprint.post("")
def add_person() -> tuple[Json, int, dict[str, str]]:
    body = read_body(PersonCreate)
    made = services().people.add(body.name, roles_of(body.roles), actor=caller().name)
    return _with_password(made), 201, _NOT_KEPT


@blueprint.get("/<person>")
def get_person(person: str) -> Json:
    return documents.person(services().people.get(person))


@blueprint.patch("/<person>")
def change_person(person: str) -> Json:
    body = read_body(PersonChange)
    changed = services().people.change(
        person,
        roles=None if body.roles is None else roles_of(body.roles),
        disabled=body.disabled,
        actor=caller().name,
    )
    return documents.person(changed)


@blueprint.post("/<person>/password")
def reset_password(person: str) -> tuple[Json, int, dict[str, str]]:
    made = services().people.reset_password(person, actor=caller().name)
    return _with_password(made), 200, _NOT_KEPT


def _with_password(made: NewPassword) -> Json:
    return documents.person(made.person) | {"one_time_password": made.password}

"""A request → a checked body, query or header; what is wrong is a problem that names it."""

import re
from collections.abc import Callable
from typing import Any, TypeVar

from flask import current_app, request
from pydantic import TypeAdapter, ValidationError

from flagd_server.api.json_body import MAX_BODY_BYTES, parse_json
from flagd_server.api.problems import (
    Problem,
    ProblemError,
    bad_header,
    body_too_large,
    invalid,
)
from flagd_server.api.schemas.base import Document, Key, Name
from flagd_server.api.schemas.faults import faults_of
from flagd_server.api.schemas.queries import NoQuery, Query
from flagd_server.domain.faults import Fault

_T = TypeVar("_T")
_D = TypeVar("_D", bound=Document)
_Q = TypeVar("_Q", bound=Query)
_V = TypeVar("_V", bound=Callable[..., Any])

_VERSION_TAG = re.compile(r'"?([1-9][0-9]{0,15})"?', re.ASCII)
_KEY: TypeAdapter[str] = TypeAdapter(Key)
_NAME: TypeAdapter[str] = TypeAdapter(Name)


def read_body(model: type[_D]) -> _D:
    """Return the JSON body, held to the model."""
    return read_body_by(model.model_validate)


def read_body_by(validate: Callable[[Any], _T], max_bytes: int = MAX_BODY_BYTES) -> _T:
    """Return what `validate` makes of the JSON body, or raises ValidationError about."""
    return hold(validate, parse_json(read_raw_body(max_bytes)))


def read_raw_body(max_bytes: int = MAX_BODY_BYTES) -> bytes:
    """Return the bytes of a body that says it is JSON."""
    _check_media_type()
    # Where the client announced no length, Werkzeug stops at `MAX_CONTENT_LENGTH` without a word,
    # so the application sets that one byte past the limit.
    body = request.get_data(cache=False)
    if len(body) > max_bytes:
        raise ProblemError(body_too_large(max_bytes))
    return body


def hold(validate: Callable[[Any], _T], document: Any) -> _T:
    """Return what `validate` makes of a JSON document, or raises ValidationError about."""
    try:
        return validate(document)
    except ValidationError as error:
        raise ProblemError(invalid(faults_of(error))) from None


def _check_media_type() -> None:
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise ProblemError(
            Problem("unsupported-media-type", "Content-Encoding isn't supported; send plain JSON")
        )
    charset = request.mimetype_params.get("charset", "utf-8").lower()
    if request.mimetype != "application/json" or charset not in ("utf-8", "utf8"):
        raise ProblemError(
            Problem("unsupported-media-type", "expected Content-Type: application/json, in UTF-8")
        )


def read_query(model: type[_Q]) -> _Q:
    """Return the query string, held to the model."""
    parameters = dict(request.args.lists())
    faults = [
        Fault(f"query.{name[:64]}", f"is given {len(values)} times; expected once")
        for name, values in parameters.items()
        if len(values) > 1
    ]
    try:
        query = model.model_validate({name: values[0] for name, values in parameters.items()})
    except ValidationError as error:
        for fault in faults_of(error):
            message = fault.message.replace("field of this object", "parameter of this operation")
            faults.append(Fault(f"query.{fault.field}", message))
    if faults:
        raise ProblemError(invalid(faults))
    return query


_TAKING_QUERY: set[Callable[..., Any]] = set()


def takes_query(view: _V) -> _V:
    """Say that a view reads the query string."""
    _TAKING_QUERY.add(view)
    return view


def refuse_unread_query() -> None:
    """Refuse a query string that no view reads: a mistyped parameter shouldn't pass unseen.

    Runs before every view that is found, when it is known that the caller may ask.
    """
    if not request.query_string or request.endpoint is None:
        return
    if current_app.view_functions[request.endpoint] not in _TAKING_QUERY:
        read_query(NoQuery)


def read_key(name: str, text: str) -> str:
    """Return a path segment that is to become a key."""
    return _read_path(_KEY, name, text)


def read_name(name: str, text: str) -> str:
    """Return a path segment that is to become a name: up to 128 characters on one line."""
    return _read_path(_NAME, name, text)


def _read_path(kind: TypeAdapter[str], name: str, text: str) -> str:
    try:
        return kind.validate_python(text)
    except ValidationError as error:
        message = faults_of(error)[0].message
        raise ProblemError(invalid([Fault(f"path.{name}", message)])) from None


def expected_version() -> int:
    """Return the version in `If-Match`, which has to be there."""
    version = optional_version()
    if version is None:
        raise ProblemError(
            Problem(
                "version-required",
                'send If-Match: "<version>" with the version that you have seen',
            )
        )
    return version


def optional_version() -> int | None:
    """Return the version in `If-Match`, quoted or not, if the header is there.

    `*` is refused: it would overwrite what the caller has never seen, and that is what the header
    is there to prevent.
    """
    text = request.headers.get("If-Match")
    if text is None:
        return None
    match = _VERSION_TAG.fullmatch(text.strip())
    if match is None or text.count('"') not in (0, 2):
        raise ProblemError(bad_header("If-Match", 'should be one version, such as "7"'))
    return int(match.group(1))

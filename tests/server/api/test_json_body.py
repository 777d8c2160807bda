"""Bodies that no one should send, and what a good one may hold."""

import contextlib
import io
import json

import pytest
from flask import Flask
from hypothesis import given, settings
from hypothesis import strategies as st
from werkzeug.test import EnvironBuilder, TestResponse, run_wsgi_app
from werkzeug.wrappers import Request

from flagd_server.api.json_body import (
    MAX_BODY_BYTES,
    MAX_DEPTH,
    MAX_NAMES,
    UnreadableBodyError,
    parse_json,
)
from flagd_server.services.first_start import InitialTokens
from tests.server.api.client import Api
from tests.server.api.conftest import PRODUCTION

UNREADABLE = {
    "empty": b"",
    "blank": b" \n ",
    "text": b"hello",
    "half": b'{"key": "pre',
    "two documents": b"{} {}",
    "comment": b"{} // x",
    "trailing comma": b'{"a": 1,}',
    "single quotes": b"{'a': 1}",
    "byte order mark": b"\xef\xbb\xbf{}",
    "utf-16": '{"a": 1}'.encode("utf-16"),
    "not utf-8": b'{"a": "\xff"}',
    "encoded surrogate": b'{"a": "\xed\xa0\x80"}',
    "lone surrogate": b'{"a": "\\ud800"}',
    "lone surrogate as a name": b'{"\\udfff": 1}',
    "pair the wrong way round": b'{"a": "\\udc00\\ud800"}',
    "lone surrogate inside": b'{"a": [[{"b": "x\\uD83Dx"}]]}',
    "nul": b'{"a": "\\u0000"}',
    "nul as a name": b'{"a\\u0000b": 1}',
    "raw nul": b'{"a": "\x00"}',
    "raw control character": b'{"a": "\x1f"}',
    "nan": b'{"a": NaN}',
    "infinity": b'{"a": -Infinity}',
    "overflow": b'{"a": 1e999}',
    "5,000 digits": b'{"a": ' + b"9" * 5_000 + b"}",
    "5,000 decimals": b'{"a": 0.' + b"9" * 5_000 + b"}",
    "leading zero": b'{"a": 007}',
    "name twice": b'{"a": 1, "b": 2, "a": 1}',
    "name twice inside": b'[{"a": {"b": 1, "b": 1}}]',
    "name twice by escape": b'{"a": 1, "\\u0061": 2}',
    "arrays too deep": b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1),
    "objects too deep": b'{"a":' * (MAX_DEPTH + 1) + b"1" + b"}" * (MAX_DEPTH + 1),
    "100,000 arrays": b"[" * 100_000 + b"]" * 100_000,
    "100,000 objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "100,000 brackets and no end": b"[" * 100_000,
}


@pytest.mark.parametrize("body", UNREADABLE.values(), ids=UNREADABLE.keys())
def test_what_can_not_be_trusted_is_refused(body: bytes) -> None:
    with pytest.raises(UnreadableBodyError) as caught:
        parse_json(body)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("body", UNREADABLE.values(), ids=UNREADABLE.keys())
def test_it_is_a_400_at_the_api_and_changes_nothing(admin: Api, checkout: str, body: bytes) -> None:
    # An empty body needs its Content-Type said too, or it would be refused for that.
    headers = {"Content-Type": "application/json"}
    refused = admin.patch(PRODUCTION, raw=body, if_match=2, headers=headers)
    assert refused.status_code == 400
    assert refused.json["type"].endswith(":unreadable-body")
    assert admin.get(PRODUCTION).json["version"] == 2


@pytest.mark.parametrize(
    "document",
    [
        {},
        [],
        None,
        "text",
        {"a": [1, -1, 0.5, 1e300, True, False, None, "", "ünï \U0001f600"]},
        {"": {"a": 1}, "b": {"a": 1}},
        2**53 + 1,
        [{"a": 1}] * 1_000,
    ],
)
def test_everything_else_is_read_as_it_was_written(document: object) -> None:
    assert parse_json(json.dumps(document).encode()) == document
    assert parse_json(json.dumps(document, ensure_ascii=False).encode()) == document


def test_escaped_pairs_are_characters() -> None:
    assert parse_json(b'["\\ud83d\\ude00", "\\\\ud800"]') == ["\U0001f600", "\\ud800"]


def test_the_deepest_nesting_allowed_is_read() -> None:
    document = parse_json(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH)
    assert document[0] is not None


class TestSize:
    def test_a_body_at_the_limit_is_read(self, admin: Api) -> None:
        body = b'{"key": "x"' + b" " * (MAX_BODY_BYTES - 12) + b"}"
        assert len(body) == MAX_BODY_BYTES
        assert admin.request("POST", "/api/v1/environments", raw=body).status_code == 201

    def test_a_byte_more_is_refused_before_it_is_parsed(self, admin: Api) -> None:
        body = b"x" * (MAX_BODY_BYTES + 1)
        assert admin.request("POST", "/api/v1/environments", raw=body).status_code == 413

    @pytest.mark.parametrize(("size", "status"), [(0, 201), (1, 413), (100, 413)])
    def test_a_body_of_unannounced_length_is_bounded_too(
        self, app: Flask, initial_tokens: InitialTokens, size: int, status: int
    ) -> None:
        body = io.BytesIO(b'{"key": "x"' + b" " * (MAX_BODY_BYTES - 12) + b"}" + b" " * size)
        environ = EnvironBuilder(
            "/api/v1/environments",
            method="POST",
            headers={"Authorization": f"Bearer {initial_tokens.admin}"},
            content_type="application/json",
        ).get_environ()
        # As a server hands on a chunked body.
        environ |= {"wsgi.input": body, "wsgi.input_terminated": True}
        environ.pop("CONTENT_LENGTH", None)
        response = TestResponse(*run_wsgi_app(app, environ), request=Request(environ))
        assert response.status_code == status
        assert body.tell() <= MAX_BODY_BYTES + 1

    def test_a_token_is_asked_for_before_the_body_is_read(self, admin: Api) -> None:
        body = b"x" * (MAX_BODY_BYTES + 1)
        refused = admin.by(None).request("POST", "/api/v1/environments", raw=body)
        assert refused.status_code == 401


class TestMediaType:
    @pytest.mark.parametrize(
        "content_type",
        [
            None,
            "text/plain",
            "application/x-www-form-urlencoded",
            "multipart/form-data; boundary=x",
            "application/json; charset=utf-16",
            "application/merge-patch+json",
            "json",
            "/",
        ],
    )
    def test_what_is_not_declared_as_json_is_refused(
        self, admin: Api, content_type: str | None
    ) -> None:
        refused = admin.post("/api/v1/environments", {"key": "preview"}, content_type=content_type)
        assert refused.status_code == 415

    @pytest.mark.parametrize(
        "content_type",
        ["application/json", "Application/JSON", 'application/json; charset="UTF-8"'],
    )
    def test_json_is_json_in_any_case(self, admin: Api, content_type: str) -> None:
        created = admin.post("/api/v1/environments", {"key": "preview"}, content_type=content_type)
        assert created.status_code == 201

    def test_a_compressed_body_is_refused(self, admin: Api) -> None:
        headers = {"Content-Encoding": "gzip"}
        refused = admin.post("/api/v1/environments", {"key": "preview"}, headers=headers)
        assert refused.status_code == 415

    @pytest.mark.parametrize("body", [b"[]", b"null", b'"key"', b"17", b"true"])
    def test_a_document_that_is_no_object_is_refused(self, admin: Api, body: bytes) -> None:
        refused = admin.request("POST", "/api/v1/environments", raw=body)
        assert refused.status_code == 422
        assert refused.json["errors"] == [{"field": "body", "message": "should be an object"}]


def test_a_million_faults_get_a_short_answer(admin: Api) -> None:
    names = {f"f{number}": 0 for number in range(80_000)}
    refused = admin.post("/api/v1/environments", names)
    assert refused.status_code == 422
    assert len(refused.json["errors"]) == 100
    assert len(refused.data) < 20_000


def test_an_odd_name_is_quoted_and_cut(admin: Api) -> None:
    body = {"key": "preview", "a b": 1, 'q"': 1, "x" * 10_000: 1}
    fields = [fault["field"] for fault in admin.post("/api/v1/environments", body).json["errors"]]
    assert fields[:2] == ['["a b"]', '["q\\""]']
    assert len(fields[2]) < 100


@settings(deadline=None)
@given(st.one_of(st.binary(max_size=200), st.text(max_size=100).map(str.encode)))
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    with contextlib.suppress(UnreadableBodyError):
        parse_json(body)


_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0")),
    lambda inner: st.lists(inner) | st.dictionaries(st.text("abc\u00e9"), inner),
)


@settings(deadline=None)
@given(_JSON, st.booleans())
def test_any_good_document_is_read_as_the_standard_decoder_reads_it(
    document: object, is_ascii: bool
) -> None:
    body = json.dumps(document, ensure_ascii=is_ascii).encode()
    assert parse_json(body) == json.loads(body)


def test_so_many_names_and_no_more_wherever_they_stand() -> None:
    def body(names: int) -> bytes:
        half = names // 2
        inner = ",".join(f'"{i}" :0' for i in range(half))
        outer = ",".join(f'"{i}": 0' for i in range(names - half - 1))
        return f'{{"inner": {{{inner}}}, {outer}}}'.encode()

    assert len(parse_json(body(MAX_NAMES))["inner"]) == MAX_NAMES // 2
    with pytest.raises(UnreadableBodyError, match="more than 100000 names"):
        parse_json(body(MAX_NAMES + 1))
    assert parse_json(b'"' + b"a:" * MAX_NAMES + b'"') == "a:" * MAX_NAMES

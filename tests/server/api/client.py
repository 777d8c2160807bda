"""A client of the API that holds every exchange to `openapi.yaml`."""

import gzip
import json
from collections.abc import Mapping
from typing import Any

from flask import Flask
from werkzeug.test import TestResponse

from tests.contract.openapi_contract import ContractError, Exchange, contract


class Api:
    """Sends requests with one token; what the server did not document fails the test."""

    def __init__(self, app: Flask, token: str | None = None) -> None:
        self._client = app.test_client(use_cookies=False)
        self._app = app
        self.token = token

    def by(self, token: str | None) -> "Api":
        """Return a client with another token."""
        return Api(self._app, token)

    def get(self, path: str, **options: Any) -> TestResponse:
        return self.request("GET", path, **options)

    def post(self, path: str, body: Any = None, **options: Any) -> TestResponse:
        return self.request("POST", path, body, **options)

    def put(self, path: str, body: Any = None, **options: Any) -> TestResponse:
        return self.request("PUT", path, body, **options)

    def patch(self, path: str, body: Any = None, **options: Any) -> TestResponse:
        return self.request("PATCH", path, body, **options)

    def delete(self, path: str, **options: Any) -> TestResponse:
        return self.request("DELETE", path, **options)

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        if_match: int | str | None = None,
        headers: Mapping[str, str] | None = None,
        raw: bytes | None = None,
        content_type: str | None = "application/json",
        is_failure_expected: bool = False,
    ) -> TestResponse:
        """Send a request.

        Args:
            body: sent as JSON unless `raw` is given.
            if_match: a version, or the header's text.
            is_failure_expected: whether 500 is what the test is about.
        """
        data = raw if raw is not None else b"" if body is None else json.dumps(body).encode()
        sent = {name.lower(): value for name, value in (headers or {}).items()}
        if self.token is not None:
            sent.setdefault("authorization", f"Bearer {self.token}")
        if if_match is not None:
            sent["if-match"] = f'"{if_match}"' if isinstance(if_match, int) else if_match
        if data and content_type is not None:
            sent["content-type"] = content_type
        target, _, query = path.partition("?")
        response = self._client.open(
            target, method=method, query_string=query, data=data, headers=sent
        )
        content = response.data if response.mimetype != "text/event-stream" else b""
        if response.headers.get("Content-Encoding") == "gzip":
            content = gzip.decompress(content)
        is_endless = response.mimetype == "text/event-stream"
        if is_endless:
            response.close()
        if response.status_code == 500 and not is_failure_expected:
            raise ContractError(f"{method} {path} → 500 {response.data!r}")
        contract().check(
            Exchange(
                method=method.lower(),
                path=target,
                query=query,
                request_headers=sent,
                request_body=data,
                status=response.status_code,
                headers={name.lower(): value for name, value in response.headers.items()},
                body=None if is_endless else content,
            )
        )
        return response

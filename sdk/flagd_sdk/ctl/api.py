"""The admin API over HTTP: the only module of flagctl that knows HTTP."""

import threading
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote, urlsplit

import requests

from flagd_sdk.ctl.exits import CommandError, Exit, Problem

Json = dict[str, Any]

_CONNECT_TIMEOUT_S = 5.0
_TIMEOUT_S = 30.0
_AT_ONCE = 8
_PAGE = 200
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


def at(*segments: str) -> str:
    """Return the path of a thing under `/api/v1`; a segment may hold any text."""
    # A dot segment is resolved by whoever meets it first, quoted or not: it names another path.
    if any(segment in ("", ".", "..") for segment in segments):
        raise CommandError(f"{'/'.join(segments)!r} names nothing", Exit.USAGE)
    return "/api/v1/" + "/".join(quote(segment, safe="") for segment in segments)


class _Bearer(requests.auth.AuthBase):
    """An authorisation of our own: without one, `requests` would take another from ~/.netrc."""

    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._token}"
        return request


class Api:
    """One server and a token for it. Safe for any thread; each has a session of its own.

    Every method raises `CommandError` where the server refuses, can't be reached, or answers what
    no server does. Redirects are not followed, as the token would go with them.
    """

    def __init__(self, url: str, token: str) -> None:
        self.url = url
        self._auth = _Bearer(token)
        self._local = threading.local()

    def get(self, path: str, **query: str) -> Json:
        return self._call("GET", path, query=query)

    def post(
        self,
        path: str,
        body: Json,
        version: int | None = None,
        query: Mapping[str, str] | None = None,
    ) -> Json:
        return self._call("POST", path, body, version, query)

    def patch(self, path: str, body: Json, version: int | None = None) -> Json:
        """Change a thing; `version` is the one that was seen, and a newer one is a conflict."""
        return self._call("PATCH", path, body, version)

    def put(self, path: str, body: Json) -> Json:
        return self._call("PUT", path, body)

    def get_all(self, paths: Iterable[str]) -> list[Json]:
        """Return the answers in the order of the paths; several are asked for at once."""
        wanted = list(paths)
        if len(wanted) < 2:
            return [self.get(path) for path in wanted]
        with ThreadPoolExecutor(min(_AT_ONCE, len(wanted))) as pool:
            return list(pool.map(self.get, wanted))

    def pages(self, path: str, limit: int, **query: str) -> list[Json]:
        """Return the newest items of a list that comes in pages, at most so many."""
        found: list[Json] = []
        while len(found) < limit:
            page = self.get(path, limit=str(min(_PAGE, limit - len(found))), **query)
            found += page["items"]
            if page["next"] is None:
                break
            query["before"] = str(page["next"])
        return found[:limit]

    def _call(
        self,
        method: str,
        path: str,
        body: Json | None = None,
        version: int | None = None,
        query: Mapping[str, str] | None = None,
    ) -> Json:
        headers = {"Accept": "application/json"}
        if version is not None:
            headers["If-Match"] = f'"{version}"'
        timeout_s = _TIMEOUT_S + float((query or {}).get("wait_s", "0"))
        try:
            answer = self._session().request(
                method,
                self.url + path,
                params=query or None,
                json=body,
                headers=headers,
                timeout=(_CONNECT_TIMEOUT_S, timeout_s),
                allow_redirects=False,
            )
            document = answer.json() if answer.content else {}
        except requests.JSONDecodeError:
            raise _strange(self.url, answer.status_code) from None
        except (requests.RequestException, ValueError, OSError) as error:
            message = f"{self.url} can't be reached: {_root_of(error)}"
            raise CommandError(message, Exit.UNREACHABLE) from error
        is_done = 200 <= answer.status_code < 300
        if type(document) is not dict or not (is_done or "detail" in document):
            raise _strange(self.url, answer.status_code)
        if not is_done:
            raise _refusal(answer.status_code, document)
        return document

    def _session(self) -> requests.Session:
        session: requests.Session | None = getattr(self._local, "session", None)
        if session is None:
            session = self._local.session = requests.Session()
            session.auth = self._auth
            # A proxy for the outside world has no business with a server on this machine.
            session.trust_env = urlsplit(self.url).hostname not in _LOOPBACK
        return session


def _strange(url: str, status: int) -> CommandError:
    message = f"{url} answered {status} and no JSON of flagd's; is it the address of a server?"
    return CommandError(message, Exit.UNREACHABLE, status=status)


def _refusal(status: int, problem: Json) -> CommandError:
    if status in (409, 412):
        kind = Exit.CONFLICT
    elif status == 429 or status >= 500:
        kind = Exit.UNREACHABLE
    else:
        kind = Exit.REFUSED
    faults = [Problem(each["field"], each["message"]) for each in problem.get("errors", ())]
    message = str(problem["detail"])
    if faults:
        message = f"the server refuses {'a field' if len(faults) == 1 else 'some fields'}"
    elif status == 401:
        message = "the server does not know this token; see FLAGD_TOKEN"
    elif status == 403 and "required_scopes" in problem:
        scopes = " or ".join(problem["required_scopes"])
        message = f"this token does not allow it; a token of scope {scopes} is needed"
    return CommandError(message, kind, faults, status)


def _root_of(error: BaseException) -> str:
    """Name what was behind an error: the stack's own text holds addresses of objects."""
    for _ in range(10):
        inner = getattr(error, "reason", None) or error.__cause__ or error.__context__
        if not isinstance(inner, BaseException):
            break
        error = inner
    return f"{getattr(error, 'strerror', None) or type(error).__name__}"

"""Paths as nobody's library would send them, over bare sockets, to the real server.

Without a token, and with one that is for something else, no answer tells anything about flags.
tests/server/api/test_access_matrix.py tries every caller and trick; here is what the server in
front of the application makes of them.
"""

import socket
from collections.abc import Callable, Iterator

import pytest

from tests.contract.openapi_contract import Operation, contract
from tests.end_to_end.flag_server import FlagServer
from tests.end_to_end.processes import DEADLINE_S

CANARY = "what-the-flag-serves"
KNOWN = {"flag": "new-checkout", "key": "new-checkout", "environment": "production"}
TRICKS: dict[str, Callable[[str], str]] = {
    "plain": lambda path: path,
    "double slash": lambda path: "/" + path,
    "double slash inside": lambda path: "//".join(path.rsplit("/", 1)),
    "dot": lambda path: "/./".join(path.rsplit("/", 1)),
    "dot dot": lambda path: "/healthz/.." + path,
    "escaped dot dot": lambda path: "/healthz/%2e%2e" + path,
    "escaped slash": lambda path: "%2f".join(path.rsplit("/", 1)),
    "escaped letter": lambda path: "/%" + f"{ord(path[1]):02x}" + path[2:],
    "parameter": lambda path: path + ";x=1",
    "upper case": lambda path: path.upper(),
    "trailing slash": lambda path: path + "/",
    "NUL": lambda path: path + "%00",
    "bare NUL": lambda path: path + "\0",
    "backslash": lambda path: path.replace("/", "\\"),
    "no slash": lambda path: path[1:],
    "absolute": lambda path: "http://127.0.0.1" + path,
    "absolute, another host": lambda path: "http://healthz" + path,
    "fragment": lambda path: path + "#/healthz",
    "tab": lambda path: path + "\t",
}


@pytest.fixture(scope="module")
def module_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FlagServer]:
    """One that limits nobody: 429 would stand for whatever else was to be answered."""
    unlimited = dict.fromkeys(
        ("FLAGD_API_PER_MINUTE", "FLAGD_OPEN_PER_MINUTE", "FLAGD_REFUSED_PER_MINUTE"), "0"
    )
    server = FlagServer(tmp_path_factory.mktemp("raw"), **unlimited)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def operations() -> list[Operation]:
    return [
        each
        for each in contract().operations
        if each.method == "get" and not each.is_open and "stream" not in each.name
    ]


def path_of(operation: Operation) -> str:
    examples = {each["name"]: each.get("example") for each in operation.parameters}
    return operation.template.format(**{**examples, **KNOWN})


def ask(port: int, target: str, headers: str = "", method: str = "GET") -> bytes:
    """Return all that is answered to one request, on a connection of its own."""
    with socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S) as sock:
        head = f"{method} {target} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
        sock.sendall(f"{head}{headers}\r\n".encode("latin-1"))
        answer = b""
        while piece := sock.recv(65_536):
            answer += piece
    return answer


@pytest.fixture(scope="module")
def strangers(module_server: FlagServer) -> dict[str, str]:
    server = module_server
    variants = {"on": CANARY, "off": "nothing"}
    flag = {"key": KNOWN["flag"], "type": "string", "variants": variants, "owner": CANARY}
    assert server.call("POST", "/api/v1/flags", flag).status_code == 201
    made = server.call("POST", "/api/v1/tokens", {"scope": "kill", "name": "button"}).json()
    return {
        "nobody": "",
        "a cookie": f"Cookie: __Host-flagd_session={'x' * 43}\r\n",
        "an application": f"Authorization: Bearer {server.sdk_tokens['staging']}\r\n",
        "a button": f"Authorization: Bearer {made['text']}\r\n",
        "a forwarded request": "X-Original-URL: /healthz\r\nX-Rewrite-URL: /healthz\r\n"
        "X-Forwarded-For: 127.0.0.1\r\nX-Forwarded-User: admin\r\nRemote-User: admin\r\n",
        "an administrator's name": "Authorization: Basic YWRtaW46YWRtaW4=\r\n",
    }


@pytest.mark.parametrize("trick", TRICKS)
def test_no_answer_tells_a_stranger_of_flags(
    module_server: FlagServer,
    strangers: dict[str, str],
    operations: list[Operation],
    trick: str,
) -> None:
    # All strangers on some paths, and one besides nobody on each of the others, in turn.
    for number, operation in enumerate(operations):
        is_of_applications = operation.template.startswith("/sdk")
        names = [name for name in strangers if not is_of_applications or name != "an application"]
        path = TRICKS[trick](path_of(operation))
        for name in names if number % 20 == 0 else ["nobody", names[number % len(names)]]:
            answer = ask(module_server.port, path, strangers[name])
            status = int(answer[9:12]) if answer else 0
            assert CANARY.encode() not in answer, (path, name)
            assert status in (0, 400, 401, 403, 404, 405), (path, name, answer)


def test_two_requests_in_one_do_not_lend_each_other_their_token(
    module_server: FlagServer, strangers: dict[str, str]
) -> None:
    """Requests behind each other on one connection, the first of them with a token."""
    server = module_server
    token = f"Authorization: Bearer {server.admin_token}\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=DEADLINE_S) as sock:
        host = "Host: 127.0.0.1\r\n"
        for headers in (token, "Connection: close\r\n"):
            sock.sendall(f"GET /api/v1/flags HTTP/1.1\r\n{host}{headers}\r\n".encode())
        answers = b""
        while piece := sock.recv(65_536):
            answers += piece
    assert CANARY.encode() in answers
    first, _, second = answers.partition(b"HTTP/1.1 401 ")
    assert first.startswith(b"HTTP/1.1 200 ")
    assert second
    assert CANARY.encode() not in second


@pytest.mark.parametrize("method", ["OPTIONS", "TRACE", "CONNECT", "PROPFIND", "get", "GET/", "0"])
def test_no_other_method_is_answered_with_anything(
    module_server: FlagServer, strangers: dict[str, str], method: str
) -> None:
    token = f"Authorization: Bearer {module_server.admin_token}\r\n"
    for path in ("/api/v1/flags", "/sdk/v1/flags", "/api/v1/people", "*"):
        answer = ask(module_server.port, path, token, method)
        assert answer[9:12] in (b"400", b"404", b"405", b"501"), answer[:200]
        assert CANARY.encode() not in answer

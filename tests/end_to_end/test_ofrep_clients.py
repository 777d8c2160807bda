"""OpenFeature's own OFREP clients, in Python and JavaScript, against a real server."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from openfeature import api
from openfeature.client import OpenFeatureClient
from openfeature.contrib.provider.ofrep import OFREPProvider
from openfeature.evaluation_context import EvaluationContext
from openfeature.exception import ErrorCode
from openfeature.flag_evaluation import Reason

from tests.end_to_end import node_clients
from tests.end_to_end.flag_server import FlagServer
from tests.end_to_end.node_clients import WebClient, evaluate_on_server
from tests.end_to_end.ofrep_flags import FLAGS, RATIONED, SPLIT, create_flags, create_token
from tests.waiting import eventually

# The JavaScript packages are installed once for all of these, in the time of the first.
pytestmark = pytest.mark.timeout(300)

USER = EvaluationContext("user-42", {"country": "NL", "age": 42})


@pytest.fixture
def own_server(server: FlagServer) -> FlagServer:
    """A server with the flags, for a test that changes them."""
    create_flags(server)
    return server


@pytest.fixture
def python_client() -> Iterator[Callable[[str, dict[str, str]], OpenFeatureClient]]:
    """Make clients of the Python SDK with the OFREP provider."""
    providers: list[OFREPProvider] = []

    def make(url: str, headers: dict[str, str]) -> OpenFeatureClient:
        providers.append(OFREPProvider(url, headers_factory=lambda: headers))
        domain = f"ofrep-{len(providers)}"
        api.set_provider_and_wait(providers[-1], domain)
        return api.get_client(domain)

    yield make
    api.clear_providers()
    for provider in providers:
        provider.session.close()


class TestPython:
    def test_gets_each_type_with_variant_and_reason(
        self,
        ofrep_server: FlagServer,
        ofrep_token: str,
        python_client: Callable[..., OpenFeatureClient],
    ) -> None:
        for headers in ({"Authorization": f"Bearer {ofrep_token}"}, {"X-API-Key": ofrep_token}):
            client = python_client(ofrep_server.url, headers)
            checkout = client.get_boolean_details("new-checkout", True, USER)
            assert (checkout.reason, checkout.error_code) == (Reason.SPLIT, None)
            assert checkout.value is (checkout.variant == "on")
            assert checkout.flag_metadata == {"version": 2, "split": "default"}
            for details, value, variant in (
                (client.get_string_details("banner", "", USER), "blå", "blue"),
                (client.get_integer_details("limit", 7, USER), 42, "many"),
                (client.get_object_details("layout", {}, USER), {"columns": [1, 2]}, "wide"),
                (client.get_object_details("sizes", [], USER), ["S", "M"], "all"),
            ):
                assert (details.value, details.variant) == (value, variant)
                assert (details.reason, details.error_code) == (Reason.STATIC, None)
            # Stored as the integer 1; this client takes nothing but a float for a float.
            factor = client.get_float_details("factor", 0.25, USER)
            assert (factor.value, type(factor.value), factor.error_code) == (1.0, float, None)

    def test_hears_of_a_kill_at_its_next_question(
        self, own_server: FlagServer, python_client: Callable[..., OpenFeatureClient]
    ) -> None:
        client = python_client(own_server.url, {"X-API-Key": create_token(own_server)})
        own_server.kill_flag("new-checkout")
        killed = client.get_boolean_details("new-checkout", True, USER)
        assert (killed.value, killed.variant, killed.reason) == (False, "off", Reason.DISABLED)

    def test_gets_the_error_codes_of_the_specification(
        self,
        ofrep_server: FlagServer,
        ofrep_token: str,
        python_client: Callable[..., OpenFeatureClient],
    ) -> None:
        client = python_client(ofrep_server.url, {"X-API-Key": ofrep_token})
        wide = EvaluationContext("user-42", {f"a{n}": n for n in range(300)})
        for details, code, said in (
            (
                client.get_boolean_details("nothing", True, USER),
                ErrorCode.FLAG_NOT_FOUND,
                "nothing",
            ),
            (
                client.get_boolean_details("new-checkout", True),
                ErrorCode.TARGETING_KEY_MISSING,
                "targetingKey",
            ),
            (client.get_boolean_details("banner", True, USER), ErrorCode.TYPE_MISMATCH, "bool"),
            (client.get_boolean_details("banner", True, wide), ErrorCode.INVALID_CONTEXT, "256"),
        ):
            assert (details.value, details.reason) == (True, Reason.ERROR)
            assert details.error_code == code
            assert said in str(details.error_message)

    def test_is_told_that_its_token_opens_nothing(
        self,
        ofrep_server: FlagServer,
        ofrep_token: str,
        python_client: Callable[..., OpenFeatureClient],
    ) -> None:
        for headers, said in (
            ({"Authorization": "Bearer fr_ofrep_production_x"}, "unauthorized"),
            ({"Authorization": f"Bearer {ofrep_server.admin_token}"}, "forbidden"),
        ):
            details = python_client(ofrep_server.url, headers).get_string_details(
                "banner", "x", USER
            )
            assert (details.value, details.error_code) == ("x", ErrorCode.GENERAL)
            assert details.error_message == said

    def test_pauses_when_it_asks_too_often(
        self,
        start_server: Callable[..., FlagServer],
        python_client: Callable[..., OpenFeatureClient],
    ) -> None:
        server = start_server(program=RATIONED)
        create_flags(server)
        client = python_client(server.url, {"X-API-Key": create_token(server)})

        def said() -> str:
            return client.get_string_details("banner", "x", USER).error_message or ""

        assert [said(), said()] == ["", ""]
        assert said().startswith("Rate limited, retry after: ")
        # Who asks again only when that time is over is told it again.
        eventually(lambda: "paused due to TooManyRequests" in said())


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return node_clients.install(tmp_path_factory.mktemp("node"))


def question(key: str, kind: str, default: Any, **context: Any) -> dict[str, Any]:
    return {
        "key": key,
        "type": kind,
        "default": default,
        "context": {"targetingKey": "user-42"} | context,
    }


class TestNodeOnAServer:
    def test_gets_each_type_and_each_error(
        self, node: Path, ofrep_server: FlagServer, ofrep_token: str
    ) -> None:
        unplaced = question("new-checkout", "boolean", True) | {"context": {}}
        questions = [
            question("new-checkout", "boolean", True),
            question("banner", "string", ""),
            question("limit", "number", 7),
            question("factor", "number", 0.25),
            question("layout", "object", {}),
            question("sizes", "object", []),
            question("nothing", "boolean", True),
            unplaced,
            question("banner", "boolean", True),
            question("banner", "string", "x", **{f"a{n}": n for n in range(300)}),
        ]
        headers = {"Authorization": f"Bearer {ofrep_token}"}
        details, requests = evaluate_on_server(node, ofrep_server.url, headers, questions)
        assert [request["status"] for request in requests] == [200] * 6 + [404, 400, 200, 400]
        assert {
            (request["method"], request["path"].rpartition("/")[0]) for request in requests
        } == {("POST", "/ofrep/v1/evaluate/flags")}
        checkout = details[0]
        assert (checkout["reason"], checkout["value"]) == ("SPLIT", checkout["variant"] == "on")
        assert checkout["flagMetadata"] == {"version": 2, "split": "default"}
        assert [(each["value"], each["variant"], each["reason"]) for each in details[1:6]] == [
            ("blå", "blue", "STATIC"),
            (42, "many", "STATIC"),
            (1, "whole", "STATIC"),
            ({"columns": [1, 2]}, "wide", "STATIC"),
            (["S", "M"], "all", "STATIC"),
        ]
        assert [(each["value"], each["errorCode"]) for each in details[6:]] == [
            (True, "FLAG_NOT_FOUND"),
            (True, "TARGETING_KEY_MISSING"),
            (True, "TYPE_MISMATCH"),
            ("x", "INVALID_CONTEXT"),
        ]
        assert details[6]["errorMessage"] == "there is no flag 'nothing'"
        assert "'targetingKey'" in details[7]["errorMessage"]

    def test_is_told_that_its_token_opens_nothing(
        self, node: Path, ofrep_server: FlagServer, ofrep_token: str
    ) -> None:
        for headers, status in (
            ({"X-API-Key": "fr_ofrep_production_x"}, 401),
            ({"Authorization": f"Bearer {ofrep_server.admin_token}"}, 403),
        ):
            (details,), (request,) = evaluate_on_server(
                node, ofrep_server.url, headers, [question("banner", "string", "x")]
            )
            assert (details["value"], details["errorCode"]) == ("x", "GENERAL")
            assert request["status"] == status

    def test_pauses_when_it_asks_too_often(
        self, node: Path, start_server: Callable[..., FlagServer]
    ) -> None:
        server = start_server(program=RATIONED)
        create_flags(server)
        headers = {"X-API-Key": create_token(server)}
        questions = [question("banner", "string", "x")] * 5
        details, requests = evaluate_on_server(node, server.url, headers, questions)
        # After the refusal it asks no more, unless the machine stood still for all of that time.
        statuses = [request["status"] for request in requests]
        assert statuses in ([200, 200, 429], [200, 200, 429, 429])
        assert 1 <= int(requests[-1]["retryAfter"]) <= 5
        assert [each["value"] for each in details] == ["blå", "blå", "x", "x", "x"]
        assert any("paused due to TooManyRequests" in each["errorMessage"] for each in details[3:])


@pytest.fixture
def web(node: Path) -> Iterator[WebClient]:
    client = WebClient(node)
    yield client
    client.close()


class TestNodeAsAWebPage:
    def start(self, web: WebClient, server: FlagServer, **options: Any) -> None:
        token = create_token(server, "client")
        options = {"baseUrl": server.url, "headers": [["X-API-Key", token]], **options}
        context = {"targetingKey": "user-42"}
        assert web.ask(do="start", options=options, context=context) is None

    def test_hears_of_a_change_by_the_event_stream(
        self, web: WebClient, own_server: FlagServer
    ) -> None:
        self.start(web, own_server)
        stream = web.wait_for("stream")["opened"]
        assert stream.startswith(f"{own_server.url}/ofrep/v1/stream?ticket=tok-")
        # The first event: there may have been a change before the stream was open. There was none.
        unchanged = web.wait_for("request", lambda request: request["because"])
        first = web.said("request")[0]
        assert (first["method"], first["path"]) == ("POST", "/ofrep/v1/evaluate/flags")
        assert (first["status"], first["held"], first["because"]) == (200, None, None)
        assert (unchanged["status"], unchanged["held"]) == (304, first["etag"])

        for key, kind, default in (
            ("banner", "string", ""),
            ("limit", "number", 7),
            ("factor", "number", 0.25),
            ("layout", "object", {}),
            ("new-checkout", "boolean", True),
        ):
            details = web.ask(do="evaluate", type=kind, key=key, default=default)
            variants, served = FLAGS[key][1:]
            assert details["value"] == variants[details["variant"]]
            assert details["reason"] == ("SPLIT" if served == SPLIT else "STATIC")
        absent = web.ask(do="evaluate", type="boolean", key="nothing", default=True)
        assert (absent["value"], absent["errorCode"]) == (True, "FLAG_NOT_FOUND")

        asked = len(web.said("request"))
        assert asked == 2  # none for any of the evaluations
        killed_at = time.monotonic()
        own_server.kill_flag("new-checkout")
        event = web.wait_for("event")
        # Else it would have asked by itself, half a minute after the last time.
        assert time.monotonic() - killed_at < 15.0
        assert event["flags"] == ["new-checkout"]
        refetch = web.said("request")[asked]
        assert (refetch["status"], refetch["held"]) == (200, first["etag"])
        assert refetch["because"].startswith('"production-')
        details = web.ask(do="evaluate", type="boolean", key="new-checkout", default=True)
        assert (details["value"], details["reason"]) == (False, "DISABLED")

    def test_keeps_its_stream_while_the_user_changes(
        self, web: WebClient, ofrep_server: FlagServer, ofrep_token: str
    ) -> None:
        self.start(web, ofrep_server)
        web.wait_for("request", lambda request: request["because"])
        assert web.ask(do="context", context={}) is None
        details = web.ask(do="evaluate", type="boolean", key="new-checkout", default=True)
        assert (details["value"], details["errorCode"]) == (True, "TARGETING_KEY_MISSING")
        assert "'targetingKey'" in details["errorMessage"]
        values: set[bool] = set()
        for number in range(40):  # few of these see both
            if len(values) == 2:
                break
            web.ask(do="context", context={"targetingKey": f"user-{number}"})
            details = web.ask(do="evaluate", type="boolean", key="new-checkout", default=True)
            values.add(details["value"])
        assert values == {True, False}
        assert len(web.said("stream")) == 1

    def test_finds_its_way_back_to_a_server_that_died(
        self, web: WebClient, own_server: FlagServer
    ) -> None:
        self.start(web, own_server)
        opened = web.wait_for("stream", lambda stream: "opened" in stream)["opened"]
        # The socket that listens stays. Where it goes too, as in a restart, node's EventSource may
        # give up for the half minute after which the provider begins anew.
        own_server.kill_worker()
        again = web.wait_for("stream", lambda stream: "opened" in stream)["opened"]
        assert again == opened  # the ticket outlives the process
        own_server.kill_flag("new-checkout")
        web.wait_for("event", lambda event: event["flags"] == ["new-checkout"])

    def test_polls_where_it_would_rather(self, web: WebClient, own_server: FlagServer) -> None:
        self.start(web, own_server, changeDetection="polling", pollInterval=100)
        first = web.said("request")[0]
        same = web.wait_for("request")
        assert (same["status"], same["held"]) == (304, first["etag"])
        own_server.kill_flag("new-checkout")
        assert web.wait_for("event")["flags"] == ["new-checkout"]
        assert web.said("stream") == []

    def test_cannot_begin_with_a_token_that_opens_nothing(
        self, web: WebClient, ofrep_server: FlagServer
    ) -> None:
        options = {"baseUrl": ofrep_server.url, "headers": [["X-API-Key", "fr_ofrep_production_x"]]}
        answer = web.ask(do="start", options=options, context={})
        assert "Initialization failed" in answer["error"]
        assert web.said("request")[0]["status"] == 401

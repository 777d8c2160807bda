"""OpenFeature's provider conformance suite (specification, appendix F) on a real server.

Scenarios and flags are those of `specification/assets/provider-tck` in open-feature/spec, a proof
of concept there, as of 2026-11. `docs/openfeature.md` says which capabilities the provider declares
and which it does not. Beyond the suite: an application that knows OpenFeature alone is guarded.
"""

import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import SimpleQueue
from time import monotonic
from typing import Any

import pytest
from openfeature import api
from openfeature.client import OpenFeatureClient
from openfeature.evaluation_context import EvaluationContext
from openfeature.event import EventDetails, ProviderEvent
from openfeature.exception import ProviderNotReadyError
from openfeature.flag_evaluation import FlagType
from openfeature.provider import ProviderStatus

from flagd_sdk import Backoff, FlagClient
from flagd_sdk.integrations.openfeature import FlagReleaseProvider
from tests.end_to_end.flag_server import FlagServer
from tests.end_to_end.processes import DEADLINE_S
from tests.waiting import eventually

INIT_S = 60.0  # bounds waiting only
MATCHING = "5c3d8535-f81a-4478-a6d3-afaa4d51199e"
OTHER = "f20bd32d-703b-48b6-bc8e-79d53c85134a"
PICTURES = {"showImages": True, "title": "Check out these pics!", "imagesPerPage": 100}
BOOLEAN, STRING = FlagType.BOOLEAN, FlagType.STRING
INTEGER, FLOAT, OBJECT = FlagType.INTEGER, FlagType.FLOAT, FlagType.OBJECT

# key → (type, variants, the variant that the default serves)
CANONICAL: dict[str, tuple[str, dict[str, Any], str]] = {
    "boolean-flag": ("boolean", {"on": True, "off": False}, "on"),
    "string-flag": ("string", {"greeting": "hi", "parting": "bye"}, "greeting"),
    "integer-flag": ("integer", {"one": 1, "ten": 10}, "ten"),
    "float-flag": ("float", {"tenth": 0.1, "half": 0.5}, "half"),
    "large-integer-flag": ("integer", {"one": 1, "max-int32": 2**31 - 1}, "max-int32"),
    "huge-integer-flag": ("integer", {"one": 1, "max-safe": 2**53 - 1}, "max-safe"),
    "boolean-zero-flag": ("boolean", {"zero": False, "non-zero": True}, "zero"),
    "integer-zero-flag": ("integer", {"zero": 0, "non-zero": 1}, "zero"),
    "string-zero-flag": ("string", {"zero": "", "non-zero": "str"}, "zero"),
    "object-flag": ("object", {"empty": {}, "template": PICTURES}, "template"),
    "wrong-flag": ("string", {"one": "uno", "two": "dos"}, "one"),
    "targeting-key-flag": ("string", {"miss": "miss", "hit": "hit"}, "miss"),
    "changing-flag": ("string", {"foo": "foo", "bar": "bar"}, "foo"),
}
HIT = {
    "id": "hit",
    "condition": {"attribute": "targetingKey", "op": "in", "values": [MATCHING]},
    "serve": {"variant": "hit"},
}


def connect(server: FlagServer, **settings: Any) -> FlagClient:
    return FlagClient(
        server.url,
        server.sdk_tokens["production"],
        cache_dir=None,
        report_interval_s=0.1,
        backoff=Backoff(first_s=0.25, cap_s=1.0),
        **settings,
    )


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FlagServer]:
    server = FlagServer(tmp_path_factory.mktemp("server"))
    for key, (kind, variants, served) in CANONICAL.items():
        document = {"key": key, "type": kind, "variants": variants}
        assert server.call("POST", "/api/v1/flags", document).status_code == 201
        rules = [HIT] if key == "targeting-key-flag" else []
        server.configure(key, enabled=True, default_serve={"variant": served}, rules=rules)
    yield server
    server.stop()


@pytest.fixture(scope="module", autouse=True)
def _leave_openfeature_as_it_was() -> Iterator[None]:
    yield
    api.shutdown()


@pytest.fixture(scope="module")
def client(server: FlagServer) -> OpenFeatureClient:
    """A client on a provider that made its own client."""
    api.set_provider_and_wait(FlagReleaseProvider(lambda: connect(server), init_timeout_s=INIT_S))
    return api.get_client()


# --- evaluation.feature -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "key", "default", "value", "variant"),
    [
        (BOOLEAN, "boolean-flag", False, True, "on"),
        (STRING, "string-flag", "bye", "hi", "greeting"),
        (INTEGER, "integer-flag", 1, 10, "ten"),
        (FLOAT, "float-flag", 0.1, 0.5, "half"),
        (BOOLEAN, "boolean-zero-flag", True, False, "zero"),
        (INTEGER, "integer-zero-flag", 1, 0, "zero"),
        (STRING, "string-zero-flag", "fallback", "", "zero"),
        (INTEGER, "large-integer-flag", 1, 2147483647, "max-int32"),
        (INTEGER, "huge-integer-flag", 1, 9007199254740991, "max-safe"),
        (OBJECT, "object-flag", {}, PICTURES, "template"),
    ],
)
def test_values_with_variant_and_reason(
    client: OpenFeatureClient, kind: FlagType, key: str, default: Any, value: Any, variant: str
) -> None:
    details = client.evaluate_flag_details(kind, key, default)
    assert (details.value, type(details.value)) == (value, type(value))
    assert (details.variant, details.reason) == (variant, "STATIC")
    assert (details.error_code, details.error_message) == (None, None)


@pytest.mark.parametrize(
    ("key", "who", "value"),
    [
        ("string-flag", OTHER, "hi"),
        ("targeting-key-flag", MATCHING, "hit"),
        ("targeting-key-flag", OTHER, "miss"),
        ("targeting-key-flag", None, "miss"),
    ],
)
def test_the_context_reaches_the_rules_and_disturbs_nothing_else(
    client: OpenFeatureClient, key: str, who: str | None, value: str
) -> None:
    details = client.get_string_details(key, "fallback", EvaluationContext(who))
    assert (details.value, details.error_code, details.error_message) == (value, None, None)


# --- errors.feature -----------------------------------------------------------------------------

MISMATCHES = [
    *[("string-flag", kind) for kind in (BOOLEAN, INTEGER, FLOAT)],
    ("wrong-flag", BOOLEAN),
    *[("boolean-flag", kind) for kind in (STRING, INTEGER, FLOAT)],
    *[(key, kind) for key in ("integer-flag", "float-flag") for kind in (BOOLEAN, STRING)],
    *[("object-flag", kind) for kind in (BOOLEAN, STRING, INTEGER, FLOAT)],
    ("float-flag", INTEGER),
]
DEFAULTS: dict[FlagType, Any] = {BOOLEAN: False, STRING: "fallback", INTEGER: 1, FLOAT: 0.1}


@pytest.mark.parametrize(("key", "kind"), MISMATCHES)
def test_another_type_than_the_flags_gets_the_default(
    client: OpenFeatureClient, key: str, kind: FlagType
) -> None:
    details = client.evaluate_flag_details(kind, key, DEFAULTS[kind])
    assert details.value == DEFAULTS[kind]
    assert (details.reason, details.error_code) == ("ERROR", "TYPE_MISMATCH")


def test_an_unknown_flag_gets_the_default(client: OpenFeatureClient) -> None:
    details = client.get_string_details("missing-flag", "fallback")
    assert (details.value, details.reason) == ("fallback", "ERROR")
    assert details.error_code == "FLAG_NOT_FOUND"


# --- metadata.feature, lifecycle.feature --------------------------------------------------------


def test_the_provider_has_a_name_and_is_ready(client: OpenFeatureClient) -> None:
    assert api.get_provider_metadata().name
    assert client.get_provider_status() is ProviderStatus.READY
    heard: SimpleQueue[EventDetails] = SimpleQueue()
    client.add_handler(ProviderEvent.PROVIDER_READY, heard.put)
    assert heard.get(timeout=DEADLINE_S).provider_name == "flagd-release"


def test_an_unavailable_server_is_an_error_within_ten_seconds_and_shutdown_is_prompt() -> None:
    with socket.socket() as nobody:  # bound, but nobody listens
        nobody.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        made: list[FlagClient] = []

        def make() -> FlagClient:
            made.append(FlagClient(url, "t", cache_dir=None))
            return made[-1]

        provider = FlagReleaseProvider(make, init_timeout_s=0.5)
        unavailable = api.get_client("unavailable")
        began = monotonic()
        with pytest.raises(ProviderNotReadyError):
            api.set_provider_and_wait(provider, "unavailable")
        assert monotonic() - began < 10.0
        assert unavailable.get_provider_status() is ProviderStatus.ERROR
        details = unavailable.get_boolean_details("boolean-flag", False)
        assert (details.value, details.reason) == (False, "ERROR")
        provider.shutdown()
        assert made[0].close(0.0), "it ended, and not its time"


def test_after_shutdown_it_can_be_initialised_again(server: FlagServer) -> None:
    provider = FlagReleaseProvider(lambda: connect(server), init_timeout_s=INIT_S)
    for _ in range(2):
        provider.initialize(EvaluationContext())
        assert provider.resolve_boolean_details("boolean-flag", False).value is True
        provider.shutdown()
        assert provider.resolve_boolean_details("boolean-flag", False).value is False


# --- events.feature -----------------------------------------------------------------------------


@pytest.fixture
def listen(client: OpenFeatureClient) -> Iterator[Callable[..., "SimpleQueue[EventDetails]"]]:
    handlers: list[tuple[ProviderEvent, Any]] = []

    def listen(event: ProviderEvent) -> SimpleQueue[EventDetails]:
        heard: SimpleQueue[EventDetails] = SimpleQueue()
        handlers.append((event, heard.put))
        client.add_handler(event, heard.put)
        return heard

    yield listen
    for event, handler in handlers:
        client.remove_handler(event, handler)


def test_a_change_is_signalled_and_applied(
    server: FlagServer,
    client: OpenFeatureClient,
    listen: Callable[..., "SimpleQueue[EventDetails]"],
) -> None:
    changes = listen(ProviderEvent.PROVIDER_CONFIGURATION_CHANGED)
    before = client.get_string_value("changing-flag", "unset")
    server.configure("changing-flag", default_serve={"variant": "bar"})
    assert changes.get(timeout=DEADLINE_S).flags_changed == ["changing-flag"]
    assert (before, client.get_string_value("changing-flag", "unset")) == ("foo", "bar")


def test_without_its_server_the_provider_is_stale_and_with_it_ready_again(
    server: FlagServer,
    client: OpenFeatureClient,
    listen: Callable[..., "SimpleQueue[EventDetails]"],
) -> None:
    ready = listen(ProviderEvent.PROVIDER_READY)
    stale = listen(ProviderEvent.PROVIDER_STALE)
    ready.get(timeout=DEADLINE_S)  # it is in that state already
    server.stop()
    stale.get(timeout=DEADLINE_S)
    # Whoever came back while it stopped was perhaps let in once more.
    eventually(lambda: client.get_provider_status() is ProviderStatus.STALE)
    while not ready.empty():
        ready.get()
    details = client.get_boolean_details("boolean-flag", False)
    assert (details.value, details.reason) == (True, "STALE")
    server.restart()
    ready.get(timeout=DEADLINE_S)
    assert client.get_provider_status() is ProviderStatus.READY
    assert client.get_boolean_details("boolean-flag", False).reason == "STATIC"


# --- beyond the suite ---------------------------------------------------------------------------


def test_a_flag_that_hurts_is_killed_in_an_application_that_knows_openfeature_alone(
    tmp_path: Path, server: FlagServer
) -> None:
    weights = {"split": {"weights": {"on": 50_000, "off": 50_000}}}
    server.create_flag("guarded", default_serve=weights)
    killed: SimpleQueue[EventDetails] = SimpleQueue()
    with connect(server, service="shop") as flags:
        api.set_provider_and_wait(FlagReleaseProvider(flags, init_timeout_s=INIT_S), "guarded")
        shop = api.get_client("guarded")
        shop.add_handler(ProviderEvent.PROVIDER_CONFIGURATION_CHANGED, killed.put)
        assert shop.get_boolean_details("guarded", True, EvaluationContext("x")).reason == "SPLIT"
        for number in range(300):
            who = EvaluationContext(f"user-{number}")
            with flags.scope({"targetingKey": f"user-{number}"}):
                if shop.get_boolean_value("guarded", False, who):
                    flags.fail(RuntimeError("the new way is broken"))
        assert killed.get(timeout=DEADLINE_S).flags_changed == ["guarded"]
        details = shop.get_boolean_details("guarded", True, EvaluationContext("x"))
        assert (details.value, details.reason) == (False, "DISABLED")
    # The process itself may have been first to take it off.
    path = "/api/v1/flags/guarded/environments/production"
    kill = eventually(lambda: server.call("GET", path).json()["kill"])
    assert kill["source"] == "guard"

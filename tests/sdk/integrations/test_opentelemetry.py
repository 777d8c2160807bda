"""What the real OpenTelemetry SDK exports, kept in memory."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Flask
from opentelemetry.sdk._logs import LoggerProvider, ReadableLogRecord
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.semconv._incubating.attributes import feature_flag_attributes as conventions
from opentelemetry.semconv.attributes import error_attributes
from opentelemetry.semconv.schemas import Schemas

from flagd_sdk import FlagClient, Reason
from flagd_sdk.integrations.flask import FlaskFlags
from flagd_sdk.integrations.opentelemetry import PROVIDER_NAME, instrument
from tests.sdk.fakes import SilentTransport, flag, flag_set, text_flag

CONTEXT = {"targetingKey": "u1"}


@pytest.fixture
def flags() -> Iterator[FlagClient]:
    document = flag_set(
        flag("on", on=100_000, version=7),
        flag("half", on=50_000),
        text_flag(),
        flag("killed", killed=True),
    )
    with FlagClient(
        "http://server", "t", transport=SilentTransport(), cache_dir=None, bootstrap=document
    ) as client:
        yield client


@pytest.fixture
def provider() -> Iterator[LoggerProvider]:
    made = LoggerProvider(shutdown_on_exit=False)
    yield made
    made.shutdown()


@pytest.fixture
def events(provider: LoggerProvider) -> Callable[[], list[ReadableLogRecord]]:
    exporter = InMemoryLogRecordExporter()
    provider.add_log_record_processor(SimpleLogRecordProcessor(exporter))
    return lambda: list(exporter.get_finished_logs())


def attributes(events: Callable[[], list[ReadableLogRecord]]) -> list[dict[str, Any]]:
    return [dict(event.log_record.attributes or {}) for event in events()]


def test_an_exposure_is_an_event_of_the_semantic_conventions(
    flags: FlagClient, provider: LoggerProvider, events: Callable[[], list[ReadableLogRecord]]
) -> None:
    instrument(flags, logger_provider=provider)
    with flags.scope(CONTEXT):
        for _ in range(3):
            flags.is_enabled("on")
    (event,) = events()
    assert event.log_record.event_name == "feature_flag.evaluation"
    assert event.log_record.timestamp is not None
    assert event.log_record.attributes == {
        conventions.FEATURE_FLAG_KEY: "on",
        conventions.FEATURE_FLAG_PROVIDER_NAME: PROVIDER_NAME,
        conventions.FEATURE_FLAG_RESULT_REASON: "static",
        conventions.FEATURE_FLAG_RESULT_VARIANT: "on",
        conventions.FEATURE_FLAG_SET_ID: "production",
        conventions.FEATURE_FLAG_VERSION: "7",
    }
    scope = event.instrumentation_scope
    assert scope is not None
    assert (scope.name, scope.schema_url) == ("flagd_sdk", Schemas.V1_44_0.value)


def test_an_error_is_told_with_its_type_and_the_value_served_instead(
    flags: FlagClient, provider: LoggerProvider, events: Callable[[], list[ReadableLogRecord]]
) -> None:
    instrument(flags, logger_provider=provider)
    with flags.scope(CONTEXT):
        flags.is_enabled("absent", True)
        flags.value("colour", {"red": [1, 2.5]})
        flags.value("absent", Ellipsis)
    absent, mismatch, odd = attributes(events)
    assert absent == {
        conventions.FEATURE_FLAG_KEY: "absent",
        conventions.FEATURE_FLAG_PROVIDER_NAME: PROVIDER_NAME,
        conventions.FEATURE_FLAG_RESULT_REASON: "error",
        conventions.FEATURE_FLAG_RESULT_VALUE: True,
        conventions.FEATURE_FLAG_SET_ID: "production",
        conventions.FEATURE_FLAG_ERROR_MESSAGE: "there is no flag 'absent'",
        error_attributes.ERROR_TYPE: "flag_not_found",
    }
    assert mismatch[error_attributes.ERROR_TYPE] == "type_mismatch"
    assert mismatch[conventions.FEATURE_FLAG_VERSION] == "1"
    assert mismatch[conventions.FEATURE_FLAG_RESULT_VALUE] == {"red": (1, 2.5)}
    assert conventions.FEATURE_FLAG_RESULT_VALUE not in odd, "no type that an event may have"


def test_reasons_are_the_conventions(
    flags: FlagClient, provider: LoggerProvider, events: Callable[[], list[ReadableLogRecord]]
) -> None:
    instrument(flags, logger_provider=provider)
    for key in ("on", "killed", "half", "absent"):
        flags.is_enabled(key, context=CONTEXT)
    told = [each[conventions.FEATURE_FLAG_RESULT_REASON] for each in attributes(events)]
    assert told == ["static", "disabled", "split", "error"]
    known = {value.value for value in conventions.FeatureFlagResultReasonValues}
    assert {reason.lower() for reason in Reason} == known


@pytest.mark.parametrize("is_wanted", [True, False])
def test_the_targeting_key_is_told_only_where_it_is_wanted(
    flags: FlagClient,
    provider: LoggerProvider,
    events: Callable[[], list[ReadableLogRecord]],
    is_wanted: bool,
) -> None:
    instrument(flags, logger_provider=provider, include_targeting_key=is_wanted)
    with flags.scope(CONTEXT):
        flags.is_enabled("on")
    flags.is_enabled("on")
    first, unscoped = attributes(events)
    assert first.get(conventions.FEATURE_FLAG_CONTEXT_ID) == ("u1" if is_wanted else None)
    assert ("u1" in str(first)) is is_wanted
    assert conventions.FEATURE_FLAG_CONTEXT_ID not in unscoped


def test_the_span_is_marked_with_each_variant_and_the_events_belong_to_it(
    flags: FlagClient, provider: LoggerProvider, events: Callable[[], list[ReadableLogRecord]]
) -> None:
    exporter = InMemorySpanExporter()
    tracing = TracerProvider(shutdown_on_exit=False)
    tracing.add_span_processor(SimpleSpanProcessor(exporter))
    instrument(flags, logger_provider=provider)
    with tracing.get_tracer("shop").start_as_current_span("order"), flags.scope(CONTEXT):
        flags.is_enabled("on")
        flags.value("colour", "")
        flags.is_enabled("absent")
    (span,) = exporter.get_finished_spans()
    assert span.attributes == {
        "flagd_release.variant.on": "on",
        "flagd_release.variant.colour": "a",
    }
    assert span.events == (), "events are logs now"
    assert span.context is not None
    assert {event.log_record.span_id for event in events()} == {span.context.span_id}
    tracing.shutdown()


def test_a_web_requests_exposures_are_told_too(
    flags: FlagClient, provider: LoggerProvider, events: Callable[[], list[ReadableLogRecord]]
) -> None:
    instrument(flags, logger_provider=provider, include_targeting_key=True)
    app = Flask("shop")
    FlaskFlags(flags, lambda request: {"targetingKey": request.args["user"]}, app)

    @app.get("/")
    def order() -> dict[str, bool]:
        return {key: flags.is_enabled(key) for key in ("on", "half", "on")}

    for user in ("ann", "bob"):
        assert app.test_client().get("/", query_string={"user": user}).status_code == 200
    told = [
        (each[conventions.FEATURE_FLAG_CONTEXT_ID], each[conventions.FEATURE_FLAG_KEY])
        for each in attributes(events)
    ]
    assert told == [("ann", "on"), ("ann", "half"), ("bob", "on"), ("bob", "half")]


def test_without_a_provider_nothing_happens(flags: FlagClient) -> None:
    instrument(flags)
    with flags.scope(CONTEXT):
        assert flags.is_enabled("on") is True


def test_it_ends_when_told_to(
    flags: FlagClient, provider: LoggerProvider, events: Callable[[], list[ReadableLogRecord]]
) -> None:
    instrument(flags, logger_provider=provider)()
    with flags.scope(CONTEXT):
        flags.is_enabled("on")
    assert events() == []

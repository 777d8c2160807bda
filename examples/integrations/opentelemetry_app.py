"""Flags as OpenTelemetry events, and as attributes of the span in which they were served.

FLAGD_TOKEN=fr_sdk_production_… python -m examples.integrations.opentelemetry_app
"""

import os

from opentelemetry import trace
from opentelemetry._logs import set_logger_provider
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import ConsoleLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor

from flagd_sdk import FlagClient
from flagd_sdk.integrations.opentelemetry import instrument

# What an application sets up once, with exporters to its collector.
logs = LoggerProvider()
logs.add_log_record_processor(SimpleLogRecordProcessor(ConsoleLogRecordExporter()))
set_logger_provider(logs)
spans = TracerProvider()
spans.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter()))
trace.set_tracer_provider(spans)

with FlagClient(
    os.environ.get("FLAGD_URL", "http://127.0.0.1:8013"), os.environ["FLAGD_TOKEN"], service="shop"
) as flags:
    instrument(flags)
    flags.wait_until_ready(30.0)
    with (
        trace.get_tracer("shop").start_as_current_span("order"),
        flags.scope({"targetingKey": "user-42"}),
    ):
        flags.is_enabled("new-checkout")

"""OpenTelemetry: each exposure is an event of the semantic conventions, and marks its span.

flags = FlagClient(…)
instrument(flags)

The events are `feature_flag.evaluation` as in version 1.44 of the conventions ("Semantic
conventions for feature flags in events"), emitted through the Logs API: one for each flag in a unit
of work, although the conventions have one for each repetition, too.
"""

from collections.abc import Callable
from time import time_ns
from typing import Final

from opentelemetry._logs import LoggerProvider, get_logger
from opentelemetry.trace import get_current_span
from opentelemetry.util.types import AnyValue

from flagd_sdk.client import FlagClient
from flagd_sdk.core.bucketing import TARGETING_KEY
from flagd_sdk.core.types import Evaluation, Reason

PROVIDER_NAME: Final = "flagd-release"
SPAN_ATTRIBUTE_PREFIX: Final = "flagd_release.variant."
"""Followed by a flag's key. The conventions have no attribute for a span, where many flags meet."""

_EVENT: Final = "feature_flag.evaluation"
_SCHEMA_URL: Final = "https://opentelemetry.io/schemas/1.44.0"
# Types that a value may have in an event as it is; others are the caller's own default.
_VALUES: Final = (bool, int, float, str, list, dict)


def instrument(
    flags: FlagClient,
    *,
    include_targeting_key: bool = False,
    logger_provider: LoggerProvider | None = None,
) -> Callable[[], None]:
    """Emit an event for each evaluation of a client, and set the variant on the current span.

    Args:
        include_targeting_key: put it into events, as `feature_flag.context.id`. Mostly it is
            personal data, which telemetry then takes to wherever it is kept.
        logger_provider: of the events; the global one, unless given.

    Returns:
        A callable that ends it.
    """
    logger = get_logger("flagd_sdk", logger_provider=logger_provider, schema_url=_SCHEMA_URL)

    def tell(evaluation: Evaluation) -> None:
        details = evaluation.details
        if details.variant is not None:
            span = get_current_span()
            if span.is_recording():
                span.set_attribute(SPAN_ATTRIBUTE_PREFIX + details.flag_key, details.variant)
        attributes = event_attributes(evaluation)
        if include_targeting_key:
            unit = evaluation.context.get(TARGETING_KEY)
            if isinstance(unit, str) and unit:
                attributes["feature_flag.context.id"] = unit
        logger.emit(event_name=_EVENT, timestamp=time_ns(), attributes=attributes)

    return flags.on_evaluation(tell)


def event_attributes(evaluation: Evaluation) -> dict[str, AnyValue]:
    """Return what the conventions ask of an evaluation's event, without the targeting key."""
    details = evaluation.details
    attributes: dict[str, AnyValue] = {
        "feature_flag.key": details.flag_key,
        "feature_flag.provider.name": PROVIDER_NAME,
        "feature_flag.result.reason": details.reason.lower(),
    }
    if evaluation.environment:
        attributes["feature_flag.set.id"] = evaluation.environment
    version = details.flag_metadata.get("version")
    if version:
        attributes["feature_flag.version"] = str(version)
    if details.variant is not None:
        attributes["feature_flag.result.variant"] = details.variant
    elif isinstance(details.value, _VALUES):
        attributes["feature_flag.result.value"] = details.value
    if details.reason is Reason.ERROR and details.error_code is not None:
        attributes["error.type"] = details.error_code.lower()
        if details.error_message is not None:
            attributes["feature_flag.error.message"] = details.error_message
    return attributes

"""The bodies about service level objectives."""

from typing import Annotated

from pydantic import AfterValidator, Field, StringConstraints
from pydantic_core import PydanticCustomError

from flagd_server.api.schemas.base import Document
from flagd_server.domain.objectives import (
    DEFAULT_WINDOW_DAYS,
    MAX_WINDOW_DAYS,
    MIN_WINDOW_DAYS,
    LatencyObjective,
    PrometheusSource,
)
from flagd_server.domain.targets import parse_target

Share = Annotated[float, Field(ge=0.5, lt=1)]


def _checked_url(text: str) -> str:
    try:
        parse_target(text)
    except ValueError as error:
        raise PydanticCustomError("url", "{fault}", {"fault": str(error)}) from None
    return text


def _checked_base_url(text: str) -> str:
    if "?" in text:
        raise PydanticCustomError(
            "base_url", "expected the server's URL without a query, such as http://prometheus:9090"
        )
    return _checked_url(text)


Url = Annotated[
    str,
    StringConstraints(max_length=2_000, pattern=r"^[Hh][Tt][Tt][Pp][Ss]?://[!-~]+$"),
    AfterValidator(_checked_url),
]
BaseUrl = Annotated[
    str,
    StringConstraints(max_length=500, pattern=r"^[Hh][Tt][Tt][Pp][Ss]?://[!->@-~]+$"),
    AfterValidator(_checked_base_url),
]
Query = Annotated[str, StringConstraints(min_length=1, max_length=1_000, pattern=r"^[\t\n -~]+$")]
"""PromQL in ASCII, in which any label can be written with escapes."""
WindowQuery = Annotated[
    str, StringConstraints(max_length=1_000, pattern=r"^[\t\n -~]*\$window[\t\n -~]*$")
]


class LatencyBody(Document):
    threshold_s: Annotated[float, Field(ge=0.001, le=3_600)]
    share: Share


class SourceBody(Document):
    url: BaseUrl
    failing: WindowQuery
    slow: WindowQuery | None = None


class SloBody(Document):
    availability: Share
    latency: LatencyBody | None = None
    window_days: Annotated[int, Field(ge=MIN_WINDOW_DAYS, le=MAX_WINDOW_DAYS)] = DEFAULT_WINDOW_DAYS
    source: SourceBody | None = None

    def latency_objective(self) -> LatencyObjective | None:
        body = self.latency
        return None if body is None else LatencyObjective(body.threshold_s, body.share)

    def prometheus_source(self) -> PrometheusSource | None:
        body = self.source
        return None if body is None else PrometheusSource(body.url, body.failing, body.slow)

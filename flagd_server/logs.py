"""Logs: JSON on standard error, a line each, or text for a terminal.

Everything logs through the loggers of the standard library, gunicorn too; here alone is said what
becomes of it. What looks like a secret is taken out on the way, which is the last line of defence:
nothing should log one in the first place.
"""

import logging
import re
import sys
from typing import TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from flagd_server import request_id

FORMATS = ("auto", "json", "text")

_SECRETS = (
    # Tokens of ours, old and new; what kind it is may be read.
    (re.compile(r"\b(fr_[a-z0-9_-]{1,80}_)[A-Za-z0-9]{16,}(?:\.[A-Za-z0-9_-]+)?"), r"\1…"),
    (re.compile(r"\b(Bearer|Basic) +[^\s'\",]+", re.IGNORECASE), r"\1 …"),
    # A query string may hold a targeting key.
    (re.compile(r"(/[^\s?'\"]*)\?[^\s'\"]+"), r"\1?…"),
    (re.compile(r"(://[^\s:/@'\"]*):[^\s'\"]*@"), r"\1:…@"),
)


def configure(level: str, form: str = "auto", stream: TextIO | None = None) -> None:
    """Send the log of this process, and of those it forks, to `stream`; standard error if None.

    Args:
        level: name of the lowest level that is written.
        form: one of FORMATS; "auto" is text where the stream is a terminal.
    """
    stream = sys.stderr if stream is None else stream
    is_text = form == "text" or (form == "auto" and stream.isatty())
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_formatter(is_text=is_text, colors=stream.isatty()))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.captureWarnings(True)


def _formatter(*, is_text: bool, colors: bool) -> logging.Formatter:
    rendering: list[Processor]
    if is_text:
        # Its usual tracebacks show local variables, and with them secrets.
        plain = structlog.dev.plain_traceback
        rendering = [structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=plain)]
    else:
        rendering = [
            structlog.processors.EventRenamer("message"),
            structlog.processors.JSONRenderer(ensure_ascii=False),
        ]
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.stdlib.add_log_level,
            structlog.stdlib.add_logger_name,
            _add_request_id,
            structlog.stdlib.ExtraAdder(),
        ],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,
            _without_secrets,
            *rendering,
        ],
    )


def _add_request_id(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    current = request_id.CURRENT.get()
    if current is not None:
        event["request_id"] = current
    return event


def _without_secrets(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    for key, value in event.items():
        if isinstance(value, str):
            event[key] = redact(value)
    return event


def redact(text: str) -> str:
    """Return the text without tokens, passwords in URLs and query strings."""
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    return text

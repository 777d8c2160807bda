"""The tree of everything the SDK can raise or report.

    FlagdError
    ├─ ConfigurationError            raised to the caller at start-up
    ├─ EvaluationError               has .code, one of OpenFeature's error codes
    │  ├─ FlagNotFoundError
    │  ├─ TypeMismatchError
    │  ├─ ParseError
    │  ├─ TargetingKeyMissingError
    │  └─ InvalidContextError
    └─ TransportError                .is_retryable says whether asking again may help
       ├─ ConnectError               no answer: refused, timed out, unknown host
       ├─ StatusError                an answer other than the one hoped for
       └─ StreamError                an answer or stream that broke off or can't be read

Evaluating a flag raises none of them: the caller's default comes back with an `ErrorCode`.
"""

from enum import StrEnum
from typing import ClassVar


class ErrorCode(StrEnum):
    """OpenFeature's error codes (specification, section 1.4 and types, "Error Code")."""

    PROVIDER_NOT_READY = "PROVIDER_NOT_READY"
    PROVIDER_FATAL = "PROVIDER_FATAL"
    FLAG_NOT_FOUND = "FLAG_NOT_FOUND"
    PARSE_ERROR = "PARSE_ERROR"
    TYPE_MISMATCH = "TYPE_MISMATCH"
    TARGETING_KEY_MISSING = "TARGETING_KEY_MISSING"
    INVALID_CONTEXT = "INVALID_CONTEXT"
    GENERAL = "GENERAL"


class FlagdError(Exception):
    """Whatever goes wrong here and is not a fault of the interpreter."""


class ConfigurationError(FlagdError):
    """A setting is missing or can't be used; the message names it and what was expected."""


class EvaluationError(FlagdError):
    """A flag could not be evaluated."""

    code: ClassVar[ErrorCode] = ErrorCode.GENERAL


class FlagNotFoundError(EvaluationError):
    """There is no such flag, or it is archived."""

    code = ErrorCode.FLAG_NOT_FOUND


class TypeMismatchError(EvaluationError):
    """The flag's value is not of the type of the caller's default."""

    code = ErrorCode.TYPE_MISMATCH


class ParseError(EvaluationError):
    """A flag, a segment or a whole flag set can't be understood."""

    code = ErrorCode.PARSE_ERROR


class TargetingKeyMissingError(EvaluationError):
    """The context has nothing to place the user by."""

    code = ErrorCode.TARGETING_KEY_MISSING


class InvalidContextError(EvaluationError):
    """The context is no mapping, or reading it raised."""

    code = ErrorCode.INVALID_CONTEXT


class TransportError(FlagdError):
    """The server could not be asked, or its answer could not be used."""

    @property
    def is_retryable(self) -> bool:
        """Whether the same request may succeed later without anyone changing anything."""
        return True


class ConnectError(TransportError):
    """No answer came: refused, reset, timed out, or the host is unknown."""


class StatusError(TransportError):
    """The server answered with a status other than success.

    Attributes:
        status: the HTTP status.
        retry_after_s: what the server asked for in `Retry-After`, in seconds, where it did.
    """

    _TOKEN_REFUSED = frozenset({401, 403})
    # Asked to wait, or the request came too early; every other 4xx is the request's own fault.
    _RETRYABLE_BELOW_500 = frozenset({408, 425, 429})

    def __init__(self, status: int, retry_after_s: float | None = None, detail: str = "") -> None:
        super().__init__(f"HTTP status {status}: {detail}" if detail else f"HTTP status {status}")
        self.status = status
        self.retry_after_s = retry_after_s

    @property
    def is_token_refused(self) -> bool:
        """Whether only someone who gives out tokens can help."""
        return self.status in self._TOKEN_REFUSED

    @property
    def is_retryable(self) -> bool:
        return self.status >= 500 or self.status in self._RETRYABLE_BELOW_500


class StreamError(TransportError):
    """A stream broke off, fell silent, or carried what can't be read."""

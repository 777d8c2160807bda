import pytest

from flagd_sdk import errors
from flagd_sdk.errors import ConnectError, ErrorCode, StatusError, StreamError


@pytest.mark.parametrize(
    ("status", "is_retryable"),
    [
        *((status, False) for status in (301, 400, 401, 404, 413)),
        *((status, True) for status in (408, 425, 429, 500, 503, 599)),
    ],
)
def test_a_status_says_whether_asking_again_may_help(status: int, is_retryable: bool) -> None:
    assert StatusError(status).is_retryable is is_retryable


def test_a_connection_may_always_come_back() -> None:
    assert ConnectError("refused").is_retryable
    assert StreamError("broke off").is_retryable


def test_a_status_error_shows_what_came() -> None:
    error = StatusError(429, retry_after_s=2.5, detail="too many")
    assert (str(error), error.retry_after_s) == ("HTTP status 429: too many", 2.5)
    assert str(StatusError(500)) == "HTTP status 500"


def test_every_evaluation_error_has_its_code() -> None:
    assert {error.code for error in errors.EvaluationError.__subclasses__()} == {
        ErrorCode.FLAG_NOT_FOUND,
        ErrorCode.TYPE_MISMATCH,
        ErrorCode.PARSE_ERROR,
        ErrorCode.TARGETING_KEY_MISSING,
        ErrorCode.INVALID_CONTEXT,
    }
    assert errors.EvaluationError.code is ErrorCode.GENERAL

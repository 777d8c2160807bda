import pytest

from flagd_sdk.core.sse import Decoder, ServerSentEvent, encode, encode_comment
from flagd_sdk.errors import StreamError


def decode(*chunks: bytes, max_event_bytes: int = 1_000) -> list[ServerSentEvent]:
    decoder = Decoder(max_event_bytes)
    return [event for chunk in chunks for event in decoder.feed(chunk)]


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        pytest.param(b"data: a\n\n", [("message", "a", "")], id="the default name is message"),
        pytest.param(b"event: flag\ndata: a\n\n", [("flag", "a", "")], id="named event"),
        pytest.param(b"data: a\ndata:b\n\n", [("message", "a\nb", "")], id="lines are joined"),
        pytest.param(b"data:  a\n\n", [("message", " a", "")], id="only one space is dropped"),
        pytest.param(b"data: a\r\rdata: b\r\n\r\n", [("message", "a", ""), ("message", "b", "")],
                     id="CR and CRLF end a line"),
        pytest.param(b"\xef\xbb\xbfdata: a\n\n", [("message", "a", "")], id="one BOM is dropped"),
        pytest.param(b"\xef\xbb\xbf\xef\xbb\xbfdata: a\n\n", [], id="a second BOM is content"),
        pytest.param(b": hb\n\ndata: a\n\n", [("message", "a", "")], id="comments are skipped"),
        pytest.param(b"event: flag\n\ndata: a\n\n", [("message", "a", "")],
                     id="an event without data is none, and its name is forgotten"),
        pytest.param(b"data\n\n", [("message", "", "")], id="a field without a colon is empty"),
        pytest.param(b"id: 7\n\ndata: a\n\ndata: b\n\n",
                     [("message", "a", "7"), ("message", "b", "7")], id="the id lasts"),
        pytest.param(b"id: 7\ndata: a\n\nid\ndata: b\n\n",
                     [("message", "a", "7"), ("message", "b", "")], id="an empty id clears it"),
        pytest.param(b"id: 7\nid: 8\0\ndata: a\n\n", [("message", "a", "7")],
                     id="an id with NUL is ignored"),
        pytest.param(b"Data: a\nfoo: b\n data: c\n\n", [], id="unknown fields are ignored"),
        pytest.param(b"\xff: a\n: \xff\nid: \xff\ndata: a\n\n", [("message", "a", "�")],
                     id="bad UTF-8 beside the data is replaced"),
        pytest.param(b"data: a\n", [], id="an event without its blank line is none"),
        pytest.param("data: a\x85\u2028b\n\n".encode(), [("message", "a\x85\u2028b", "")],
                     id="no other character ends a line"),
    ],
)  # fmt: skip
def test_streams_are_read_as_the_standard_says(
    raw: bytes, expected: list[tuple[str, str, str]]
) -> None:
    assert decode(raw) == [ServerSentEvent(*fields) for fields in expected]


def test_data_that_is_no_utf_8_is_refused() -> None:
    with pytest.raises(StreamError, match="no UTF-8"):
        decode(b'data: {"caf\xe9": 1}\n\n')


@pytest.mark.parametrize(
    ("raw", "is_between"),
    [(b"", True), (b": hb\n\n", True), (b"data: a\n\n", True), (b"retry: 5\n\n", True),
     (b"data: a\n", False), (b"event: flag\n", False), (b": h", False), (b"\xef\xbb", False),
     (b"data: a\n\nd", False)],
)  # fmt: skip
def test_it_is_told_whether_something_is_half_read(raw: bytes, is_between: bool) -> None:
    decoder = Decoder(1_000)
    decoder.feed(raw)
    assert decoder.is_between is is_between


def test_an_event_ended_by_cr_does_not_wait_for_the_next_byte() -> None:
    decoder = Decoder(1_000)
    assert decoder.feed(b"data: a\r\n\r") == [ServerSentEvent("message", "a")]
    assert decoder.feed(b"\ndata: b\n\n") == [ServerSentEvent("message", "b")]


@pytest.mark.parametrize(
    ("field", "expected"),
    [(b"retry: 1500", 1500), (b"retry: -1", None), (b"retry: 1.5", None), (b"retry:", None),
     ("retry: ١٥".encode(), None), (b"retry: " + b"9" * 5_000, None)],
)  # fmt: skip
def test_retry_takes_plain_digits_only(field: bytes, expected: int | None) -> None:
    decoder = Decoder(10_000)
    decoder.feed(field + b"\n\n")
    assert decoder.retry_ms == expected


def test_the_last_event_id_is_known_for_resuming() -> None:
    decoder = Decoder(1_000)
    decoder.feed(b"id: 41\ndata: a\n\nid: 42\ndata: b\n\n")
    assert decoder.last_event_id == "42"


@pytest.mark.parametrize(
    "raw",
    [b"data: " + b"x" * 100, b"data: x\n" * 20, b"data\n" * 20, b": " + b"x" * 100],
    ids=["one line", "many lines", "many empty lines", "a comment"],
)
def test_an_event_beyond_the_cap_is_refused_before_it_is_complete(raw: bytes) -> None:
    with pytest.raises(StreamError, match="longer than 60 bytes"):
        decode(raw, max_event_bytes=60)


def test_the_cap_is_for_one_event_not_for_the_stream() -> None:
    assert len(decode(b"data: 0123456789\n\n" * 50, max_event_bytes=20)) == 50


def test_an_encoded_event_has_each_field_on_its_line() -> None:
    assert encode("flag", "a\nb", event_id="7", retry_ms=1000) == (
        b"retry: 1000\nid: 7\nevent: flag\ndata: a\ndata: b\n\n"
    )
    assert encode_comment("hb") == b": hb\n\n"


@pytest.mark.parametrize(
    ("event", "event_id"), [("a\nb", None), ("a\rb", None), ("a", "1\n2"), ("a", "1\x002")]
)
def test_what_would_break_the_framing_is_not_encoded(event: str, event_id: str | None) -> None:
    with pytest.raises(ValueError, match="holds no line break"):
        encode(event, "data", event_id)


def test_a_comment_stays_on_its_line() -> None:
    with pytest.raises(ValueError, match="line break"):
        encode_comment("a\ndata: injected")

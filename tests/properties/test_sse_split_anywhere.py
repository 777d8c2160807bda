import itertools

from hypothesis import example, given
from hypothesis import strategies as st

from flagd_sdk.core.sse import Decoder, ServerSentEvent, encode
from flagd_sdk.errors import StreamError

LINE_ENDS = st.sampled_from([b"\n", b"\r", b"\r\n"])
FIELDS = st.one_of(
    st.sampled_from([b"", b"", b"data", b"id", b"retry: 20", b": hb", b"event: flag", b"id: 4\0"]),
    st.binary(max_size=12),
    st.binary(max_size=12).map(lambda value: b"data: " + value),
)
STREAMS = st.builds(
    lambda bom, lines: bom + b"".join(field + end for field, end in lines),
    st.sampled_from([b"", b"\xef\xbb\xbf", b"\xef\xbb"]),
    st.lists(st.tuples(FIELDS, LINE_ENDS), max_size=30),
)


def read(chunks: list[bytes]) -> tuple[list[ServerSentEvent], str, int | None] | None:
    decoder = Decoder(10_000)
    try:
        events = [event for chunk in chunks for event in decoder.feed(chunk)]
    except StreamError:  # what is no UTF-8 is refused
        return None
    return events, decoder.last_event_id, decoder.retry_ms


@given(STREAMS, st.lists(st.integers(0, 400), max_size=20))
@example(b"data: a\r\n\r\ndata: b\r\n\r\n", [8, 9, 10, 11])
@example(b"\xef\xbb\xbfdata: a\n\n", [1, 2])
def test_a_stream_means_the_same_wherever_it_is_split(raw: bytes, cuts: list[int]) -> None:
    bounds = [0, *sorted(min(cut, len(raw)) for cut in cuts), len(raw)]
    split = [raw[start:end] for start, end in itertools.pairwise(bounds)]
    assert read(split) == read([raw])
    assert read([raw[i : i + 1] for i in range(len(raw))]) == read([raw])


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=50)
ON_ONE_LINE = TEXT.map(lambda text: text.translate({10: None, 13: None, 0: None}))


@given(ON_ONE_LINE.filter(bool), TEXT, ON_ONE_LINE)
def test_what_was_encoded_is_decoded_again(event: str, data: str, event_id: str) -> None:
    normalised = data.replace("\r\n", "\n").replace("\r", "\n")
    assert Decoder(10_000).feed(encode(event, data, event_id)) == [
        ServerSentEvent(event, normalised, event_id)
    ]

"""The event stream of OFREP over real connections, as a browser opens it."""

from collections.abc import Callable, Iterator

import pytest
import requests

from flagd_sdk.core.sse import Decoder, ServerSentEvent
from tests.end_to_end.flag_server import FlagServer
from tests.end_to_end.processes import DEADLINE_S

SHOP = "https://shop.example"


class Page:
    """Opens the stream that a bulk evaluation names, with no header but those of a browser."""

    def __init__(self, server: FlagServer, token: str, session: requests.Session) -> None:
        origin = {"Origin": SHOP}
        evaluated = session.post(
            f"{server.url}/ofrep/v1/evaluate/flags",
            json={},
            headers={"X-API-Key": token, **origin},
            timeout=DEADLINE_S,
        )
        (stream,) = evaluated.json()["eventStreams"]
        url = server.url + stream["endpoint"]["requestUri"]
        self.response = session.get(url, headers=origin, stream=True, timeout=DEADLINE_S)
        self._pieces = self.response.iter_content(1)
        self._decoder = Decoder(1 << 20)
        self._events: list[ServerSentEvent] = []

    def next_event(self) -> ServerSentEvent | None:
        """Return the next event; None at the stream's end."""
        while not self._events:
            piece = next(self._pieces, None)
            if piece is None:
                return None
            self._events += self._decoder.feed(piece)
        return self._events.pop(0)


@pytest.fixture
def server(start_server: Callable[..., FlagServer]) -> FlagServer:
    server = start_server(FLAGD_OFREP_ORIGINS=SHOP, FLAGD_THREADS="2")
    server.create_flag("new-checkout")
    return server


@pytest.fixture
def session() -> Iterator[requests.Session]:
    with requests.Session() as session:
        session.trust_env = False
        yield session


def test_pages_hear_of_each_change_once_and_take_no_thread(
    server: FlagServer, session: requests.Session
) -> None:
    token = server.sdk_tokens["production"]
    pages = [Page(server, token, session) for _ in range(5)]
    for page in pages:
        assert page.response.headers["Access-Control-Allow-Origin"] == SHOP
        assert page.response.headers["Content-Type"] == "text/event-stream"
    began = {page.next_event() for page in pages}
    assert len(began) == 1
    server.kill_flag("new-checkout")
    server.create_flag("late")
    told = [[page.next_event() for _ in range(3)] for page in pages]
    assert all(events == told[0] for events in told)
    sequences = [int(event.id) for event in told[0] if event is not None]
    assert len(sequences) == 3
    assert sequences == sorted(sequences)
    # What happens elsewhere is no news.
    server.kill_flag("late", "staging")
    server.kill_flag("late")
    after = pages[0].next_event()
    assert after is not None
    newest = server.call("GET", "/sdk/v1/flags", token=token).headers["ETag"]
    assert newest == f'"production-{after.id}"'


@pytest.mark.parametrize("lasts", [{}, {"expires_in_s": 8}], ids=["revoked", "expired"])
def test_a_stream_ends_with_its_token(
    server: FlagServer, session: requests.Session, lasts: dict[str, int]
) -> None:
    # Seconds enough to open the page in, even on a machine that stands still for some.
    body = {"scope": "ofrep", "name": "page", "environment": "production", "kind": "client"}
    created = server.call("POST", "/api/v1/tokens", body | lasts).json()
    page = Page(server, created["text"], session)
    assert page.next_event() is not None
    if not lasts:
        assert server.call("DELETE", f"/api/v1/tokens/{created['id']}").ok
    assert page.next_event() is None
    again = session.get(page.response.url, headers={"Origin": SHOP}, timeout=DEADLINE_S)
    assert again.status_code == 401, "the ticket has ended too"

"""Notices on a real Postgres: in the order of the commits, and no loss that goes unnoticed."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

from flagd_server.errors import StorageError
from flagd_server.storage import postgres_notices
from flagd_server.storage.notices import MAX_BYTES
from flagd_server.storage.postgres_connections import TURN_LOCK
from flagd_server.storage.postgres_notices import CHANNEL, PostgresNotices
from tests.databases import ANSWER_S
from tests.postgres_cluster import PostgresCluster
from tests.waiting import eventually
from tests.wire import Wire

# TCP would take no end of it for dead, as the wire answers; three seconds, and what a machine that
# stands still adds to them.
_NOTICED_WITHIN_S = 20.0


class Hearer:
    """A server's notices, with what they told it in the order in which they did."""

    def __init__(self, url: str) -> None:
        self.notices = PostgresNotices(url)
        self.heard: list[tuple[str, Any]] = []
        self.gaps = 0
        self.in_gap: Callable[[], None] = lambda: None
        self.on_hearing: Callable[[], None] = lambda: None

    def listen(self) -> None:
        self.notices.listen(self._on_notice, self._on_gap)

    def _on_notice(self, topic: str, document: Any) -> None:
        self.on_hearing()
        self.heard.append((topic, document))

    def _on_gap(self) -> None:
        self.in_gap()
        self.gaps += 1


@pytest.fixture
def hearing(postgres_url: str) -> Iterator[Callable[..., Hearer]]:
    """Make hearers, which listen already."""
    hearers: list[Hearer] = []

    def make(url: str = postgres_url) -> Hearer:
        hearers.append(Hearer(url))
        hearers[-1].listen()
        return hearers[-1]

    yield make
    for hearer in hearers:
        hearer.notices.close()


@contextmanager
def writing(url: str) -> Iterator[psycopg.Connection]:
    """A write transaction, in its turn."""
    with psycopg.connect(url) as connection:
        connection.execute("SELECT pg_advisory_xact_lock(%s)", [TURN_LOCK])
        yield connection


def announce(
    connection: psycopg.Connection, notices: PostgresNotices, topic: str, document: Any
) -> int:
    mark, payload = notices.compose(topic, document)
    connection.execute("SELECT pg_notify(%s, %s)", (CHANNEL, payload))
    return mark


def say(url: str, notices: PostgresNotices, topic: str = "flag", document: Any = None) -> int:
    with writing(url) as connection:
        return announce(connection, notices, topic, document or {})


def test_everybody_hears_what_was_committed_in_the_order_of_the_commits(
    postgres_url: str, hearing: Callable[[], Hearer]
) -> None:
    hearers = [hearing(), hearing()]
    with psycopg.connect(postgres_url) as connection:
        connection.execute("CREATE TABLE written (id serial, content jsonb)")

    def write(writer: int) -> None:
        notices = hearers[writer % 2].notices
        for number in range(25):
            with writing(postgres_url) as connection:
                document = {"writer": writer, "number": number}
                connection.execute(
                    "INSERT INTO written (content) VALUES (%s)",
                    (psycopg.types.json.Jsonb(document),),
                )
                announce(connection, notices, "flag", document)
                if number % 5 == 0:
                    connection.rollback()

    writers = [threading.Thread(target=write, args=(writer,)) for writer in range(4)]
    for thread in writers:
        thread.start()
    for thread in writers:
        thread.join()

    with psycopg.connect(postgres_url) as connection:
        rows = connection.execute("SELECT content FROM written ORDER BY id").fetchall()
    committed = [("flag", content) for (content,) in rows]
    assert len(committed) == 4 * 20
    for hearer in hearers:
        eventually(lambda: len(hearer.heard) >= len(committed))  # noqa: B023
        assert hearer.heard == committed
        assert hearer.gaps == 0


def test_a_writer_waits_for_its_own_notices_and_for_no_others(
    postgres_url: str, hearing: Callable[[], Hearer]
) -> None:
    mine, other = hearing(), hearing()
    for number in range(20):
        mark = say(postgres_url, mine.notices, document={"number": number})
        assert mine.notices.wait(mark)
        assert mine.heard[-1] == ("flag", {"number": number})

    with writing(postgres_url) as connection:
        mark = announce(connection, other.notices, "flag", {})
        assert not other.notices.wait(mark, within_s=0.05)  # it is not committed


def test_two_equal_notices_of_a_transaction_are_both_heard(
    postgres_url: str, hearing: Callable[[], Hearer]
) -> None:
    hearer = hearing()
    with writing(postgres_url) as connection:
        announce(connection, hearer.notices, "inbox", {})
        mark = announce(connection, hearer.notices, "inbox", {})
    assert hearer.notices.wait(mark)
    assert hearer.heard == [("inbox", {})] * 2


def test_who_does_not_listen_sends_all_the_same_and_waits_for_nothing(
    postgres_url: str, hearing: Callable[[], Hearer]
) -> None:
    silent = PostgresNotices(postgres_url)
    hearer = hearing()
    mark = say(postgres_url, silent, "tokens")
    begun_at = time.monotonic()
    assert not silent.wait(mark, within_s=30.0)
    assert time.monotonic() - begun_at < 15.0
    eventually(lambda: hearer.heard == [("tokens", {})])
    silent.close()


def test_a_hearer_that_waits_for_itself_is_not_held_up(
    postgres_url: str, hearing: Callable[[], Hearer]
) -> None:
    hearer = hearing()
    waited: list[bool] = []
    hearer.on_hearing = lambda: waited.append(hearer.notices.wait(1_000_000, within_s=60))
    say(postgres_url, hearer.notices)
    assert eventually(lambda: waited) == [False]


def test_after_a_lost_connection_everything_is_read_again_once_listening(
    postgres_cluster: PostgresCluster, postgres_url: str, hearing: Callable[[], Hearer]
) -> None:
    hearer = hearing()
    sender = PostgresNotices(postgres_url)

    # Said while it reads: had LISTEN not been in force by then, nobody would hear of this.
    def in_gap() -> None:
        say(postgres_url, sender, "flag", {"during": "gap"})

    hearer.in_gap = in_gap

    assert postgres_cluster.disconnect("flagd notices") >= 1

    eventually(lambda: hearer.heard == [("flag", {"during": "gap"})])
    assert hearer.gaps == 1
    assert hearer.notices.wait(say(postgres_url, hearer.notices))
    sender.close()


def test_a_hearer_that_fails_hears_the_next_and_reads_everything_until_it_succeeds(
    postgres_url: str, hearing: Callable[[], Hearer], caplog: pytest.LogCaptureFixture
) -> None:
    hearer = hearing()
    failures = iter([True, True, True])

    def fail() -> None:
        if next(failures, False):
            raise ValueError("not read")

    hearer.on_hearing = hearer.in_gap = fail
    assert hearer.notices.wait(say(postgres_url, hearer.notices))
    assert hearer.notices.wait(say(postgres_url, hearer.notices, "tokens"))

    eventually(lambda: hearer.gaps == 1)
    assert caplog.text.count("ValueError: not read") == 3
    assert hearer.notices.wait(say(postgres_url, hearer.notices, "kill"))
    assert [topic for topic, _ in hearer.heard][-1] == "kill"


def test_a_connection_that_died_without_a_word_is_noticed_and_made_again(
    postgres_cluster: PostgresCluster,
    postgres_url: str,
    hearing: Callable[[str], Hearer],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(postgres_notices, "_BEAT_ANSWER_S", ANSWER_S)
    with Wire(postgres_cluster.port) as wire:
        hearer = hearing(postgres_url.replace(f":{postgres_cluster.port}/", f":{wire.port}/"))
        assert hearer.notices.wait(say(postgres_url, hearer.notices))
        wire.freeze()
        eventually(lambda: not hearer.notices.is_listening, within_s=_NOTICED_WITHIN_S)
        missed = say(postgres_url, hearer.notices, "missed")
        assert not hearer.notices.wait(missed)

        wire.heal()
        eventually(lambda: hearer.gaps)
        assert hearer.notices.wait(say(postgres_url, hearer.notices, "heard"))
        assert "missed" not in {topic for topic, _ in hearer.heard}


def test_it_listens_again_after_a_crash_of_postgres() -> None:
    cluster = PostgresCluster()
    url = cluster.create_database()
    hearer = Hearer(url)
    try:
        hearer.listen()
        cluster.crash()
        cluster.start()
        eventually(lambda: hearer.gaps)
        assert hearer.notices.wait(say(url, hearer.notices))
    finally:
        hearer.notices.close()
        cluster.close()


def test_what_others_say_on_the_channel_is_passed_over(
    postgres_url: str, hearing: Callable[[], Hearer], caplog: pytest.LogCaptureFixture
) -> None:
    hearer = hearing()
    with psycopg.connect(postgres_url) as connection:
        for payload in ("", "hello you all", "me 1 []", 'me 2 {"topic": "flag"}', "me 3 [1]"):
            connection.execute("SELECT pg_notify(%s, %s)", (CHANNEL, payload))
    assert hearer.notices.wait(say(postgres_url, hearer.notices))
    assert hearer.heard == [("flag", {})]
    warned = [record for record in caplog.records if record.name == postgres_notices.__name__]
    assert len(warned) == 5


def test_the_longest_notice_goes_through_and_a_longer_one_is_refused(
    postgres_url: str, hearing: Callable[[], Hearer]
) -> None:
    hearer = hearing()
    longest = {"key": "x" * (MAX_BYTES - len('["flag",{"key":""}]'))}
    assert hearer.notices.wait(say(postgres_url, hearer.notices, "flag", longest))
    assert hearer.heard == [("flag", longest)]
    with pytest.raises(StorageError, match="takes 7501 bytes"):
        hearer.notices.compose("flag", {"key": longest["key"] + "x"})

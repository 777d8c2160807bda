"""Who is told what happens: written with what happened, sent until it is there."""

import json
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from flagd_server.domain.guard.blindness import NO_SUMMARIES, TOO_FEW, Blind
from flagd_server.errors import ConflictError, InvalidError, NotFoundError, OutgoingFailedError
from flagd_server.services import webhooks as module
from flagd_server.services.blind_watch import TOLD_AFTER_S, BlindWatch
from flagd_server.services.guarding import WatchState
from flagd_server.services.happenings import Happening
from flagd_server.services.notices import Topic
from flagd_server.services.outbox import Outbox
from flagd_server.services.webhooks import Put, Webhooks
from flagd_server.storage.base import Transaction
from tests.server.services.admin_world import FLAG, PRODUCTION, AdminWorld

URL = "https://chat.example.com/hooks/1"


class Poster:
    """Answers with what it is told to; an exception is raised."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {}
        self.posted: list[tuple[str, dict[str, Any], dict[str, str]]] = []
        self.before = lambda url: None

    def post(
        self, url: str, body: bytes, headers: Mapping[str, str], timeout_s: float
    ) -> tuple[int, bytes]:
        self.before(url)
        self.posted.append((url, json.loads(body), dict(headers)))
        answer = self.answers.get(url, 200)
        if isinstance(answer, Exception):
            raise answer
        return answer, b""


class Post:
    def __init__(self, world: AdminWorld) -> None:
        self.world = world
        self.poster = Poster()
        self.outbox = Outbox(world.storage, self.poster, world.clock, lambda: 0.5)
        world.notices.on(Topic.OUTBOX, self.outbox.wake)
        self.webhooks = Webhooks(world.storage, world.publisher, self.outbox, lambda urls: [])

    def put(self, key: str = "chat", **changes: Any) -> Put:
        asked: dict[str, Any] = {
            "url": URL,
            "form": "json",
            "events": (),
            "enabled": True,
            "new_secret_wanted": False,
        }
        return self.webhooks.put(PRODUCTION, key, **(asked | changes), actor="ann")

    def tell(self, kind: str = "kill", environment: str = PRODUCTION) -> None:
        with self.world.storage.transaction() as tx:
            self.outbox.tell(tx, self.happening(kind, environment))

    def happening(self, kind: str = "kill", environment: str = PRODUCTION) -> Happening:
        return Happening(kind, environment, FLAG, self.world.clock.now(), "guard", f"a {kind}")

    def states(self, key: str = "chat") -> list[str]:
        return [each.state for each in self.webhooks.deliveries(PRODUCTION, key)]


@pytest.fixture
def post(world: AdminWorld) -> Iterator[Post]:
    post = Post(world)
    yield post
    post.outbox.close()


def test_what_happens_is_posted_and_signed(post: Post) -> None:
    secret = post.put().secret
    assert secret is not None
    post.tell()
    assert post.outbox.deliver() == 1
    ((url, body, headers),) = post.poster.posted
    assert url == URL
    assert (body["kind"], body["flag"], body["text"]) == ("kill", FLAG, "a kill")
    assert body["id"] == headers["webhook-id"]
    assert headers["webhook-signature"].startswith("v1,")
    assert post.states() == ["delivered"]
    assert post.outbox.deliver() == 0


def test_a_webhook_is_told_what_it_wants_in_its_environment(post: Post) -> None:
    post.put("all")
    post.put("kills", events=("kill",))
    post.put("off", enabled=False)
    post.tell("stage")
    post.tell("kill")
    post.tell("kill", "staging")
    assert [len(post.states(key)) for key in ("all", "kills", "off")] == [2, 1, 0]


def test_nothing_is_told_of_what_was_undone(post: Post) -> None:
    post.put()

    def tell_and_fail(tx: Transaction) -> None:
        post.outbox.tell(tx, post.happening())
        raise KeyError

    with pytest.raises(KeyError), post.world.storage.transaction() as tx:
        tell_and_fail(tx)
    assert post.outbox.deliver() == 0


@pytest.mark.parametrize("answer", [500, 404, 302, OutgoingFailedError("nobody is there")])
def test_what_is_not_taken_is_sent_again_with_the_same_id(post: Post, answer: Any) -> None:
    post.put()
    post.tell()
    post.poster.answers[URL] = answer
    post.outbox.deliver()
    assert post.states() == ["pending"]
    assert post.outbox.deliver() == 0  # not at once
    post.world.clock.forward(5)
    post.poster.answers[URL] = 204
    post.outbox.deliver()
    assert post.states() == ["delivered"]
    first, second = post.poster.posted
    assert first[1] == second[1]
    assert first[2]["webhook-timestamp"] != second[2]["webhook-timestamp"]


def test_a_receiver_that_never_takes_it_is_given_up(post: Post) -> None:
    post.put()
    post.tell()
    post.poster.answers[URL] = 500
    for _ in range(10):
        post.outbox.deliver()
        post.world.clock.forward(86_400)
    (delivery,) = post.webhooks.deliveries(PRODUCTION, "chat")
    assert (delivery.state, delivery.attempts, delivery.outcome) == ("failed", 8, "answered 500")


def test_a_receiver_that_is_gone_is_given_up_at_once(post: Post) -> None:
    post.put()
    post.tell()
    post.poster.answers[URL] = 410
    post.outbox.deliver()
    assert post.states() == ["failed"]


def test_messages_come_in_order_and_a_receiver_that_hangs_holds_up_no_other(post: Post) -> None:
    post.put("slow", url="https://slow.example.com/")
    post.put("fast", url="https://fast.example.com/")
    for kind in ("stage", "waiting", "kill"):
        post.tell(kind)
    is_fast_done = threading.Event()

    def hang(url: str) -> None:
        if "slow" in url:
            assert is_fast_done.wait(10)
        else:
            is_fast_done.set()

    post.poster.before = hang
    while post.outbox.deliver():
        pass
    for host in ("slow", "fast"):
        kinds = [body["kind"] for url, body, _ in post.poster.posted if host in url]
        assert kinds == ["stage", "waiting", "kill"]


def test_two_servers_send_a_message_once(post: Post) -> None:
    post.put()
    post.tell()
    other = Post(post.world)
    other.poster = post.poster
    other.outbox = Outbox(post.world.storage, post.poster, post.world.clock)
    # The other looks while the first is at it.
    post.poster.before = lambda url: assert_nothing_due(other)
    post.outbox.deliver()
    other.outbox.close()
    assert len(post.poster.posted) == 1


def assert_nothing_due(post: Post) -> None:
    assert post.outbox.deliver() == 0


def test_a_message_whose_sender_died_is_sent_by_the_next(post: Post) -> None:
    post.put()
    post.tell()

    class Died(BaseException):
        pass

    def die(url: str) -> None:
        raise Died

    post.poster.before = die
    with pytest.raises(Died):
        post.outbox.deliver()
    post.poster.before = lambda url: None
    assert post.outbox.deliver() == 0  # it may still be under way
    post.world.clock.forward(30)
    assert post.outbox.deliver() == 1
    assert post.states() == ["delivered"]


def test_a_webhook_that_is_put_again_keeps_its_secret_unless_told(post: Post) -> None:
    first = post.put()
    assert (first.webhook.version, first.secret is None) == (1, False)
    again = post.put(events=("kill",))
    assert (again.webhook.version, again.secret) == (2, None)
    assert again.webhook.secret == first.webhook.secret
    renewed = post.put(new_secret_wanted=True)
    assert renewed.secret not in (None, first.secret)
    entries = post.world.audit.list(3).items
    assert [entry.action for entry in entries] == [
        "webhook.update",
        "webhook.update",
        "webhook.create",
    ]
    assert not any("whsec_" in str(entry) or "hooks/1" in str(entry) for entry in entries)
    assert "whsec_" not in repr(first.webhook)


def test_a_deleted_webhook_is_told_nothing_more(post: Post) -> None:
    post.put()
    post.tell()
    post.webhooks.delete(PRODUCTION, "chat", actor="ann")
    assert post.outbox.deliver() == 0
    with pytest.raises(NotFoundError):
        post.webhooks.get(PRODUCTION, "chat")
    with pytest.raises(NotFoundError):
        post.webhooks.list("nowhere")


def test_a_webhook_can_be_tried_out(post: Post) -> None:
    post.put(events=("kill",), form="slack")
    tried = post.webhooks.try_out(PRODUCTION, "chat", actor="ann")
    assert (tried.kind, tried.state) == ("test", "pending")
    post.outbox.deliver()
    ((_, body, _),) = post.poster.posted
    assert "ann tries out the webhook chat" in body["text"]


def test_what_is_wrong_is_named_and_changes_nothing(
    post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InvalidError):
        post.put(url="gopher://example.com", events=("surprise",))
    monkeypatch.setattr(module, "MAX_WEBHOOKS", 1)
    post.put()
    with pytest.raises(ConflictError):
        post.put("second")
    assert [webhook.key for webhook in post.webhooks.list(PRODUCTION)] == ["chat"]


def test_the_thread_sends_what_is_told_while_it_runs(post: Post) -> None:
    is_sent = threading.Event()
    post.poster.before = lambda url: is_sent.set()
    post.put()
    post.outbox.start()
    post.tell()
    assert is_sent.wait(10)


def test_a_guard_that_stays_blind_is_told_once_a_time(post: Post, tmp_path: Path) -> None:
    blind = [Blind(NO_SUMMARIES, "nobody has reported", "default")]
    found: list[WatchState] = []
    watch = BlindWatch(post.world.storage, post.world.publisher, lambda at: found, post.outbox)
    post.put()

    def told() -> int:
        return len(post.states())

    found[:] = [WatchState(PRODUCTION, FLAG, (Blind(TOO_FEW, "young"),), False)]
    watch.tick(0.0)
    watch.tick(10_000.0)
    assert told() == 0
    found[:] = [WatchState(PRODUCTION, FLAG, tuple(blind), False)]
    for now_s in (10_000.0, 10_000.0 + TOLD_AFTER_S - 1):
        watch.tick(now_s)
        assert told() == 0
    for now_s in (10_000.0 + TOLD_AFTER_S, 20_000.0):
        watch.tick(now_s)
        assert told() == 1
    found[:] = [WatchState(PRODUCTION, FLAG, (), False)]
    watch.tick(20_001.0)
    found[:] = [WatchState(PRODUCTION, FLAG, tuple(blind), False)]
    watch.tick(20_002.0)
    watch.tick(20_002.0 + TOLD_AFTER_S)
    assert told() == 2

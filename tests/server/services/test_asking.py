"""Questions to others: asked in the background, and nobody waits for whoever hangs."""

import threading
import time
from collections.abc import Iterator

import pytest

from flagd_server.domain.answers import HealthAnswer, Question, Unknown
from flagd_server.errors import OutgoingFailedError, OutgoingTimeoutError
from flagd_server.services.asking import Asking
from tests.waiting import eventually


def question(host: str, path: str = "") -> Question:
    return Question("health", f"http://{host}/{path}")


class FakeHttp:
    """Answers 200; hosts that begin with `hang` answer when they are released."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.released = threading.Event()
        self.status = 200
        self.under_way = 0
        self.most_under_way = 0
        self._lock = threading.Lock()

    def get(self, url: str, timeout_s: float) -> tuple[int, bytes]:
        with self._lock:
            self.asked.append(url)
            self.under_way += 1
            self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            if url.startswith("http://hang"):
                self.released.wait(timeout_s)
                raise OutgoingTimeoutError(f"{url} gave no answer")
            if url.startswith("http://gone"):
                raise OutgoingFailedError("refused")
            if url.startswith("http://mad"):
                raise RuntimeError("a mistake")
            return self.status, b""
        finally:
            with self._lock:
                self.under_way -= 1


@pytest.fixture
def http() -> FakeHttp:
    return FakeHttp()


@pytest.fixture
def asking(http: FakeHttp) -> Iterator[Asking]:
    asking = Asking(http, every_s=0.3, timeout_s=0.4, rest_s=0.3)
    yield asking
    http.released.set()
    asking.close()


def test_the_first_answer_is_none_and_comes_later(asking: Asking, http: FakeHttp) -> None:
    assert asking.ask(question("a")) is None
    eventually(lambda: asking.ask(question("a")) == HealthAnswer(200))
    assert http.asked == ["http://a/"]


def test_what_is_of_interest_is_asked_again_by_itself(asking: Asking, http: FakeHttp) -> None:
    asking.wait([question("a")])
    for _ in range(50):
        asking.ask(question("a"))
    assert len(http.asked) == 1
    http.status = 503
    eventually(lambda: asking.ask(question("a")) == HealthAnswer(503))
    eventually(lambda: len(http.asked) == 4)


def test_what_is_of_no_interest_any_more_is_forgotten(http: FakeHttp) -> None:
    asking = Asking(http, every_s=0.05, interest_s=0.3)
    asking.wait([question("a"), question("b")])
    ends = time.monotonic() + 0.6
    while time.monotonic() < ends:
        asking.ask(question("b"))
        time.sleep(0.01)
    asked = http.asked.count("http://a/")
    assert 2 <= asked <= 8
    eventually(lambda: http.asked.count("http://b/") > asked + 3)
    assert http.asked.count("http://a/") == asked
    assert asking.ask(question("a")) is None
    asking.close()


def test_an_answer_that_is_too_old_is_none(http: FakeHttp) -> None:
    asking = Asking(http, every_s=0.05, timeout_s=0.5, rest_s=0)
    asking.wait([question("a")])
    asking.stop_waiting()  # as threads that don't keep up
    eventually(lambda: isinstance(asking.ask(question("a")), Unknown))
    assert "s old" in str(asking.ask(question("a")))
    asking.close()


def test_asking_never_waits(asking: Asking) -> None:
    began = time.monotonic()
    for number in range(500):
        asking.ask(question(f"hang{number}"))
        asking.ask(question("hang-one", str(number)))
    assert time.monotonic() - began < 0.35


def test_a_host_that_hangs_holds_up_no_other(asking: Asking) -> None:
    for number in range(100):
        asking.ask(question("hang", str(number)))
    began = time.monotonic()
    asking.wait([question("a"), question("b"), question("c")])
    assert time.monotonic() - began < 0.3
    assert asking.ask(question("c")) == HealthAnswer(200)


def test_a_host_that_hangs_costs_one_timeout_for_all_its_questions(
    asking: Asking, http: FakeHttp
) -> None:
    questions = [question("hang", str(number)) for number in range(20)]
    began = time.monotonic()
    asking.wait(questions)
    assert time.monotonic() - began < 0.8
    assert all(isinstance(asking.ask(one), Unknown) for one in questions)
    assert http.asked.count("http://hang/0") == 1
    assert len(http.asked) == 1


def test_a_host_that_hung_is_asked_again_after_a_rest(asking: Asking, http: FakeHttp) -> None:
    asking.wait([question("hang")])
    assert len(http.asked) == 1

    def ask_again() -> bool:
        asking.ask(question("hang"))
        return len(http.asked) == 2

    eventually(ask_again)


def test_waiting_takes_the_timeout_at_most(asking: Asking) -> None:
    began = time.monotonic()
    # Five hosts and four threads: the fifth one's turn comes after the timeout of another.
    asking.wait([question(f"hang{number}") for number in range(9)])
    assert time.monotonic() - began < 1.3


def test_what_goes_wrong_is_an_answer_with_its_reason(asking: Asking) -> None:
    asking.wait([question("gone"), question("mad")])
    assert asking.ask(question("gone")) == Unknown("refused")
    assert "mistake" in str(asking.ask(question("mad")))
    asking.wait([question("a")])
    assert asking.ask(question("a")) == HealthAnswer(200)


def test_few_may_wait_at_once_and_the_others_are_not_kept(http: FakeHttp) -> None:
    asking = Asking(http, max_waiting=1, timeout_s=5.0)
    waiter = threading.Thread(target=asking.wait, args=([question("hang")],))
    waiter.start()
    eventually(lambda: http.under_way == 1)
    began = time.monotonic()
    asking.wait([question("hang")])
    assert time.monotonic() - began < 1
    asking.stop_waiting()
    waiter.join(1)
    assert not waiter.is_alive()
    http.released.set()
    asking.close()


def test_after_the_end_nothing_is_asked_and_nobody_waits(asking: Asking, http: FakeHttp) -> None:
    asking.close()
    began = time.monotonic()
    asking.wait([question("a")])
    assert asking.ask(question("b")) is None
    assert time.monotonic() - began < 0.3
    assert http.asked == []


def test_few_questions_are_under_way_at_once(asking: Asking, http: FakeHttp) -> None:
    asking.wait([question(f"hang{number}") for number in range(12)])
    assert http.most_under_way == 4

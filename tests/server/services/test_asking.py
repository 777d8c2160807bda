"""Questions to others: asked in the background, and nobody waits for whoever hangs."""

import threading
import time
from collections.abc import Iterator
from itertools import pairwise

import pytest

from flagd_server.domain.answers import HealthAnswer, Question, Unknown
from flagd_server.errors import OutgoingFailedError, OutgoingTimeoutError
from flagd_server.services.asking import Asking
from tests.waiting import eventually

# Far more than the machine may stand still for, and a timeout that is far more again.
AT_ONCE_S, NEVER_S = 20.0, 60.0


def question(host: str, path: str = "") -> Question:
    return Question("health", f"http://{host}/{path}")


class FakeHttp:
    """Answers 200; hosts that begin with `hang` answer when they are released."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.asked_at: list[float] = []
        self.released = threading.Event()
        self.hangs_s: float | None = None  # None for until its timeout
        self.status = 200
        self.under_way = 0
        self.most_under_way = 0
        self._lock = threading.Lock()

    def get(self, url: str, timeout_s: float) -> tuple[int, bytes]:
        with self._lock:
            self.asked.append(url)
            self.asked_at.append(time.monotonic())
            self.under_way += 1
            self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            if url.startswith("http://hang"):
                self.released.wait(self.hangs_s or timeout_s)
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


@pytest.fixture
def patient(http: FakeHttp) -> Iterator[Asking]:
    """One that asks a thing once, and waits for longer than a test takes."""
    asking = Asking(http, every_s=NEVER_S, timeout_s=NEVER_S, rest_s=NEVER_S)
    yield asking
    http.released.set()
    asking.close()


def test_the_first_answer_is_none_and_comes_later(patient: Asking, http: FakeHttp) -> None:
    assert patient.ask(question("a")) is None
    eventually(lambda: patient.ask(question("a")) == HealthAnswer(200))
    for _ in range(50):
        patient.ask(question("a"))
    assert http.asked == ["http://a/"]


def test_what_is_of_interest_is_asked_again_by_itself(asking: Asking, http: FakeHttp) -> None:
    asking.wait([question("a")])
    http.status = 503
    eventually(lambda: asking.ask(question("a")) == HealthAnswer(503))
    eventually(lambda: len(http.asked) >= 4)
    gaps_s = [after - before for before, after in pairwise(http.asked_at)]
    assert all(gap_s >= 0.3 for gap_s in gaps_s)


def test_what_is_of_no_interest_any_more_is_forgotten(http: FakeHttp) -> None:
    asking = Asking(http, every_s=0.05, interest_s=0.3)
    asking.wait([question("a"), question("b")])

    def is_forgotten() -> bool:
        asking.ask(question("b"))
        return question("a") not in asking._entries

    eventually(is_forgotten)
    asked, of_b = http.asked.count("http://a/"), http.asked.count("http://b/")

    def is_asked_on() -> bool:
        asking.ask(question("b"))
        return http.asked.count("http://b/") > of_b + 3

    eventually(is_asked_on)
    assert http.asked.count("http://a/") == asked
    assert asking.ask(question("a")) is None
    asking.close()


def test_an_answer_that_is_too_old_is_none(http: FakeHttp) -> None:
    asking = Asking(http, every_s=0.05, timeout_s=0.5, rest_s=0)
    eventually(lambda: asking.ask(question("a")) == HealthAnswer(200))
    asking.stop_waiting()  # as threads that don't keep up
    eventually(lambda: isinstance(asking.ask(question("a")), Unknown))
    assert "s old" in str(asking.ask(question("a")))
    asking.close()


def test_asking_never_waits(patient: Asking) -> None:
    began = time.monotonic()
    for number in range(500):
        patient.ask(question(f"hang{number}"))
        patient.ask(question("hang-one", str(number)))
    assert time.monotonic() - began < AT_ONCE_S


def test_a_host_that_hangs_holds_up_no_other(patient: Asking) -> None:
    for number in range(100):
        patient.ask(question("hang", str(number)))
    began = time.monotonic()
    patient.wait([question("a"), question("b"), question("c")])
    assert time.monotonic() - began < AT_ONCE_S
    assert patient.ask(question("c")) == HealthAnswer(200)


def test_a_host_that_hangs_costs_one_timeout_for_all_its_questions(http: FakeHttp) -> None:
    asking = Asking(http, every_s=NEVER_S, timeout_s=0.4, rest_s=NEVER_S)
    questions = [question("hang", str(number)) for number in range(20)]
    asking.wait(questions)
    eventually(lambda: all(isinstance(asking.ask(one), Unknown) for one in questions))
    assert http.asked == ["http://hang/0"]
    asking.close()


def test_a_host_that_hung_is_asked_again_after_a_rest(asking: Asking, http: FakeHttp) -> None:
    def is_asked_again() -> bool:
        asking.ask(question("hang"))
        return len(http.asked) >= 2

    eventually(is_asked_again)
    assert http.asked_at[1] - http.asked_at[0] >= 0.4 + 0.3


def test_waiting_takes_the_timeout_at_most(http: FakeHttp) -> None:
    asking = Asking(http, timeout_s=0.4)
    http.hangs_s = NEVER_S  # as the fifth of nine hosts, whose turn comes after that of another
    began = time.monotonic()
    asking.wait([question(f"hang{number}") for number in range(9)])
    assert 0.4 <= time.monotonic() - began < AT_ONCE_S
    http.released.set()
    asking.close()


def test_what_goes_wrong_is_an_answer_with_its_reason(patient: Asking) -> None:
    patient.wait([question("gone"), question("mad")])
    assert patient.ask(question("gone")) == Unknown("refused")
    assert "mistake" in str(patient.ask(question("mad")))
    patient.wait([question("a")])
    assert patient.ask(question("a")) == HealthAnswer(200)


def test_few_may_wait_at_once_and_the_others_are_not_kept(http: FakeHttp) -> None:
    asking = Asking(http, max_waiting=1, timeout_s=NEVER_S)
    waiter = threading.Thread(target=asking.wait, args=([question("hang")],))
    waiter.start()
    eventually(lambda: http.under_way == 1)
    began = time.monotonic()
    asking.wait([question("hang")])
    assert time.monotonic() - began < AT_ONCE_S
    asking.stop_waiting()
    waiter.join(AT_ONCE_S)
    assert not waiter.is_alive()
    http.released.set()
    asking.close()


def test_after_the_end_nothing_is_asked_and_nobody_waits(patient: Asking, http: FakeHttp) -> None:
    patient.close()
    began = time.monotonic()
    patient.wait([question("a")])
    assert patient.ask(question("b")) is None
    assert time.monotonic() - began < AT_ONCE_S
    assert http.asked == []


def test_few_questions_are_under_way_at_once(asking: Asking, http: FakeHttp) -> None:
    asking.wait([question(f"hang{number}") for number in range(12)])
    eventually(lambda: http.most_under_way >= 4)
    assert http.most_under_way == 4

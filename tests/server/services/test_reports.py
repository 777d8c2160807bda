import threading

import pytest

from flagd_server.errors import NotFoundError, StorageError
from flagd_server.services.reports import Accepted, Receipt

ACCEPTED = Accepted(1, False, (), 1, {}, 0, ())


def test_an_answer_given_before_or_while_it_is_waited_for_arrives() -> None:
    early, late = Receipt(), Receipt()
    early.give(ACCEPTED)
    assert early.result(0.0) is ACCEPTED
    thread = threading.Timer(0.01, late.give, [ACCEPTED])
    thread.start()
    assert late.result(10.0) is ACCEPTED
    thread.join()


def test_an_exception_is_raised() -> None:
    receipt = Receipt()
    receipt.give(NotFoundError("environment", "gone"))
    with pytest.raises(NotFoundError):
        receipt.result(0.0)


def test_the_first_answer_counts() -> None:
    receipt = Receipt()
    receipt.give(NotFoundError("environment", "gone"))
    receipt.give(StorageError("the batch failed"))
    with pytest.raises(NotFoundError):
        receipt.result(0.0)


def test_nobody_waits_for_ever() -> None:
    with pytest.raises(TimeoutError):
        Receipt().result(0.01)

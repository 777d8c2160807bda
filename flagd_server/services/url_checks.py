"""Checks the URLs of a document before it is stored: may they be asked, and is the host known?"""

import time
from collections.abc import Callable, Mapping
from typing import Protocol

from flagd_server.domain.faults import Fault
from flagd_server.errors import OutgoingError, OutgoingRefusedError

UrlChecks = Callable[[Mapping[str, str]], list[Fault]]
"""(URL by field) → a fault for each that can't be asked."""

_ALL_WITHIN_S = 5.0


class Checking(Protocol):
    """See `flagd_server.outgoing`."""

    def check(self, url: str, timeout_s: float) -> None: ...


def url_checks(http: Checking, *, may_be_unknown: bool = False) -> UrlChecks:
    """Return the check that looks the hosts up. Call it outside of any transaction.

    Args:
        may_be_unknown: whether a host passes that nobody knows now; it is looked at again whenever
            it is asked.
    """

    def check(urls: Mapping[str, str]) -> list[Fault]:
        faults = []
        ends_s = time.monotonic() + _ALL_WITHIN_S
        for field, url in urls.items():
            try:
                http.check(url, max(0.1, ends_s - time.monotonic()))
            except OutgoingError as error:
                if not may_be_unknown or isinstance(error, OutgoingRefusedError):
                    faults.append(Fault(field, str(error)))
        return faults

    return check

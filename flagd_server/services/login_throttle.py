"""Who has failed to log in, and how long they have to wait; see `domain.login_throttle`.

Kept by each process for itself and bounded in number: what was quiet the longest is forgotten.
"""

import hashlib
import ipaddress
import math
import random
import threading
import time
from collections.abc import Callable

from cachetools import LRUCache

from flagd_server.domain.login_throttle import OF_ACCOUNT, OF_ADDRESS, OF_DEVICE, Failures
from flagd_server.errors import TooManyRequestsError

_REMEMBERED = 50_000
_JITTER_S = 2.0
# Who is given an IPv6 network has at least so large a one.
_NETWORK_BITS = {4: 32, 6: 64}


class Attempt:
    """One attempt to log in, counted as a failure until `succeed` is called."""

    def __init__(self, own: Failures, address: Failures | None, lock: threading.Lock) -> None:
        self._own = own
        self._address = address
        self._lock = lock

    def succeed(self) -> None:
        with self._lock:
            self._own.clear()
            if self._address is not None:
                # Not cleared: whoever has an account could go on trying those of others.
                self._address.take_back()


class LoginThrottle:
    """Thread-safe."""

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        random: Callable[[], float] = random.random,
    ) -> None:
        """Args:
        clock: monotonic seconds.
        random: from 0 to below 1.
        """
        self._clock = clock
        self._random = random
        self._lock = threading.Lock()  # guards all below
        self._devices: LRUCache[bytes, Failures] = LRUCache(_REMEMBERED)
        self._accounts: LRUCache[bytes, Failures] = LRUCache(_REMEMBERED)
        self._addresses: LRUCache[str, Failures] = LRUCache(_REMEMBERED)

    def begin(self, name: str, address: str, *, is_known_device: bool) -> Attempt:
        """Let an attempt for the account begin, whether there is one of that name or not.

        Raises:
            TooManyRequestsError: not yet.
        """
        key = hashlib.sha256(name.encode(errors="replace")).digest()  # as long as any
        now_s = self._clock()
        with self._lock:
            if is_known_device:
                own, of_address = self._devices.setdefault(key, Failures(OF_DEVICE)), None
            else:
                own = self._accounts.setdefault(key, Failures(OF_ACCOUNT))
                network = _network(address)
                of_address = self._addresses.setdefault(network, Failures(OF_ADDRESS))
            counted = [own] if of_address is None else [own, of_address]
            wait_s = max(failures.wait_s(now_s) for failures in counted)
            if wait_s > 0:
                jitter_s = self._random() * _JITTER_S
                raise TooManyRequestsError(
                    "too many attempts to log in; wait, then try again",
                    math.ceil(wait_s + jitter_s),
                )
            # Before the password is looked at, so that many at once count as many.
            for failures in counted:
                failures.add(now_s)
        return Attempt(own, of_address, self._lock)


def _network(address: str) -> str:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return "unknown"
    return str(ipaddress.ip_network((parsed, _NETWORK_BITS[parsed.version]), strict=False))

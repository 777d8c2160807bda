"""Passwords → argon2id hashes, with the least that OWASP asks for, and never many at once.

19 MiB, two passes, one lane (OWASP Password Storage Cheat Sheet): some 20 ms. What was hashed with
other parameters is hashed anew when its holder logs in.
"""

import base64
import threading

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from argon2.low_level import Type

from flagd_server.errors import TooManyRequestsError

_MEMORY_KIB = 19_456
_PASSES = 2
_LANES = 1
_SALT_BYTES = 16
_HASH_BYTES = 32
# Each takes 19 MiB and a core: a flood of logins must not be the memory of the whole server.
_AT_ONCE = 2
_TURN_WITHIN_S = 2.0


class PasswordHashes:
    """Thread-safe."""

    def __init__(self) -> None:
        self._hasher = PasswordHasher(
            _PASSES, _MEMORY_KIB, _LANES, _HASH_BYTES, _SALT_BYTES, type=Type.ID
        )
        self._turns = threading.Semaphore(_AT_ONCE)
        # Of no password, and compared for as long as one of someone.
        self._of_nobody = (
            f"$argon2id$v=19$m={_MEMORY_KIB},t={_PASSES},p={_LANES}"
            f"${_unpadded(bytes(_SALT_BYTES))}${_unpadded(bytes(_HASH_BYTES))}"
        )

    def make(self, password: str) -> str:
        """Return a hash with a salt of its own, encoded with its parameters.

        Raises:
            TooManyRequestsError: too many others are being made.
        """
        with self._turn():
            return self._hasher.hash(password)

    def is_right(self, encoded: str | None, password: str) -> bool:
        """Tell whether the hash is of the password; of None, never, after the same work.

        Raises:
            TooManyRequestsError: too many others are being checked.
        """
        with self._turn():
            try:
                self._hasher.verify(self._of_nobody if encoded is None else encoded, password)
            except (VerificationError, InvalidHashError):
                return False
        return encoded is not None

    def is_outdated(self, encoded: str) -> bool:
        """Tell whether the hash has other parameters than a new one would have."""
        return self._hasher.check_needs_rehash(encoded)

    def _turn(self) -> "_Turn":
        return _Turn(self._turns)


class _Turn:
    def __init__(self, turns: threading.Semaphore) -> None:
        self._turns = turns

    def __enter__(self) -> None:
        if not self._turns.acquire(timeout=_TURN_WITHIN_S):
            raise TooManyRequestsError("too many passwords are being checked", 2)

    def __exit__(self, *_: object) -> None:
        self._turns.release()


def _unpadded(data: bytes) -> str:
    return base64.b64encode(data).decode().rstrip("=")

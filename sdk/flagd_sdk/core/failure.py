"""How a failed unit of work is named: kinds and texts fit for the wire, units as keyed hashes."""

import re
from collections.abc import Callable
from typing import NamedTuple

_CONTROL = r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+"
_UNFIT_FOR_KIND = r"[^A-Za-z0-9_.:-]"


class Failure(NamedTuple):
    """One way in which a unit of work failed.

    Attributes:
        kind: as `error_kind` makes it.
        where: the application's frame, "module:function:line", or "".
        sample: a message to show, or "".
        flag: the only flag that it is linked to; None links it to every flag served.
    """

    kind: str
    where: str = ""
    sample: str = ""
    flag: str | None = None


def error_kind(name: str) -> str:
    """Return the kind of an error: `error:` and a class, a status or a word, fit for the wire."""
    return f"error:{re.sub(_UNFIT_FOR_KIND, '_', name)}"[:64]


def one_line(text: str, max_characters: int) -> str:
    """Return text fit for a summary: no control character, no lone surrogate, not too long."""
    cut = re.sub(_CONTROL, " ", text[: max_characters + 1])[:max_characters]
    return cut.encode("utf-8", "replace").decode()


def unit_hash(unit: str, unit_key: bytes) -> str:
    """Return what leaves the process in place of a unit: 8 bytes of keyed BLAKE2b, as hex."""
    return unit_hasher(unit_key)(unit)


def unit_hasher(unit_key: bytes) -> Callable[[str], str]:
    """Return `unit_hash` for one key, at a quarter of the cost: the key is taken in once."""
    # OpenSSL behind it is a tenth of what `import flagd_sdk` may cost.
    from hashlib import blake2b

    keyed = blake2b(key=unit_key, digest_size=8)

    def hash_of(unit: str) -> str:
        state = keyed.copy()
        state.update(unit.encode("utf-8", "surrogatepass"))
        return state.hexdigest()

    return hash_of

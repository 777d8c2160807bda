"""What a webhook is sent, how it is signed, and when it is sent again. Pure.

What others sign for this server is signed in the same way.

Signed as Standard Webhooks says (https://www.standardwebhooks.com, v1): the HMAC-SHA256 of
"id.timestamp.body", so that neither an old message nor one for somebody else can be played back.
"""

import base64
import hashlib
import hmac
import json
import re
from collections.abc import Collection, Mapping
from typing import Any, Final

from flagd_server.domain.faults import Fault
from flagd_server.domain.targets import parse_target

KINDS: Final = (
    "kill",
    "restore",
    "rollback",
    "stage",
    "waiting",
    "paused",
    "completed",
    "aborted",
    "blind",
    "test",
)
"""What is told. A webhook names those that it wants; none stands for all."""
FORMATS: Final = ("json", "slack")
SECRET_PREFIX: Final = "whsec_"  # noqa: S105 - what every secret begins with
SECRET_BYTES: Final = 32

# Seconds after each attempt that failed: from what a restart takes to what a night takes. A message
# about a release is of no use to anyone later than that.
RETRY_AFTER_S: Final = (5.0, 30.0, 120.0, 600.0, 3_600.0, 3 * 3_600.0, 6 * 3_600.0)
_GONE: Final = 410
# For clocks that disagree and networks that are slow; what is older may have been overheard.
TOLERANCE_S: Final = 300.0
_TIMESTAMP: Final = re.compile(r"[0-9]{1,12}", re.ASCII)


def check_webhook(url: str, events: Collection[str]) -> list[Fault]:
    """Return what is wrong with a webhook."""
    faults = []
    try:
        parse_target(url)
    except ValueError as error:
        faults.append(Fault("url", str(error)))
    for index, event in enumerate(events):
        if event not in KINDS:
            message = f"{event!r}; expected one of {', '.join(KINDS)}"
            faults.append(Fault(f"events[{index}]", message))
    return faults


def body_of(form: str, message_id: str, happening: Mapping[str, Any]) -> bytes:
    """Return what is posted.

    Args:
        form: one of `FORMATS`.
        happening: kind, environment, flag, at, by, text, detail.
    """
    if form == "slack":
        place = f"{happening['environment']} · {happening['flag']}"
        text = f"*{_escaped(place)}* {_escaped(happening['text'])}"
        document: Mapping[str, Any] = {"text": text}
    else:
        document = {"id": message_id, **happening}
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def _escaped(text: str) -> str:
    """Return text in which Slack sees no link and no mention."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def new_secret(raw: bytes) -> str:
    """Return a secret as its owner gets it, once."""
    return SECRET_PREFIX + base64.b64encode(raw).decode()


def headers_for(secret: str, message_id: str, timestamp_s: int, body: bytes) -> dict[str, str]:
    """Return the headers that show where a message comes from, and when it was sent."""
    return {
        "Content-Type": "application/json",
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp_s),
        "webhook-signature": _signature(secret, message_id, timestamp_s, body),
    }


def signed_at(
    secret: str, message_id: str, timestamp: str, signatures: str, body: bytes, now_s: float
) -> float:
    """Return when a message from elsewhere was sent, in Unix seconds.

    Args:
        signatures: as in the header: one or more, with blanks between; those of other versions
            count for nothing.

    Raises:
        ValueError: it is not signed with the secret, or not of these minutes; says which.
    """
    if not _TIMESTAMP.fullmatch(timestamp):
        raise ValueError("webhook-timestamp should be Unix seconds")
    expected = _signature(secret, message_id, int(timestamp), body).encode()
    # All are compared, in time that does not tell how far one agrees.
    agree = [hmac.compare_digest(each.encode(), expected) for each in signatures.split()]
    if not any(agree):
        raise ValueError("webhook-signature does not belong to this message and secret")
    if abs(now_s - int(timestamp)) > TOLERANCE_S:
        raise ValueError(
            f"webhook-timestamp is {now_s - int(timestamp):+.0f} s from this server's clock;"
            f" at most {TOLERANCE_S:.0f} s are let pass"
        )
    return float(timestamp)


def _signature(secret: str, message_id: str, timestamp_s: int, body: bytes) -> str:
    key = base64.b64decode(secret.removeprefix(SECRET_PREFIX))
    signed = b"%b.%d.%b" % (message_id.encode(errors="replace"), timestamp_s, body)
    return f"v1,{base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()}"


def retry_after_s(attempts: int, status: int | None, random: float) -> float | None:
    """Return the seconds to the next attempt; None where there is none.

    Args:
        attempts: that have failed.
        status: of the last answer; None where there was none.
        random: from 0 to below 1, for jitter of a quarter.
    """
    if status == _GONE or attempts > len(RETRY_AFTER_S):
        return None
    return RETRY_AFTER_S[attempts - 1] * (0.875 + random / 4)

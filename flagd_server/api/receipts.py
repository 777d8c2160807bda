"""How far a kill has got, as JSON: for the one who presses the switch, and for who asks later."""

from flagd_server.api.documents import Json
from flagd_server.api.wiring import services
from flagd_server.services.followed_kills import NAMED, PERCENTS, KillWay
from flagd_server.services.receipts import Receipt


def wait_for(environment: str, sequence: int, kill_id: str | None, wait_s: float) -> Json:
    """Return the receipt of a sequence once all have confirmed it, or the time is up.

    Args:
        kill_id: the kill whose times are told; None where there is none.
    """
    turns = services().receipt_turns
    # Who waits holds a thread, and the confirmations come by requests that need one as well; so
    # where too many wait already, the receipt says what is known now.
    has_turn = turns.acquire(blocking=False)
    try:
        receipt = services().receipts.wait(environment, sequence, wait_s if has_turn else 0.0)
    finally:
        if has_turn:
            turns.release()
    return document(receipt, None if kill_id is None else services().receipts.way_of(kill_id))


def document(receipt: Receipt, way: KillWay | None) -> Json:
    reached_s = {} if way is None else way.reached_s
    return {
        "processes": receipt.processes,
        "confirmed": receipt.confirmed,
        "unconfirmed": list(receipt.unconfirmed[:NAMED]),
        "last_confirmed_after_ms": receipt.last_confirmed_after_ms,
        "confirmed_after_ms": {str(percent): _ms(reached_s.get(percent)) for percent in PERCENTS},
        "slowest": [
            {"instance": instance, "after_ms": _ms(after_s)}
            for instance, after_s in (() if way is None else way.slowest)
        ],
    }


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 1)

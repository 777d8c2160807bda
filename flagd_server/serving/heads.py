"""What the bytes of a request that have come so far say of those to come."""

import re

# What a socket keeps for a request that has not come whole: Linux opens no wider a window at first.
# A head has to fit in.
PEEK_BYTES = 64 * 1024
# The longest path of ours, every key as long as it may be, is a tenth of that.
MAX_REQUEST_LINE_BYTES = 4_094
MAX_HEADERS = 64
MAX_HEADER_BYTES = 8_190
_CONTENT_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,5})[ \t]*\r", re.IGNORECASE)
_HAS_BODY = re.compile(rb"\r\n(?:content-length|transfer-encoding):", re.IGNORECASE)
_HAS_CHUNKS = re.compile(rb"\r\ntransfer-encoding:", re.IGNORECASE)
_EXPECT = re.compile(rb"\r\nexpect:", re.IGNORECASE)
HEAD_END = b"\r\n\r\n"


def bytes_needed(held: bytes) -> tuple[int, bool]:
    """Return how many bytes there have to be for a thread to be given the request.

    And whether they are the whole request then, for which no thread waits.
    """
    head, end, _ = held.partition(HEAD_END)
    if not end:
        return (len(held) + 1 if len(held) < PEEK_BYTES else len(held)), False
    head += b"\r"
    length = _CONTENT_LENGTH.search(head)
    if length is None:
        return len(held), not _HAS_BODY.search(head)
    # Who expects a go-ahead gets it from a thread.
    if _HAS_CHUNKS.search(head) or _EXPECT.search(head):
        return len(held), False
    needed = len(head) + 3 + int(length[1])
    return (needed, True) if needed <= PEEK_BYTES else (len(held), False)

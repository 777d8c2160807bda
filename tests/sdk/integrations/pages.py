"""A site that every framework serves in its own way, and what the SDK counted of it."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any

from flagd_sdk import FlagClient
from tests.sdk.counting import counted, keep_counts
from tests.sdk.fakes import SilentTransport, flag, flag_set

Body = bytes | Iterator[bytes]
Context = Callable[[Any], Mapping[str, object]]


class PaymentError(Exception):
    """What breaks in the pages."""


def ann(_: object) -> dict[str, object]:
    return {"targetingKey": "ann"}


class Counted:
    """A client with flags of its own, whose counts the test reads."""

    def __init__(self) -> None:
        self.flags = FlagClient(
            "http://server",
            "t",
            bootstrap=flag_set(
                flag("on", on=100_000), flag("late", on=100_000), flag("split", on=50_000)
            ),
            cache_dir=None,
            transport=SilentTransport(),
            heartbeat_interval_s=3600.0,
            report_interval_s=3600.0,
        )
        keep_counts(self.flags)
        self._cells: dict[str, tuple[int, int]] = {}
        self._kinds: dict[tuple[str, str], int] = {}
        self._unscoped: dict[str, int] = {}

    def _take(self) -> None:
        document = counted(self.flags)
        for cell in document["cells"]:
            exposures, errors = self._cells.get(cell["flag"], (0, 0))
            counts = exposures + cell["exposures"], errors + cell["errors"]
            self._cells[cell["flag"]] = counts
        for kind in document["error_kinds"]:
            key = kind["flag"], kind["kind"]
            self._kinds[key] = self._kinds.get(key, 0) + kind["count"]
        for name, count in document["unscoped"].items():
            self._unscoped[name] = self._unscoped.get(name, 0) + count

    @property
    def cells(self) -> dict[str, tuple[int, int]]:
        """Flag → (exposures, errors) since the beginning."""
        self._take()
        return dict(self._cells)

    @property
    def kinds(self) -> dict[tuple[str, str], int]:
        """(flag, kind of error) → how often."""
        self._take()
        return dict(self._kinds)

    @property
    def unscoped(self) -> dict[str, int]:
        self._take()
        return dict(self._unscoped)


class Pages:
    """What the site does; how a page gets to its visitor is the framework's.

    Attributes:
        reports: what pages have to tell the test.
    """

    def __init__(self, counted: Counted) -> None:
        self.counted = counted
        self.flags = counted.flags
        self.reports: list[object] = []

    def serve(self, name: str) -> tuple[int, Body]:
        """Return status and body of a page, or raise what breaks in it."""
        return getattr(self, name.replace("-", "_"))()

    def plain(self) -> tuple[int, Body]:
        return 200, b"on" if self.flags.is_enabled("on") else b"off"

    def no_flag(self) -> tuple[int, Body]:
        return 200, b"hello"

    def raises(self) -> tuple[int, Body]:
        self.flags.is_enabled("on")
        raise PaymentError("declined")

    def unavailable(self) -> tuple[int, Body]:
        self.flags.is_enabled("on")
        return 503, b"later"

    def missing(self) -> tuple[int, Body]:
        self.flags.is_enabled("on")
        return 404, b"where?"

    def not_modified(self) -> tuple[int, Body]:
        self.flags.is_enabled("on")
        return 304, b""

    def told(self) -> tuple[int, Body]:
        self.flags.is_enabled("on")
        self.flags.fail(PaymentError("declined"))
        return 502, b"sorry"

    def linked(self) -> tuple[int, Body]:
        """Break on a new path that is linked to its flag alone."""
        self.flags.is_enabled("late")
        self.flags.when("on", otherwise=self.no_flag, fallback=False)(self.raises)()
        raise AssertionError

    def nested(self) -> tuple[int, Body]:
        self.flags.is_enabled("on")
        try:
            with self.flags.scope({"targetingKey": "bob"}):
                self.flags.is_enabled("late")
                raise PaymentError("declined")
        except PaymentError:
            return 200, b"as if nothing had happened"

    def stream(self) -> tuple[int, Body]:
        def body() -> Iterator[bytes]:
            self.flags.is_enabled("on")
            yield b"first"
            self.reports.append(self.counted.cells)
            self.flags.is_enabled("late")
            yield b"last"

        return 200, body()

    def stream_raises(self) -> tuple[int, Body]:
        self.flags.is_enabled("on")

        def body() -> Iterator[bytes]:
            yield b"first"
            self.flags.is_enabled("late")
            raise PaymentError("declined")

        return 200, body()

    def endless(self) -> tuple[int, Body]:
        self.flags.is_enabled("on")

        def body() -> Iterator[bytes]:
            self.flags.is_enabled("late")
            while True:
                yield b"more"

        return 200, body()


async def in_steps(body: Iterator[bytes]) -> AsyncIterator[bytes]:
    """Return a body as an asynchronous generator."""
    for chunk in body:
        await asyncio.sleep(0)
        yield chunk

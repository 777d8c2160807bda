"""A client for tests of `when`: flags "on", "two" and "bystander" are on, "new-checkout" is off."""

from collections.abc import Iterator
from contextlib import contextmanager

from flagd_sdk import FlagClient
from tests.sdk.counting import counted, keep_counts
from tests.sdk.fakes import SilentTransport, flag, flag_set

USER = {"targetingKey": "u1"}


@contextmanager
def path_client() -> Iterator[FlagClient]:
    document = flag_set(*(flag(key, on=100_000) for key in ("on", "two", "bystander")), flag(on=0))
    client = FlagClient(
        "http://server",
        "t",
        bootstrap=document,
        cache_dir=None,
        transport=SilentTransport(),
        report_interval_s=3600.0,
        heartbeat_interval_s=3600.0,
    )
    keep_counts(client)
    yield client
    client.close(60)


def failed(flags: FlagClient) -> dict[str, int]:
    """Return flag → units of work that were counted as failed, and begin anew."""
    return {cell["flag"]: cell["errors"] for cell in counted(flags)["cells"]}


class BrokenError(Exception):
    """What a new path raises here."""

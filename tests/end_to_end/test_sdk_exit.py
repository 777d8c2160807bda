import subprocess
import sys
from time import monotonic

from tests.end_to_end import misbehaving
from tests.end_to_end.misbehaving import MisbehavingServer
from tests.sdk.fakes import flag, flag_set

PROGRAM = """
import sys
from flagd_sdk import FlagClient

flags = FlagClient(sys.argv[1], "fr_sdk_production_Secret", cache_dir=None)
flags.wait_until_ready(float(sys.argv[2]))
with flags.scope({"targetingKey": "u1"}):
    flags.is_enabled("on")
"""


def run(url: str, wait_s: float) -> tuple[int, str]:
    """Run the program with every warning an error; return its exit code and what it said."""
    result = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", PROGRAM, url, str(wait_s)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return result.returncode, result.stderr


def test_a_program_that_closes_nothing_ends_clean_and_its_counts_arrive() -> None:
    with MisbehavingServer(flag_set(flag("on", on=100_000), sequence=50)) as server:
        assert run(server.url, 30.0) == (0, "")
        cells = [cell for summary in server.summaries for cell in summary["cells"]]
    assert [cell["exposures"] for cell in cells] == [1]


def test_a_program_ends_soon_although_the_server_hangs() -> None:
    with MisbehavingServer(flag_set(flag("on", on=100_000), sequence=50)) as server:
        server.misbehave(misbehaving.hang)
        began_at = monotonic()
        assert run(server.url, 0.1) == (0, "")
    assert monotonic() - began_at < 6.0, "two seconds, and what starting an interpreter takes"

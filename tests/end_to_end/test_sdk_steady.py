"""Two threads and the same memory, however often flags change or connections break."""

import ast
import socket
import subprocess
import sys
from itertools import count

import pytest

from tests.end_to_end import misbehaving
from tests.end_to_end.misbehaving import Handler, MisbehavingServer
from tests.end_to_end.processes import REPOSITORY
from tests.end_to_end.steady_app import CHANGES, RECONNECTS
from tests.sdk.fakes import flag, flag_set, sse

# What a single flag set and a few summaries take; a leak of 30 bytes a change would be more.
MAX_GROWN_BYTES = 300_000


def breaking() -> Handler:
    """Answer with a stream that brings one change and ends."""
    sequences = count(51)

    def answer(server: MisbehavingServer, connection: socket.socket, head: str) -> None:
        if "/stream" not in head:
            misbehaving.healthy(server, connection, head)
            return
        number = next(sequences)
        document = flag_set(flag("on", on=100_000, version=number), sequence=number)
        misbehaving.open_stream(connection, chunked=False)
        connection.sendall(sse("flags", document, number))
        connection.shutdown(socket.SHUT_RDWR)

    return answer


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("case", "mode", "times"),
    [("changes", misbehaving.changing(CHANGES), CHANGES), ("reconnects", breaking(), RECONNECTS)],
)
def test_threads_and_memory_stay_what_they_are(case: str, mode: Handler, times: int) -> None:
    with MisbehavingServer(flag_set(flag("on", on=100_000), sequence=50)) as server:
        server.misbehave(mode)
        result = subprocess.run(
            [sys.executable, "-m", "tests.end_to_end.steady_app", server.url, case],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        connections = len(server.connected_at)
    assert result.returncode == 0, result.stderr
    threads, _, figures = result.stdout.rpartition("] ")
    grown, seen = map(int, figures.split())
    assert ast.literal_eval(threads + "]") == [("flagd-report", True), ("flagd-stream", True)]
    assert seen >= times
    assert grown < MAX_GROWN_BYTES
    if case == "reconnects":
        assert connections >= times

"""A resolver that never answers: a program starts, works and ends all the same."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NoReturn

import pytest

from tests.end_to_end.misbehaving import MisbehavingServer
from tests.end_to_end.processes import REPOSITORY
from tests.sdk.fakes import flag, flag_set

# Of this process alone: several suites may run on one machine.
NAMESERVER = f"127.77.{os.getpid() >> 8 & 255}.{os.getpid() & 255}"
HOST = "flags.example"
EXIT_S = 2.0  # what the SDK may take of an interpreter's exit, unless told otherwise
# To end an interpreter on a machine that stands still for seconds; the resolver takes minutes.
SLACK_S = 15.0

PROGRAM = """
import signal, sys, threading, time
from flagd_sdk import FlagClient

url, case = sys.argv[1:3]
began_at = time.monotonic()
flags = FlagClient(
    url,
    "fr_sdk_production_Secret",
    cache_dir=None,
    report_interval_s=0.1,
    exit_timeout_s=60.0 if case.startswith("close") else 2.0,
)
made_s = time.monotonic() - began_at
if case.endswith("running"):
    assert flags.wait_until_ready(60)
    print("ready", flush=True)
    while flags.status == "READY":  # until the server is cut off, and its name is gone
        time.sleep(0.01)
    time.sleep(0.5)
else:
    assert made_s < 15.0, made_s
    assert not flags.wait_until_ready(0.3)
slowest_s = 0.0
for number in range(2_000):
    began_at = time.monotonic()
    with flags.scope({"targetingKey": f"u{number}"}):
        assert flags.is_enabled("on") is case.endswith("running")
    slowest_s = max(slowest_s, time.monotonic() - began_at)
assert slowest_s < 15.0, slowest_s
print(f"worked {time.monotonic()}", flush=True)
if case.startswith("close"):
    began_at = time.monotonic()
    flags.close(0.5)
    assert time.monotonic() - began_at < 15.0
    print(f"closed {time.monotonic()}", flush=True)
    sys.exit(0)
if case.startswith("sigterm"):
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    signal.raise_signal(signal.SIGTERM)
"""


def cannot(why: str) -> NoReturn:
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI must be able to: {why}")
    pytest.skip(why)


@pytest.fixture(scope="module")
def silent_nameserver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """A nameserver that takes questions only; yields a command that has one ask it."""
    folder = tmp_path_factory.mktemp("etc")
    (folder / "resolv.conf").write_text(
        f"nameserver {NAMESERVER}\noptions timeout:30 attempts:5\n", encoding="utf-8"
    )
    mounts = f"mount --bind {folder}/resolv.conf /etc/resolv.conf"
    unshare = ["unshare", "--mount", "sh", "-c"]
    if shutil.which("unshare") is None:
        cannot("a mount namespace needs unshare (util-linux)")
    if subprocess.run([*unshare, mounts], capture_output=True, check=False).returncode:
        pytest.skip("this container allows no mount namespace, which no installation changes")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as questions:
        questions.bind((NAMESERVER, 53))
        yield [*unshare, f'{mounts} && mount --bind "$0" /etc/hosts && exec "$@"']
        questions.setblocking(False)
        assert HOST.encode().split(b".")[0] in questions.recv(512), "nobody asked"


@pytest.mark.parametrize("case", ["exit", "close", "close running", "sigterm running"])
def test_a_resolver_that_hangs_holds_up_nobody(
    silent_nameserver: list[str], tmp_path: Path, case: str
) -> None:
    hosts = tmp_path / "hosts"
    is_running = case.endswith("running")
    hosts.write_text(f"127.0.0.1 {HOST}\n" if is_running else "", encoding="utf-8")
    with MisbehavingServer(flag_set(flag("on", on=100_000), sequence=50)) as server:
        url = f"http://{HOST}:{server.port}"
        program = [sys.executable, "-X", "dev", "-W", "error", "-c", PROGRAM, url, case]
        with (
            subprocess.Popen(
                [*silent_nameserver, hosts, *program],
                cwd=REPOSITORY,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            ) as process,
            ExitStack() as stack,
        ):
            stack.callback(process.kill)
            assert process.stdout is not None
            if is_running:
                assert process.stdout.readline() == "ready\n"
                while not any("/stream" in head for head in server.headers):
                    time.sleep(0.01)
                hosts.write_text("", encoding="utf-8")
                server.refuse()
                server.heal()
            worked = process.stdout.readline()
            closed, errors = process.communicate(timeout=100)
            ended_at = time.monotonic()
    assert process.returncode == 0, errors
    assert "Traceback" not in errors
    # Whoever closes has had his own wait of up to as long.
    assert ended_at - float(worked.split()[1]) < EXIT_S + 2 * SLACK_S
    if closed:
        assert ended_at - float(closed.split()[1]) < SLACK_S, "who has closed does not wait again"

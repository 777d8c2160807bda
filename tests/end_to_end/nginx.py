"""Debian's nginx with the shipped configuration, before servers of the test's own."""

import os
import re
import shutil
import socket
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.end_to_end.processes import REPOSITORY, ServerProcess
from tests.ports import ReservedPort
from tests.waiting import eventually

_SHIPPED = REPOSITORY / "deploy" / "nginx" / "flagd.conf"
_AROUND = """\
daemon off;
worker_processes 1;
error_log stderr warn;
pid {folder}/nginx.pid;
{user}
events {{ worker_connections 512; }}
http {{
    access_log off;
    {temporary}
    {extra}
    include {folder}/flagd.conf;
}}
"""
_TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


class Nginx:
    """Starts at once and listens when the constructor returns."""

    def __init__(
        self, folder: Path, ports: Sequence[int], *, extra: str = "", in_location: str = ""
    ) -> None:
        """Args:
        ports: of the servers, on loopback.
        extra: what else `http { }` is to hold.
        in_location: what the location of the shipped file is to hold besides.
        """
        program = _program()
        self._reserved = ReservedPort()
        self.port = self._reserved.number
        self.url = f"http://127.0.0.1:{self.port}"
        (folder / "flagd.conf").write_text(self._shipped(ports, in_location))
        temporary = "".join(f"{name}_temp_path {folder}/{name}; " for name in _TEMPORARY)
        (folder / "nginx.conf").write_text(
            _AROUND.format(
                folder=folder,
                # Its workers are to write into the test's folder.
                user="user root;" if os.geteuid() == 0 else "",
                temporary=temporary,
                extra=extra,
            )
        )
        self._process = ServerProcess(
            ["-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", "stderr"],
            os.environ,
            program,
        )
        self._wait_until_it_listens()

    def _shipped(self, ports: Sequence[int], in_location: str) -> str:
        text = _SHIPPED.read_text()
        servers = re.findall(r"server (flagd-\d:8013)", text)
        assert len(servers) == 2
        for name, port in zip(servers, ports, strict=True):
            text = text.replace(name, f"127.0.0.1:{port}")
        for shipped, tried in (
            ("listen 8080;", f"listen 127.0.0.1:{self.port};"),
            ("proxy_buffering on;", f"proxy_buffering on; {in_location}"),
        ):
            assert text.count(shipped) == 1
            text = text.replace(shipped, tried)
        return text

    def _wait_until_it_listens(self) -> None:
        def listens() -> bool:
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", self.port)) == 0

        eventually(listens)

    @property
    def log(self) -> str:
        return self._process.log

    def stop(self) -> None:
        self._process.stop()


def _program() -> str:
    """Return its path; without it the test is skipped, and fails where CI runs it."""
    found = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    if found:
        return found
    message = "nginx is not installed: apt-get install nginx-light"
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)

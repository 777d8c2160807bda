"""A network namespace for one server, with a link to the database that can be cut.

Its other link, to the clients, stays. The addresses belong to this machine alone.
"""

import ctypes
import os
import subprocess
import sys
from contextlib import suppress
from typing import Self

import pytest

_CLONE_NEWNET = 0x40000000


class Namespace:
    """Made when it is entered, gone when it is left. Needs root; `required` says whether it goes.

    Attributes:
        outside: our address on the database's link: Postgres is to listen there.
        address: where the server in it is to listen for clients.
    """

    def __init__(self) -> None:
        # Tests of several workers run at the same time.
        number = os.getpid() % 0x4000
        self.name = f"flagd-{number}"
        self._links = {"database": f"fd{number}", "clients": f"fc{number}"}
        first = f"10.{192 + (number >> 8)}.{number & 0xFF}"
        self.network = f"{first}.0/24"
        self.outside = f"{first}.1"
        self._inside = f"{first}.2"
        self._clients_outside = f"{first}.5"
        self.address = f"{first}.6"

    def __enter__(self) -> Self:
        _ip("netns", "add", self.name)
        try:
            self._link("database", self.outside, self._inside)
            self._link("clients", self._clients_outside, self.address)
            _ip("-n", self.name, "link", "set", "lo", "up")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        # The namespace would take them along, but in its own time: the next one has the same names.
        for link in self._links.values():
            with suppress(subprocess.CalledProcessError):  # it was not made yet
                _ip("link", "delete", link)
        _ip("netns", "delete", self.name)

    def cut(self) -> None:
        """Carry nothing more between the server and the database; neither end is told."""
        _ip("link", "set", self._links["database"], "down")

    def heal(self) -> None:
        _ip("link", "set", self._links["database"], "up")

    def _link(self, which: str, outside: str, inside: str) -> None:
        near = self._links[which]
        far = f"{near}i"
        _ip("link", "add", near, "type", "veth", "peer", "name", far, "netns", self.name)
        _ip("address", "add", f"{outside}/30", "dev", near)
        _ip("link", "set", near, "up")
        _ip("-n", self.name, "address", "add", f"{inside}/30", "dev", far)
        _ip("-n", self.name, "link", "set", far, "up")


def required() -> None:
    """Skip, and say why, where no namespace can be made."""
    try:
        with Namespace():
            pass
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"a replica that is cut off needs network namespaces, as root: {error}")


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


def _enter(name: str) -> None:
    """Let this process, and what it starts, live in the namespace."""
    with open(f"/run/netns/{name}", encoding="ascii") as file:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.setns(file.fileno(), _CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), f"can't enter the namespace {name}")


if __name__ == "__main__":
    # `python -m tests.end_to_end.namespaces NAME serve` is flagd-server in the namespace.
    _enter(sys.argv[1])
    from flagd_server.cli import main

    sys.exit(main(sys.argv[2:]))

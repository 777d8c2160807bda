"""Where the server may send a request that somebody else wrote down: the rules, with no network.

A URL in a gate or a webhook comes from a person with a token, and the server stands where that
person does not. So an address counts as reachable only if all the world can reach it, unless
whoever runs the server has named the host or the network.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from urllib.parse import urlsplit

Address = IPv4Address | IPv6Address

# A query of Prometheus goes into the URL, percent-encoded.
MAX_URL_CHARS = 16_000
_PORTS = {"http": 80, "https": 443}
# What may stand in a request line as it is; anything else comes percent-encoded.
_URL = re.compile(r"[!-~]+", re.ASCII)
_HOST = re.compile(
    r"(?=.{1,253}$)([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?",
    re.ASCII,
)
# Below 1024 every port is another protocol's, to which a request could be a command: mail, say.
_FIRST_FREE_PORT = 1024
# Azure's metadata server is the one that has a public address.
_METADATA = frozenset({ip_address("168.63.129.16")})
# Prefixes of IPv6 in which an IPv4 address is reached (RFC 6052, RFC 3056), and its place.
_TRANSLATED = ((IPv6Network("64:ff9b::/96"), 0), (IPv6Network("2002::/16"), 80))
# All that has been given out as global unicast (IANA), without what is for documents. What lies
# outside reaches IPv4 in ways that networks choose themselves (64:ff9b:1::/48), or that nobody
# should (::127.0.0.1, ::ffff:0:127.0.0.1), and Python calls much of it global.
_GLOBAL_UNICAST = IPv6Network("2000::/3")
_NOT_PUBLIC = (
    IPv6Network("3fff::/20"),
    IPv4Network("192.0.0.0/24"),
    IPv4Network("192.88.99.0/24"),
)


@dataclass(frozen=True, slots=True)
class Target:
    """A URL that can be asked.

    Attributes:
        host: in lower case, without a dot at its end; an IPv6 address without brackets.
        path: with the query, as it goes into the request line.
    """

    scheme: str
    host: str
    port: int
    path: str

    @property
    def address(self) -> Address | None:
        """The host, where it is an address itself."""
        return _address(self.host)

    @property
    def origin(self) -> str:
        """What may be shown of it: path and query may hold a secret, as those of Slack do."""
        return f"{self.scheme}://{self.host_header}"

    @property
    def host_header(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"


def parse_target(url: str) -> Target:
    """Return the target of a URL.

    Raises:
        ValueError: the URL is none that the server asks; the message says what was expected.
    """
    if not 0 < len(url) <= MAX_URL_CHARS or not _URL.fullmatch(url):
        raise ValueError(
            f"expected a URL of at most {MAX_URL_CHARS} ASCII characters, others percent-encoded"
        )
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError("expected a URL such as https://shop.example/healthz") from None
    if parts.scheme not in _PORTS:
        raise ValueError("expected a URL that begins with http:// or https://")
    if "@" in parts.netloc:
        raise ValueError("expected a URL without a user name: it would be shown to whoever reads")
    if "#" in url:
        raise ValueError("expected a URL without a fragment: it is never sent")
    host = (parts.hostname or "").rstrip(".")
    if _address(host) is None and (not _HOST.fullmatch(host) or _looks_numeric(host)):
        raise ValueError("expected a host name or an IP address after ://")
    port = _PORTS[parts.scheme] if port is None else port
    if port < _FIRST_FREE_PORT and port not in _PORTS.values():
        raise ValueError("expected port 80, 443 or one from 1024 to 65535")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Target(parts.scheme, host, port, path)


@dataclass(frozen=True, slots=True)
class Allowed:
    """Hosts and networks that may be reached although their addresses are not public."""

    hosts: frozenset[str] = frozenset()
    networks: tuple[IPv4Network | IPv6Network, ...] = field(default=())

    @classmethod
    def parse(cls, entries: Iterable[str]) -> "Allowed":
        """Read host names, addresses and CIDRs.

        Raises:
            ValueError: one is neither.
        """
        hosts, networks = set(), []
        for entry in entries:
            text = entry.strip().lower().rstrip(".")
            try:
                networks.append(ip_network(text.strip("[]"), strict=False))
            except ValueError:
                if not _HOST.fullmatch(text) or _looks_numeric(text):
                    raise ValueError(
                        "expected host names, addresses or CIDRs, separated by commas"
                    ) from None
                hosts.add(text)
        return cls(frozenset(hosts), tuple(networks))

    def permits(self, host: str, address: Address) -> bool:
        """Return whether a request to the host may go to the address."""
        if host in self.hosts:
            return True
        return is_public(address) or any(
            _plain(address) in network or address in network for network in self.networks
        )


def is_public(address: Address) -> bool:
    """Return whether all the world reaches it, and it is no metadata server's."""
    address = _plain(address)
    if isinstance(address, IPv6Address) and address not in _GLOBAL_UNICAST:
        return False
    if address in _METADATA or any(address in network for network in _NOT_PUBLIC):
        return False
    return address.is_global and not address.is_multicast


def _plain(address: Address) -> Address:
    """Return the IPv4 address that an IPv6 address stands for, else the address."""
    if isinstance(address, IPv4Address):
        return address
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    for network, shift in _TRANSLATED:
        if address in network:
            return IPv4Address((int(address) >> shift) & 0xFFFFFFFF)
    return address


def _address(host: str) -> Address | None:
    # A zone ("%eth0") names an interface of this machine.
    try:
        return None if "%" in host else ip_address(host)
    except ValueError:
        return None


def _looks_numeric(host: str) -> bool:
    """Return whether a resolver may take it for an address: 2130706433, 0x7f.1, 127.1."""
    last = host.rsplit(".", 1)[-1]
    return last.isdigit() or re.fullmatch(r"0x[0-9a-f]*", last) is not None

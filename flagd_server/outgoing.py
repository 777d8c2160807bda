"""The one place from which the server itself asks others over HTTP.

- The name is resolved once, every address is held to `domain.targets`, and the connection goes to
  one of those addresses: what the name resolves to later does not matter. Certificates are
  checked for the name.
- Redirects are not followed, and no proxy, netrc or cookie of the environment plays a part.
- A request has one deadline, from looking the name up to the last byte; neither a server that
  sends a byte a second nor a resolver that hangs can stretch it. An answer has a limit of size.

Of the standard library: `requests` resolves names by itself, reads proxies from the environment,
and times each read, but not all of them together.
"""

import io
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from http.client import HTTPConnection, HTTPException
from ipaddress import ip_address
from typing import Any

from flagd_server.domain.targets import Address, Allowed, Target, parse_target
from flagd_server.errors import OutgoingFailedError, OutgoingRefusedError, OutgoingTimeoutError
from flagd_server.tracing import NoTracing, Tracing

MAX_BODY_BYTES = 1 << 20
# Lookups that hang are left behind until the resolver gives up; no more of them than this.
_MAX_LOOKUPS = 16

Resolve = Callable[[str], list[Address]]


def resolve(host: str) -> list[Address]:
    """Return the addresses of a host, in the order to try them."""
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    # A scope ("%eth0") is of link-local addresses, which only a network that is named permits.
    return list(dict.fromkeys(ip_address(str(row[4][0]).partition("%")[0]) for row in found))


class OutgoingHttp:
    """Thread-safe; keeps no connection."""

    def __init__(
        self,
        allowed: Allowed,
        *,
        resolve: Resolve = resolve,
        tls: ssl.SSLContext | None = None,
        tracing: Tracing | None = None,
    ) -> None:
        """Args:
        tls: None for the authorities that the system trusts.
        tracing: is told of each request, but neither path nor query: they may hold a secret.
        """
        self._tracing = NoTracing() if tracing is None else tracing
        self._allowed = allowed
        self._resolve = resolve
        self._tls = tls
        self._lookups = threading.BoundedSemaphore(_MAX_LOOKUPS)

    def get(self, url: str, timeout_s: float) -> tuple[int, bytes]:
        """Return status and body of the answer, whatever the status.

        Raises:
            OutgoingRefusedError: the server does not ask this URL.
            OutgoingTimeoutError: there was no whole answer in time.
            OutgoingFailedError: there was none for another reason.
        """
        return self._ask("GET", url, None, {}, timeout_s)

    def post(
        self, url: str, body: bytes, headers: Mapping[str, str], timeout_s: float
    ) -> tuple[int, bytes]:
        """Send the body; as `get` otherwise."""
        return self._ask("POST", url, body, headers, timeout_s)

    def check(self, url: str, timeout_s: float) -> None:
        """Return if the URL may be asked, and its host is known; nothing is sent to it.

        Raises:
            OutgoingError: as `get`.
        """
        self._addresses(_target(url), _Deadline(timeout_s))

    def _ask(
        self,
        method: str,
        url: str,
        body: bytes | None,
        headers: Mapping[str, str],
        timeout_s: float,
    ) -> tuple[int, bytes]:
        target = _target(url)
        attributes: dict[str, str | int] = {
            "http.request.method": method,
            "server.address": target.host,
            "server.port": target.port,
        }
        with self._tracing.span(method, "client", attributes) as span:
            status, content = self._answer(method, target, body, headers, timeout_s)
            span.note("http.response.status_code", status)
            if status >= 400:
                span.fail()
            return status, content

    def _answer(
        self,
        method: str,
        target: Target,
        body: bytes | None,
        headers: Mapping[str, str],
        timeout_s: float,
    ) -> tuple[int, bytes]:
        deadline = _Deadline(timeout_s)
        try:
            with closing(self._connect(target, deadline)) as connection:
                connection.request(
                    method,
                    target.path,
                    body,
                    # One answer, as it is: nothing compressed to unpack, no connection to keep.
                    {
                        "Accept-Encoding": "identity",
                        "Connection": "close",
                        "Host": target.host_header,
                        "User-Agent": "flagd-server",
                        **self._tracing.headers(),
                        **headers,
                    },
                )
                with closing(connection.getresponse()) as answer:
                    content = answer.read(MAX_BODY_BYTES + 1)
                    is_cut_off = bool(answer.length) and len(content) <= MAX_BODY_BYTES
        except TimeoutError:
            raise deadline.passed(target) from None
        except ssl.SSLCertVerificationError as error:
            raise OutgoingFailedError(
                f"the certificate of {target.host} is not trusted: {error.verify_message}"
            ) from error
        except (OSError, HTTPException, ValueError) as error:
            what = str(error) or type(error).__name__
            raise OutgoingFailedError(f"{target.origin} gave no answer: {what}") from error
        if is_cut_off:
            raise OutgoingFailedError(f"{target.origin} hung up within its answer")
        if len(content) > MAX_BODY_BYTES:
            raise OutgoingFailedError(
                f"{target.origin} answered with more than {MAX_BODY_BYTES >> 20} MiB"
            )
        return answer.status, content

    def _connect(self, target: Target, deadline: "_Deadline") -> HTTPConnection:
        addresses = self._addresses(target, deadline)
        for place, address in enumerate(addresses):
            # One that takes no connection leaves time for those after it.
            share_s = deadline.left_s() / (len(addresses) - place)
            try:
                plain = socket.create_connection((str(address), target.port), share_s)
                break
            except OSError:
                if place == len(addresses) - 1:
                    raise
        connection = HTTPConnection(target.host, target.port)
        try:
            sock = plain if target.scheme == "http" else self._secure(plain, target, deadline)
        except BaseException:
            plain.close()
            raise
        # A connection that has a socket makes none.
        connection.sock = _TimedSocket(sock, deadline)
        return connection

    def _secure(self, plain: socket.socket, target: Target, deadline: "_Deadline") -> ssl.SSLSocket:
        # OpenSSL holds the whole handshake to the socket's timeout.
        plain.settimeout(deadline.left_s())
        if self._tls is None:
            self._tls = ssl.create_default_context()
        return self._tls.wrap_socket(plain, server_hostname=target.host)

    def _addresses(self, target: Target, deadline: "_Deadline") -> list[Address]:
        """Return where the target may be reached, at least one address."""
        literal = target.address
        found = self._look_up(target, deadline) if literal is None else [literal]
        permitted = [address for address in found if self._allowed.permits(target.host, address)]
        if not permitted:
            where = "" if literal is not None else f" ({', '.join(map(str, found))})"
            raise OutgoingRefusedError(
                f"{target.host}{where} is not a public address; whoever runs the server can name it"
                " in FLAGD_OUTGOING_ALLOW"
            )
        return permitted

    def _look_up(self, target: Target, deadline: "_Deadline") -> list[Address]:
        """Ask the resolver, which knows no timeout, in a thread that may be left behind."""
        if not self._lookups.acquire(timeout=deadline.left_s()):
            raise deadline.passed(target, "too many names are being looked up")
        answer: list[list[Address] | Exception] = []

        def look_up() -> None:
            try:
                answer.append(self._resolve(target.host))
            except Exception as error:
                answer.append(error)
            finally:
                self._lookups.release()

        thread = threading.Thread(target=look_up, name="flagd-lookup", daemon=True)
        thread.start()
        thread.join(deadline.left_s())
        if not answer:
            raise deadline.passed(target, "its name was not resolved")
        found = answer[0]
        if isinstance(found, Exception) or not found:
            raise OutgoingFailedError(f"the name {target.host} can't be resolved: {found or ''}")
        return found


class _Deadline:
    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._ends_s = time.monotonic() + timeout_s

    def left_s(self) -> float:
        """Return the seconds left, above 0: a socket takes 0 for not waiting at all."""
        return max(self._ends_s - time.monotonic(), 0.001)

    def require(self) -> float:
        """Return the seconds left.

        Raises:
            TimeoutError: none are.
        """
        if time.monotonic() >= self._ends_s:
            raise TimeoutError
        return self.left_s()

    def passed(self, target: Target, why: str = "") -> OutgoingTimeoutError:
        what = f": {why}" if why else ""
        return OutgoingTimeoutError(
            f"{target.origin} gave no answer within {self._timeout_s:g} s{what}"
        )


class _TimedSocket:
    """What `http.client` needs of a socket, with one deadline over all calls.

    As of a real one, closing it leaves those who read from it until they are closed too: an answer
    outlives its connection where the server says that it closes.
    """

    def __init__(self, sock: socket.socket, deadline: _Deadline) -> None:
        self._sock = sock
        self._deadline = deadline
        self._users = {id(self)}

    def sendall(self, data: Any) -> None:
        self._sock.settimeout(self._deadline.require())
        self._sock.sendall(data)

    def makefile(self, mode: str) -> io.BufferedReader:
        reader = _TimedReader(self._sock, self._deadline, self._leave)
        self._users.add(id(reader))
        return io.BufferedReader(reader)

    def close(self) -> None:
        self._leave(self)

    def _leave(self, user: object) -> None:
        self._users.discard(id(user))
        if not self._users:
            self._sock.close()


class _TimedReader(io.RawIOBase):
    def __init__(
        self, sock: socket.socket, deadline: _Deadline, leave: Callable[[object], None]
    ) -> None:
        self._sock = sock
        self._deadline = deadline
        self._leave = leave

    def close(self) -> None:
        super().close()
        self._leave(self)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._sock.settimeout(self._deadline.require())
        return self._sock.recv_into(buffer)


def _target(url: str) -> Target:
    try:
        return parse_target(url)
    except ValueError as error:
        raise OutgoingRefusedError(str(error)) from None

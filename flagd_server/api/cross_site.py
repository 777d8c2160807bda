"""The cookies of sessions, and that no other site's page makes a browser use them (CSRF).

Three things, each enough for most browsers: the cookie is sent with no request that another site
began (SameSite=Strict); the browser's own word on where a request comes from (Sec-Fetch-Site, or
Origin where it is not sent) must be this server; and each change carries, in a header that no form
can set, a token that is made from the cookie. Why not one alone: docs/decisions/0031.
"""

import hmac
from dataclasses import dataclass
from urllib.parse import urlsplit

from flask import Response, request

from flagd_server.api.problems import Problem, ProblemError
from flagd_server.api.wiring import services
from flagd_server.services.sessions import COOKIE_CHARS, Login, csrf_token

CSRF_HEADER = "X-Flagd-CSRF"
_DEVICE_LASTS_S = 180 * 86_400


@dataclass(frozen=True, slots=True)
class CookieNames:
    """With `__Host-` a browser takes them only over TLS, for this host and every path of it."""

    session: str
    device: str


_OVER_TLS = CookieNames("__Host-flagd_session", "__Host-flagd_device")
_IN_PLAIN = CookieNames("flagd_session", "flagd_device")


def session_cookie() -> str | None:
    """Return the cookie that may name a session."""
    return _cookie(_names().session)


def device_cookie() -> str | None:
    """Return what an earlier login left on the device."""
    return _cookie(_names().device)


def set_cookies(response: Response, login: Login) -> None:
    """Leave the session with the browser, and that this device has known the password."""
    _set(response, _names().session, login.cookie, None)
    _set(response, _names().device, login.device, _DEVICE_LASTS_S)


def drop_session_cookie(response: Response) -> None:
    _set(response, _names().session, "", 0)


def require_own_page(cookie: str) -> None:
    """Let a change in a session through that a page of this server makes.

    Raises:
        ProblemError: it may be another site's.
    """
    require_own_origin()
    given = request.headers.get(CSRF_HEADER, "")
    if not hmac.compare_digest(given.encode(errors="replace"), csrf_token(cookie).encode()):
        raise _refused(f"expected the csrf_token of the session in the header {CSRF_HEADER}")


def require_own_origin() -> None:
    """Let a request through that no other site began, as far as the browser says.

    Raises:
        ProblemError: another did.
    """
    site = request.headers.get("Sec-Fetch-Site")
    origin = request.headers.get("Origin")
    if site is not None:
        is_own = site == "same-origin"
    else:
        # The host alone: which scheme the browser sees is known only to the proxy.
        is_own = origin is None or _host(origin) == request.host.lower()
    if not is_own:
        raise _refused("a page of another origin asked for this")


def _names() -> CookieNames:
    return _IN_PLAIN if services().is_plain_http else _OVER_TLS


def _cookie(name: str) -> str | None:
    value = request.cookies.get(name)
    return value if value is not None and len(value) == COOKIE_CHARS else None


def _set(response: Response, name: str, value: str, max_age_s: int | None) -> None:
    response.set_cookie(
        name,
        value,
        max_age=max_age_s,
        path="/",
        secure=not services().is_plain_http,
        httponly=True,
        samesite="Strict",
    )


def _host(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc.lower() or None
    except ValueError:
        return None


def _refused(detail: str) -> ProblemError:
    return ProblemError(Problem("cross-site", detail))

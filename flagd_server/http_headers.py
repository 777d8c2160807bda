"""What every answer tells browsers and caches, whoever writes it: Flask, gunicorn or the hub.

After OWASP's REST Security Cheat Sheet and ASVS 5.0, 3.4. Nothing here is a page, so nothing may be
run, embedded or guessed at; pages get a policy that takes scripts and styles from files of this
server only, and none within the page.
"""

from collections.abc import Sequence

Headers = Sequence[tuple[str, str]]

NOTHING = "default-src 'none'; frame-ancestors 'none'"
PAGE = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; font-src 'self';"
    " connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_EVERYWHERE = (
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    # What another origin may read, it reads by CORS, of which this takes nothing away.
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Permissions-Policy", "camera=(), geolocation=(), microphone=(), payment=(), usb=()"),
)
# Two years, as browsers' preload lists ask. Not for subdomains: they are not this server's.
_TLS_ONLY = ("Strict-Transport-Security", "max-age=63072000")
NO_STORE = ("Cache-Control", "no-store")


def security_headers(*, is_behind_tls: bool, csp: str = NOTHING) -> list[tuple[str, str]]:
    """Return the headers of an answer that says nothing about caches by itself."""
    headers = [*_EVERYWHERE, ("Content-Security-Policy", csp)]
    if is_behind_tls:
        headers.append(_TLS_ONLY)
    return headers


def as_lines(headers: Headers) -> str:
    """Return the headers as they stand in a response's head."""
    return "".join(f"{name}: {value}\r\n" for name, value in headers)

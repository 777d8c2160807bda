"""Where the server may send requests."""

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flagd_server.domain.targets import Allowed, is_public, parse_target


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://shop.example", ("http", "shop.example", 80, "/", "shop.example")),
        ("https://Shop.Example.:8443/a?b=c", ("https", "shop.example", 8443, "/a?b=c", None)),
        ("https://shop.example:443/", ("https", "shop.example", 443, "/", "shop.example")),
        ("http://[2606:4700::1]:80/x", ("http", "2606:4700::1", 80, "/x", "[2606:4700::1]")),
        ("HTTP://8.8.8.8:8080", ("http", "8.8.8.8", 8080, "/", "8.8.8.8:8080")),
        ("http://my_svc.ns.svc:9090/-/ok", ("http", "my_svc.ns.svc", 9090, "/-/ok", None)),
    ],
)
def test_a_url_is_read(url: str, expected: tuple[str, str, int, str, str | None]) -> None:
    target = parse_target(url)
    assert (target.scheme, target.host, target.port, target.path) == expected[:4]
    assert target.host_header == (expected[4] or f"{target.host}:{target.port}")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("", "at most 16000"),
        ("http://x/" + "y" * 16_000, "at most 16000"),
        ("http://x/ y", "ASCII"),
        ("http://x/\r\nHost: y", "ASCII"),
        ("http://münchen.example/", "ASCII"),
        ("ftp://shop.example/", "http://"),
        ("file:///etc/passwd", "http://"),
        ("gopher://shop.example/", "http://"),
        ("shop.example/healthz", "http://"),
        ("http://", "host name"),
        ("http:///path", "host name"),
        ("http://a..b/", "host name"),
        ("http://-a/", "host name"),
        ("http://2130706433/", "host name"),
        ("http://127.1/", "host name"),
        ("http://0x7f000001/", "host name"),
        ("http://0x7f.0.0.1/", "host name"),
        ("http://0177.0.0.1/", "host name"),
        ("http://user:secret@shop.example/", "user name"),
        ("http://shop.example\\@127.0.0.1/", "user name"),
        ("http://shop.example/#top", "fragment"),
        ("http://shop.example:0/", "port"),
        ("http://shop.example:25/", "port 80, 443 or one from 1024"),
        ("https://shop.example:22/", "port 80, 443 or one from 1024"),
        ("http://0/", "host name"),
        ("http://017700000001/", "host name"),
        ("http://127.0.0.1.:80@[::1]/", "user name"),
        ("http://shop.example:99999/", "such as"),
        ("http://shop.example:http/", "such as"),
        ("http://[::1/", "such as"),
        ("http://[fe80::1%25eth0]/", "host name"),
    ],
)
def test_what_is_no_target_is_refused_with_what_was_expected(url: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_target(url)


@given(st.text(max_size=60))
def test_any_text_is_a_target_or_refused(text: str) -> None:
    for url in (text, f"http://{text}", f"https://x{text}"):
        try:
            target = parse_target(url)
        except ValueError:
            continue
        assert target.path.isascii()
        assert not set(target.path + target.host) & set(" \r\n\t\0@")


PRIVATE = (
    "127.0.0.1",
    "0.0.0.0",
    "10.0.0.1",
    "172.16.0.1",
    "192.168.1.1",
    "100.64.0.1",
    "100.100.100.200",
    "169.254.169.254",
    "168.63.129.16",
    "224.0.0.1",
    "239.1.2.3",
    "255.255.255.255",
    "240.0.0.1",
    "::1",
    "::",
    "fe80::1",
    "fc00::1",
    "fd00:ec2::254",
    "ff02::1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "2002:7f00:1::",
    "2002:a9fe:a9fe::1",
    "2001:db8::1",
    "::7f00:1",
    "::a9fe:a9fe",
    "::ffff:0:127.0.0.1",
    "64:ff9b:1::7f00:1",
    "2001:0:4136:e378:8000:63bf:80ff:fffe",
    "3fff::1",
    "4000::1",
    "5f00::1",
    "192.0.0.9",
    "192.88.99.1",
    "198.18.0.1",
)


@pytest.mark.parametrize("address", PRIVATE)
def test_what_not_all_the_world_reaches_is_refused_unless_named(address: str) -> None:
    parsed = ip_address(address)
    assert not is_public(parsed)
    assert not Allowed().permits("shop.example", parsed)
    assert not Allowed.parse(["other.example", "203.0.113.0/24"]).permits("shop.example", parsed)
    assert Allowed.parse(["Shop.Example."]).permits("shop.example", parsed)
    assert Allowed.parse([f"{address}"]).permits("shop.example", parsed)


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "::ffff:8.8.8.8"])
def test_what_is_public_needs_no_name(address: str) -> None:
    assert Allowed().permits("anything", ip_address(address))


def test_a_network_is_named_as_a_cidr_and_covers_its_mapped_addresses() -> None:
    allowed = Allowed.parse(["10.1.2.3/16", "fd00::/8"])
    for inside in ("10.1.255.1", "::ffff:10.1.0.9", "fd12::1"):
        assert allowed.permits("x", ip_address(inside))
    for outside in ("10.2.0.1", "::ffff:10.2.0.1", "fc00::1"):
        assert not allowed.permits("x", ip_address(outside))


@pytest.mark.parametrize("entry", ["", "http://x", "a b", "10.0.0.0/33", "*.svc", "10.0.0"])
def test_what_is_neither_host_nor_network_is_refused(entry: str) -> None:
    with pytest.raises(ValueError, match="CIDRs"):
        Allowed.parse(["x", entry])

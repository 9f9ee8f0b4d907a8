"""Which addresses links may lead to, and whom they believe: addresses, certificates, proxies."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.certificates import Authority
from tests.support.connect_proxy import Proxy, running_proxy
from tests.support.processes import HOST
from tests.support.tls_site import Page, Site, redirect, running_site
from transforms.media.errors import StorageError
from transforms.storage import objects, storage_options
from transforms.storage.public_addresses import is_loopback, is_public, names_public_host
from transforms.storage.storage_options import StorageOptions

pytestmark = pytest.mark.usefixtures("quick_retries")


@pytest.mark.parametrize(
    "address",
    ["8.8.8.8", "1.1.1.1", "2606:4700:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808",
     "2002:808:808::1"],
)  # fmt: skip
def test_public_addresses(address: str) -> None:
    assert is_public(address)
    assert names_public_host(address)


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "127.9.9.9", "10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.0.1",
     "169.254.169.254", "100.64.0.1", "100.127.255.255", "0.0.0.0", "255.255.255.255",
     "224.0.0.1", "239.1.1.1", "240.0.0.1", "192.0.2.1", "198.18.0.1", "::", "::1", "fe80::1",
     "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "fec0::1", "ff02::1", "2001:db8::1",
     "::ffff:127.0.0.1", "::ffff:169.254.169.254", "::10.0.0.1", "64:ff9b::a9fe:a9fe",
     "64:ff9b:1::1", "2002:a00:1::1", "2002:7f00:1::", "168.63.129.16"],
)  # fmt: skip
def test_addresses_of_networks_of_ones_own(address: str) -> None:
    assert not is_public(address)
    assert not names_public_host(address.partition("%")[0])


@pytest.mark.parametrize(
    "host",
    ["localhost", "localhost.", "intranet", "a.localhost", "printer.local",
     "metadata.google.internal", "METADATA.GOOGLE.INTERNAL.", "x.home.arpa", "2130706433", "0x7f.1",
     "127.1", "0", "017700000001", "127.0.0.1.", "0177.1.", "\uff11\uff12\uff17.0.0.1",
     "169\u3002254\uff0e169\uff61254", "metadata\uff0egoogle\uff0einternal",
     "metadata.google.inter\u00adnal", "\u24db\u24deca\u217chost.\u24db\u24deca\u217chost"],
)  # fmt: skip
def test_hosts_that_are_not_of_the_internet_by_their_names(host: str) -> None:
    assert not names_public_host(host)
    assert names_public_host(f"{host.strip('.')}.example.org")


def test_loopback_is_this_machine() -> None:
    for address in ("127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"):
        assert is_loopback(address)
    for address in ("10.0.0.1", "0.0.0.0", "::2", "8.8.8.8"):
        assert not is_loopback(address)


# --- what a connection leads to -------------------------------------------------------------------


def test_address_that_is_not_public_is_sent_nothing(tls_site: Site) -> None:
    storage_options.use(StorageOptions())
    link = tls_site.put("/a", b"data")
    before = tls_site.connections

    with pytest.raises(StorageError) as refused:
        objects.match(f"{link}?sig=x")

    assert refused.value.message == (
        f"{link}: leads to 127.0.0.1, which is no public address, expected one "
        "(--allow-private-addresses allows others)"
    )
    assert tls_site.connections == before


@pytest.mark.parametrize(
    ("options", "is_read"),
    [
        (StorageOptions(), False),
        (StorageOptions(allow_private_addresses=True), True),
        (StorageOptions(named_hosts=frozenset({"files.example.org:PORT"})), True),
        (StorageOptions(named_hosts=frozenset({"files.example.org:443"})), False),
        (StorageOptions(named_hosts=frozenset({"other.example.org:PORT"})), False),
    ],
    ids=["public", "all", "named", "other-port", "other-name"],
)
def test_what_counts_is_where_a_name_leads_to_at_that_moment(
    authority: Authority, tls_site: Site, monkeypatch: pytest.MonkeyPatch,
    options: StorageOptions, is_read: bool,
) -> None:  # fmt: skip
    """A name that led to a public address a moment ago (DNS rebinding) is of no use."""
    look_up = socket.getaddrinfo

    def rebound(host: Any, *args: Any, **kwargs: Any) -> Any:
        return look_up(HOST if host == "files.example.org" else host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", rebound)
    with running_site(authority.server_context("files.example.org")) as site:
        site.put("/a", b"data")
        named = frozenset(host.replace("PORT", str(site.port)) for host in options.named_hosts)
        storage_options.use(
            StorageOptions(
                allow_private_addresses=options.allow_private_addresses, named_hosts=named
            )
        )
        link = site.link("/a", "files.example.org")

        if is_read:
            assert objects.read_bytes(link) == b"data"
        else:
            with pytest.raises(StorageError, match=r"leads to 127\.0\.0\.1, which is no public"):
                objects.read_bytes(link)
            assert site.requests == []


def test_host_that_was_named_does_not_vouch_for_where_it_sends_to(tls_site: Site) -> None:
    there = tls_site.put("/there", b"data").replace(HOST, "localhost")
    link = tls_site.put("/a", Page(answers=[redirect(there)]))

    with pytest.raises(StorageError, match=r"/a: leads to 127\.0\.0\.1, which is no public"):
        objects.read_bytes(link)
    assert len(tls_site.requests) == 1

    storage_options.use(StorageOptions(allow_private_addresses=True))
    assert objects.read_bytes(link) == b"data"


def test_connection_of_a_named_host_is_no_way_in_for_others(tls_site: Site) -> None:
    link = tls_site.put("/a", b"data")
    assert objects.read_bytes(link) == b"data"  # and its connection is kept

    storage_options.use(StorageOptions())

    with pytest.raises(StorageError, match="which is no public address"):
        objects.read_bytes(link)


def test_plain_http_is_for_this_machine_alone(
    tls_site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage_options.use(StorageOptions(allow_private_addresses=True))
    with running_site(None) as site:
        site.put("/a", b"data")
        for host in (HOST, "localhost"):
            assert objects.read_bytes(site.link("/a", host)) == b"data"
        storage_options.use(StorageOptions())
        with pytest.raises(StorageError, match="no public address"):
            objects.read_bytes(site.link("/a"))
    for host in ("host.example", "10.0.0.1", "8.8.8.8", "localhost.example", "2130706434.example"):
        with pytest.raises(StorageError, match=f"http://{host}/a: http:// is read from this mach"):
            objects.read_bytes(f"http://{host}/a?sig=x")

    look_up = socket.getaddrinfo
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda _host, *rest, **more: look_up("192.0.2.1", *rest, **more)
    )
    monkeypatch.setattr(socket.socket, "connect", lambda *_: None)
    monkeypatch.setattr(socket.socket, "getpeername", lambda _: ("192.0.2.1", 80))
    with pytest.raises(StorageError, match=r"leads to 192\.0\.2\.1, expected an address of this"):
        objects.read_bytes("http://localhost/a")


# --- certificates ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "is_expired", "told"),
    [
        ((HOST,), True, "certificate has expired"),
        (("other.example",), False, "IP address mismatch, certificate is not valid for"),
    ],
)  # fmt: skip
def test_wrong_certificate_is_one_line_and_one_try(
    authority: Authority, tls_site: Site, names: tuple[str, ...], is_expired: bool, told: str
) -> None:
    storage_options.use(StorageOptions(allow_private_addresses=True))
    with running_site(authority.server_context(*names, is_expired=is_expired)) as site:
        link = site.put("/a", b"data")
        with pytest.raises(StorageError) as refused:
            objects.match(f"{link}?sig=x")
        assert site.connections == 1
        assert site.requests == []
    assert refused.value.message.startswith(f"{link}: its certificate is not accepted: {told}")
    assert "SSL_CERT_FILE" not in refused.value.message
    assert "\n" not in refused.value.message


def test_certificate_of_an_unknown_authority_is_not_accepted(
    tls_site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = tls_site.put("/a", b"data")
    monkeypatch.setenv("SSL_CERT_FILE", str(Authority(tmp_path).certificate_file))

    with pytest.raises(StorageError, match=r"not accepted: unable to get local") as refused:
        objects.match(link)
    assert refused.value.message.endswith(" (SSL_CERT_FILE names authorities to believe)")


def test_file_of_authorities_that_is_not_there_is_told(
    tls_site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere/ca.pem")

    with pytest.raises(StorageError, match=r"SSL_CERT_FILE /nowhere/ca\.pem: No such file"):
        objects.match(tls_site.link("/a"))


def test_server_that_speaks_in_the_clear_is_one_line(tls_site: Site) -> None:
    storage_options.use(StorageOptions(allow_private_addresses=True))
    with running_site(None) as site:
        link = site.put("/a", b"data").replace("http://", "https://")
        with pytest.raises(StorageError, match="/a: no encrypted connection: "):
            objects.match(link)
        assert site.connections == 1


# --- proxies --------------------------------------------------------------------------------------


@pytest.fixture
def proxy(tls_site: Site, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    with running_proxy() as running:
        monkeypatch.setenv("HTTPS_PROXY", f"http://me:s%40ySECRET@{HOST}:{running.port}")
        yield running


def test_proxy_is_asked_for_the_host_alone(proxy: Proxy, tls_site: Site) -> None:
    link = tls_site.put("/a", b"data")

    assert objects.read_bytes(f"{link}?sig=x") == b"data"
    (head,) = proxy.heads
    assert head.startswith(f"CONNECT {HOST}:{tls_site.port} HTTP/1.")
    assert "proxy-authorization: basic bwu6c0b5u0vdukvu" in head.lower()
    assert "sig" not in head


def test_proxy_is_passed_by_where_the_environment_says_so(
    proxy: Proxy, tls_site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", f"other.example,{HOST}")

    assert objects.read_bytes(tls_site.put("/a", b"data")) == b"data"
    with running_site(None) as site:
        storage_options.use(StorageOptions(allow_private_addresses=True))
        monkeypatch.delenv("NO_PROXY")
        assert objects.read_bytes(site.put("/a", b"data")) == b"data"  # this machine's own
    assert proxy.heads == []


@pytest.mark.parametrize(("status", "tries"), [(407, 1), (403, 1), (502, 6)])
def test_proxy_that_refuses_is_one_line_without_its_password(
    proxy: Proxy, tls_site: Site, status: int, tries: int
) -> None:
    proxy.status = status

    with pytest.raises(StorageError, match=f"/a: the proxy answers HTTP status {status}") as told:
        objects.match(tls_site.link("/a"))
    assert "SECRET" not in told.value.message
    assert len(proxy.heads) == tries


def test_proxy_that_is_not_there_is_one_line(
    tls_site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("https_proxy", f"{HOST}:1")
    with pytest.raises(StorageError, match="/a: by the proxy: Connection refused"):
        objects.match(tls_site.link("/a"))

    monkeypatch.setenv("https_proxy", f"socks5://me:SECRET@{HOST}:1")
    with pytest.raises(StorageError, match=r"HTTPS_PROXY .*expected http://HOST:PORT") as told:
        objects.match(tls_site.link("/a"))
    assert "SECRET" not in told.value.message


def test_behind_a_proxy_a_host_is_judged_by_how_it_is_spelled(
    proxy: Proxy, authority: Authority, tls_site: Site
) -> None:
    storage_options.use(StorageOptions())
    for host in (HOST, "10.0.0.1", "[::1]", "intranet", "metadata.google.internal", "2130706433"):
        with pytest.raises(StorageError, match="which is no public address"):
            objects.match(f"https://{host}/a?sig=x")
    assert proxy.heads == []

    with running_site(authority.server_context("files.example.org")) as site:
        site.put("/a", b"data")
        proxy.leads_to = (HOST, site.port)
        assert objects.read_bytes("https://files.example.org/a") == b"data"

"""Which addresses are anybody's: a link that came with data must not lead into the operator's own
network, to this machine, or to what a cloud tells its machines.
"""

from __future__ import annotations

import ipaddress
import socket

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
# RFC 6052 s2.1: an IPv4 address stands in the last 32 bits.
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_IPV4_COMPATIBLE = ipaddress.IPv6Network("::/96")  # RFC 4291 s2.5.5.1
# What Azure tells its machines comes from an address of the Internet, by its number.
_OF_CLOUDS = ipaddress.IPv4Address("168.63.129.16")
# RFC 6761, RFC 6762, RFC 8375, and what ICANN keeps for networks of one's own.
_PRIVATE_SUFFIXES = (".localhost", ".local", ".internal", ".home.arpa", ".localdomain", ".lan")


def is_public(address: str) -> bool:
    """Whether an address, as a socket tells it, can be reached by anybody on the Internet; so is
    the IPv4 address that an IPv6 address stands for.
    """
    found = _unwrapped(ipaddress.ip_address(address.partition("%")[0]))
    is_special = found.is_multicast or found.is_reserved or found.is_unspecified
    is_special = is_special or found == _OF_CLOUDS
    if isinstance(found, ipaddress.IPv6Address):
        is_special = is_special or found.is_site_local
    return found.is_global and not is_special


def is_loopback(address: str) -> bool:
    """Whether an address is one of this machine that nobody else reaches."""
    return _unwrapped(ipaddress.ip_address(address.partition("%")[0])).is_loopback


def _unwrapped(address: _Address) -> _Address:
    """Returns the IPv4 address that an IPv6 address stands for, or the address itself."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    embedded = address.ipv4_mapped or address.sixtofour
    if embedded is None and (
        address in _NAT64 or (address in _IPV4_COMPATIBLE and int(address) > 1)
    ):
        embedded = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return embedded or address


def literal_address(host: str) -> str | None:
    """Returns the address that a host is spelled as; None for a name. So are `127.1`, `0x7f000001`
    and other spellings of IPv4 that resolvers take.
    """
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        pass
    try:
        return socket.inet_ntoa(socket.inet_aton(host))
    except (OSError, UnicodeError):
        return None


def names_public_host(host: str) -> bool:
    """Whether a host can be one of the Internet by how it is spelled; what its name leads to is not
    asked. It is judged as whoever looks it up reads it: digits and dots have other forms that mean
    the same (RFC 3490 s3.1, s4), and a dot at the end means nothing.
    """
    try:
        plain = host.encode("idna").decode("ascii").rstrip(".").lower()
    except UnicodeError:
        return False
    address = literal_address(plain)
    if address is not None:
        return is_public(address)
    name = f".{plain}"
    return name.count(".") > 1 and not name.endswith(_PRIVATE_SUFFIXES)


def names_this_machine(host: str) -> bool:
    """Whether a host is spelled as this machine: `localhost`, `127.0.0.0/8` or `::1`."""
    address = literal_address(host)
    return host == "localhost" if address is None else is_loopback(address)

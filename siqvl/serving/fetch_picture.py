"""A picture from an address on the web, where the one who asks must not reach what we can reach.

A name is resolved once, every address it has must be a public one, and the connection goes to an
address that was judged: a name that changes its mind in between leads nowhere else. A redirect is
judged as the first address was. No proxy is used, and no cookie or credential is sent.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
import time
from concurrent.futures import Future, wait
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Network, ip_address
from typing import NamedTuple
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from siqvl.errors import UserError, one_line

REDIRECTS = 3
PIECE_BYTES = 2**16
PORTS = {"http": 80, "https": 443}
REDIRECTING = frozenset({301, 302, 303, 307, 308})
#: Of IPv6 addresses that carry an address of IPv4, RFC 6052.
TRANSLATED = IPv6Network("64:ff9b::/96")
HEADERS = {"User-Agent": "siqvl", "Accept": "image/*", "Accept-Encoding": "identity"}


class _Place(NamedTuple):
    """What an address on the web says."""

    scheme: str
    host: str
    port: int
    target: str  # path and query, percent-encoded


def fetch_picture(url: str, *, limit_bytes: int, timeout: float) -> bytes:
    """Returns what an http or https address gives, as it is; nothing is decoded.

    Args:
        limit_bytes: an answer that is longer is refused, before more of it is read.
        timeout: seconds that all of it may take, names and redirects included.

    Raises:
        UserError: the address is none, leads to one that is not public, does not answer in time,
            gives too much, or something other than status 200.
    """
    end = time.monotonic() + timeout
    asked = url
    for _ in range(REDIRECTS + 1):
        place = _place(asked)
        try:
            found = _asked(place, limit_bytes, end)
        except (OSError, http.client.HTTPException) as error:
            if time.monotonic() >= end:
                raise _too_late(place.host, timeout) from None
            raise UserError(
                f"the picture cannot be fetched from {place.host} ({one_line(error)})"
            ) from None
        if isinstance(found, bytes):
            return found
        if time.monotonic() >= end:
            raise _too_late(place.host, timeout)
        asked = urljoin(asked, found)
    raise UserError(f"the picture's address redirects more than {REDIRECTS} times")


def is_public(address: str) -> bool:
    """Tells whether an IP address is one of the internet, by itself and by what it carries."""
    found = ip_address(address.partition("%")[0])
    if not isinstance(found, IPv4Address):
        carried = found.ipv4_mapped or found.sixtofour
        if found in TRANSLATED:
            carried = IPv4Address(int(found) & 0xFFFFFFFF)
        if carried is not None:  # the packet ends there
            return is_public(str(carried))
    return found.is_global and not (found.is_multicast or found.is_reserved or found.is_unspecified)


def _place(url: str) -> _Place:
    try:
        parts: SplitResult = urlsplit(url.strip())
        scheme, host = parts.scheme.lower(), parts.hostname or ""
        port = PORTS.get(scheme, 0) if parts.port is None else parts.port
        host = host if ":" in host else host.encode("idna").decode()
    except (ValueError, UnicodeError):
        raise UserError("a picture's address is no URL") from None
    if scheme not in PORTS or not host or not port:
        raise UserError("a picture's address has to begin with http:// or https://")
    if "@" in parts.netloc:
        raise UserError("a picture's address must not have a user name or password in it")
    target = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~")
    if parts.query:
        target += "?" + quote(parts.query, safe="/%:@!$&'()*+,;=~?")
    return _Place(scheme, host, port, target)


def _asked(place: _Place, limit_bytes: int, end: float) -> bytes | str:
    """What one address gives: the bytes, or where it redirects to."""
    connected = _connected(_addresses(place, end), place.port, end)
    watch = threading.Timer(max(end - time.monotonic(), 0), _cut, [connected])
    watch.daemon = True
    watch.start()  # a server that sends a byte now and then never lets a read time out
    try:
        if place.scheme == "https":
            context = ssl.create_default_context()
            secure = context.wrap_socket(connected, server_hostname=place.host)
            connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                place.host, place.port, context=context
            )
            connection.sock = secure
        else:
            connection = http.client.HTTPConnection(place.host, place.port)
            connection.sock = connected
        try:
            connection.request("GET", place.target, headers=HEADERS)
            return _read(place, connection.getresponse(), limit_bytes, end)
        finally:
            connection.close()
    finally:
        watch.cancel()
        connected.close()


def _read(
    place: _Place, response: http.client.HTTPResponse, limit_bytes: int, end: float
) -> bytes | str:
    location = response.getheader("Location")
    if response.status in REDIRECTING and location:
        return location
    if response.status != 200:
        raise UserError(f"{place.host} answers with status {response.status}, not with a picture")
    too_long = UserError(f"the picture at {place.host} has more than {limit_bytes:,} bytes")
    if (response.length or 0) > limit_bytes:
        raise too_long
    found = bytearray()
    while piece := response.read1(PIECE_BYTES):
        found += piece
        if len(found) > limit_bytes:
            raise too_long
        if time.monotonic() >= end:
            raise TimeoutError("it takes too long")
    if time.monotonic() >= end:  # what looks like an end may be that of the connection
        raise TimeoutError("it takes too long")
    if response.length:  # bytes that were announced and did not come
        raise http.client.IncompleteRead(b"", response.length)
    return bytes(found)


def _addresses(place: _Place, end: float) -> list[str]:
    """All addresses of a name, every one of them public."""
    answer: Future[list[str]] = Future()

    def ask() -> None:
        try:
            found = socket.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM)
            answer.set_result([str(one[4][0]) for one in found])
        except BaseException as error:
            answer.set_exception(error)

    # the system's resolver takes as long as it likes
    threading.Thread(target=ask, name="resolve-name", daemon=True).start()
    if not wait([answer], max(end - time.monotonic(), 0)).done:
        raise TimeoutError("its name is not resolved")
    found = list(dict.fromkeys(answer.result()))
    if not found or not all(map(is_public, found)):
        raise UserError(f"{place.host} is no public address: pictures are not fetched from there")
    return found


def _connected(addresses: list[str], port: int, end: float) -> socket.socket:
    failed: OSError = TimeoutError("nobody answers")
    for address in addresses:
        left = end - time.monotonic()
        if left <= 0:
            break
        try:
            return socket.create_connection((address, port), timeout=left)
        except OSError as error:
            failed = error
    raise failed


def _cut(connected: socket.socket) -> None:
    with suppress(OSError):
        connected.shutdown(socket.SHUT_RDWR)


def _too_late(host: str, timeout: float) -> UserError:
    return UserError(f"the picture at {host} does not come within {timeout:g} seconds")

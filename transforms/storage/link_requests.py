"""One GET of a link: redirects, and what the answer says of the object and of the link.

A request is never tried again here, and no error that leaves has a link's query in it, nor one
behind it.
"""

from __future__ import annotations

import hashlib
import http
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any, NoReturn
from urllib.parse import parse_qsl, unquote, urljoin

from urllib3 import exceptions as urllib3_errors
from urllib3.util import make_headers

from transforms.media.errors import LinkExpiredError, StorageError
from transforms.media.text import printable, without_secrets
from transforms.media.wall_time import spell_time
from transforms.storage.link_connections import (
    RefusedLinkError,
    check_host,
    clean_error,
    pool_of,
)
from transforms.storage.link_expiry import expiry_of
from transforms.storage.store import StoreBusyError
from transforms.storage.uris import Link, shown, split_link

_MAX_REDIRECTS = 5
_MAX_LINK_CHARACTERS = 16_384
_REDIRECTS = (301, 302, 303, 307, 308)
_NO_SUCH_BYTE = 416
_GONE_OR_REFUSED = (400, 401, 403, 404, 410)
"""What stores answer to a link that is good no longer, among others; Cloud Storage 400."""
_WORDS = {
    401: "refused",
    403: "refused",
    404: "gone",
    407: "refused by the proxy",
    410: "gone",
    451: "refused",
}
_MAX_WAIT_SECONDS = 60
"""Who asks for longer (Retry-After) is not waited for: the next run asks again."""
_ERROR_BYTES = 4_096
_BEGINNING_BYTES = 512
_BEGINNING_SECONDS = 60
_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)", re.IGNORECASE | re.ASCII)
_SHORTEST_SECRET = 8
"""Shorter values of a query are numbers and names of places, and may be part of any word."""
LIBRARY_ERRORS = (
    RefusedLinkError,
    urllib3_errors.HTTPError,
    http.client.HTTPException,
    OSError,
    UnicodeError,
)
_DIGITS = re.compile(r"\d{1,18}", re.ASCII)
_HTML = re.compile(rb"\s*<(?:!doctype\s+html|html)\b", re.IGNORECASE)
_AS_STORED = {"", "identity", "gzip", "x-gzip", "aws-chunked"}
"""Values of Content-Encoding that say nothing against an object's own bytes: somebody may have
stored a .tar.gz with it, and then it comes as it is stored.
"""
# What stores say of an error (S3 and its kin, Cloud Storage, Azure): no other word of an answer is
# told, as it may hold what was asked.
_CODE = re.compile(
    rb"<Code>("
    rb"AccessDenied|AccountIsDisabled|AllAccessDisabled|AuthenticationFailed|AuthorizationFailure|"
    rb"AuthorizationPermissionMismatch|AuthorizationQueryParametersError|BlobArchived|"
    rb"BlobNotFound|ContainerNotFound|ExpiredToken|InternalError|InvalidAccessKeyId|"
    rb"InvalidAuthenticationInfo|InvalidObjectState|InvalidToken|KeyNotFound|"
    rb"MalformedSecurityHeader|NoSuchBucket|NoSuchKey|NoSuchVersion|OutOfRangeInput|"
    rb"PermanentRedirect|PublicAccessNotPermitted|RequestTimeTooSkewed|ResourceNotFound|"
    rb"ServerBusy|ServiceUnavailable|SignatureDoesNotMatch|SlowDown|UserProjectAccountProblem)"
    rb"</Code>"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A link's object, of which bytes are on their way."""

    size_bytes: int
    """Of the whole object."""
    start: int
    stop: int
    """Which bytes of it come."""
    is_part: bool
    """Whether the server gives parts (a range, RFC 9110 s14): 206 and not 200."""
    tag: str
    """Differs whenever the content may; nothing can be read from it, as a server may say anything
    in its own.
    """
    modified_unix_s: float
    beginning: bytes = field(repr=False)
    """The first bytes that came, if `start` is 0."""
    body: Any = field(repr=False)
    """urllib3's: what comes behind the beginning."""


def get(uri: str, start: int, stop: int | None = None) -> Answer:
    """Asks for bytes of a link's object, from `start` to before `stop` (None: to its end).

    Returns:
      what comes: all of it from the start where the server knows no ranges; without a body of an
      object that is empty.

    Raises:
      StoreBusyError: another try may go well.
      StorageError: none will; LinkExpiredError where that is why.
    """
    wanted = f"bytes={start}-{'' if stop is None else stop - 1}"
    problem: Exception
    try:
        return _follow(uri, wanted, start)
    except LIBRARY_ERRORS as error:
        problem = _problem(uri, error)
    # Out here nothing of the library's is behind it, which a traceback would print.
    raise problem


def read_some(uri: str, body: Any, most: int) -> bytes:
    """Returns what has come of an answer's body, at least a byte of it; nothing at its end. Raises:
    as `get`.
    """
    try:
        return bytes(body.read1(most))
    except LIBRARY_ERRORS as error:
        problem = _problem(uri, error)
    raise problem


def _problem(uri: str, error: BaseException) -> Exception:
    """Returns what to raise for an error of a library, or one of ours."""
    clean = error if isinstance(error, StoreBusyError) else clean_error(error)
    why = _hidden(str(clean), uri)
    if isinstance(clean, StoreBusyError):
        busy = StoreBusyError(why, clean.after_seconds)
        busy.errno = clean.errno
        return busy
    return StorageError(f"{printable(shown(uri))}: {why}")


def _hidden(text: str, uri: str) -> str:
    """Returns a message without anything of a link's query, whoever repeated it there."""
    link = split_link(uri)
    if link is None:
        return without_secrets(text)
    fields = [value for _, value in parse_qsl(link.query[1:], keep_blank_values=True)]
    raw = [part.rpartition("=")[2] for part in link.query[1:].split("&")]
    for secret in sorted({*fields, *raw, *link.user_info.split(":"), link.user_info}, key=len)[
        ::-1
    ]:
        for spelled in (secret, unquote(secret)):
            if len(spelled) >= _SHORTEST_SECRET:
                text = re.sub(re.escape(spelled), "[hidden]", text, flags=re.IGNORECASE)
    return without_secrets(text)


# --- asking ---------------------------------------------------------------------------------------


def _follow(uri: str, wanted: str, start: int, encoding: str = "identity") -> Answer:
    """Asks, and goes where it is sent to. Raises: as `get`, and what urllib3 raises."""
    url = uri
    seen: Link | None = None
    for _ in range(_MAX_REDIRECTS + 1):
        link = _parts(url, seen)
        is_first = seen is None
        seen = link
        answer = _ask(link, wanted, encoding, with_user=is_first)
        try:
            if answer.status in _REDIRECTS and (location := answer.headers.get("Location")):
                url = _join(url, location)
                continue
            if encoding == "identity" and _was_expanded(answer.headers):
                answer.close()
                return _follow(uri, wanted, start, "gzip")
            if answer.status == _NO_SUCH_BYTE and start == 0:
                return _of_nothing(answer)
            if answer.status not in (200, 206):
                _raise_status(uri, answer, start)
            return _read_head(uri, answer, start)
        except BaseException:
            answer.close()
            raise
        finally:
            if answer.status not in (200, 206):
                answer.close()
    raise RefusedLinkError(f"is redirected more than {_MAX_REDIRECTS} times")


def _join(url: str, location: str) -> str:
    """Returns where an answer sends to, empty for nowhere that can be read."""
    try:
        return urljoin(url, location)
    except ValueError:
        return ""


def _parts(url: str, before: Link | None) -> Link:
    """Returns the parts of a link, or of what one redirects to. Raises: RefusedLinkError."""
    link = split_link(url) if url.isprintable() and len(url) <= _MAX_LINK_CHARACTERS else None
    try:
        if link is None:
            raise RefusedLinkError("is no link, expected https://HOST/PATH")
        if before is not None and link.scheme != "https":
            raise RefusedLinkError("is no https://")
        check_host(link)
    except RefusedLinkError as error:
        if before is None:
            raise
        told = f" to {shown(f'{link.scheme}://{link.host_and_port}')}" if link else ""
        raise RefusedLinkError(f"is redirected{told}: {error}") from None
    return link


def _was_expanded(headers: Mapping[str, str]) -> bool:
    """Whether Cloud Storage expands what is stored as gzip, and of what there is no size or part
    then. It does not where gzip is accepted.
    """
    stored = (headers.get("X-Goog-Stored-Content-Encoding") or "").strip().lower()
    return stored == "gzip" and not headers.get("Content-Encoding")


def _ask(link: Link, wanted: str, encoding: str, *, with_user: bool) -> Any:
    """Returns urllib3's answer to one request."""
    headers = {
        "Range": wanted,
        "Accept-Encoding": encoding,
        "User-Agent": "callpress",
    }
    if with_user and link.user_info:
        headers.update(make_headers(basic_auth=unquote(link.user_info)))
    return pool_of(link).urlopen(
        "GET",
        (link.path or "/") + link.query,
        headers=headers,
        retries=False,
        redirect=False,
        assert_same_host=False,
        preload_content=False,
        decode_content=False,
    )


# --- what an answer says --------------------------------------------------------------------------


def _raise_status(uri: str, answer: Any, start: int) -> NoReturn:
    """Raises what an answer without content says. Raises: as `get`."""
    status, name = int(answer.status), printable(shown(uri))
    if status == _NO_SUCH_BYTE:
        raise StorageError(f"{name}: has no byte {start}: it was replaced while it was being read")
    code = _code_of(answer)
    told = f"HTTP status {status}{code and f' {code}'}"
    if status in (408, 425, 429) or status >= 500:
        seconds = wait_asked(answer.headers)
        if seconds > _MAX_WAIT_SECONDS:
            raise StorageError(f"{name}: {told}, asks to wait for {seconds:.0f} s")
        raise StoreBusyError(told, seconds)
    expiry = expiry_of(uri) if status in _GONE_OR_REFUSED else None
    if expiry is not None and expiry <= _now_unix_s(answer.headers) * 1_000_000_000:
        raise LinkExpiredError(f"{name}: its link expired at {_spell(expiry)}: {told}")
    until = "" if expiry is None else f"; its link is good until {_spell(expiry)}"
    word = _WORDS.get(status)
    raise StorageError(f"{name}: {f'{word}: ' if word else ''}{told}{until}")


def _spell(unix_ns: int) -> str:
    return (spell_time(unix_ns) or "").replace(".000Z", "Z")


def _code_of(answer: Any) -> str:
    """Returns a store's own word for an error; empty for none that is known."""
    try:
        found = _CODE.search(answer.read1(_ERROR_BYTES))
    except (urllib3_errors.HTTPError, http.client.HTTPException, OSError):
        return ""
    return found[1].decode("ascii") if found else ""


def wait_asked(headers: Mapping[str, str]) -> float:
    """Returns how long a server asks to wait, in seconds (RFC 9110 s10.2.3); 0 for not at all."""
    text = (headers.get("Retry-After") or "").strip()
    if _DIGITS.fullmatch(text):
        return float(text)
    at = _time_of(text)
    return 0.0 if at is None else max(0.0, at - _now_unix_s(headers))


def _now_unix_s(headers: Mapping[str, str]) -> float:
    """Returns the time by the server's clock, else by this machine's."""
    at = _time_of(headers.get("Date") or "")
    return time.time() if at is None else at


def _time_of(text: str) -> float | None:
    """Returns an HTTP date as Unix seconds; None for none, or one that no calendar of ours has."""
    try:
        moment = parsedate_to_datetime(text[:100])
        return moment.replace(tzinfo=moment.tzinfo or UTC).astimezone(UTC).timestamp()
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


def _read_head(uri: str, answer: Any, start: int) -> Answer:
    """Returns what a good answer says of the object. Raises: as `get`."""
    headers = answer.headers
    begin, stop, size = _range_of(answer, start)
    encoding = (headers.get("Content-Encoding") or "").strip().lower()
    if encoding not in _AS_STORED:
        raise RefusedLinkError(
            f"came with Content-Encoding {printable(encoding)[:40]}, expected the bytes as stored"
        )
    beginning = _beginning(answer, stop - begin) if begin == 0 else b""
    if _is_html(headers.get("Content-Type") or "", beginning):
        raise RefusedLinkError("HTML came (a page to log in?), expected a file")
    return _answer(answer, size, begin, stop, beginning)


def _of_nothing(answer: Any) -> Answer:
    """Returns what is said of an object without a first byte."""
    return _answer(answer, 0, 0, 0, b"")


def _answer(answer: Any, size: int, start: int, stop: int, beginning: bytes) -> Answer:
    headers = answer.headers
    told = (headers.get("ETag") or "", headers.get("Last-Modified") or "")
    modified = _time_of(told[1])
    return Answer(
        size_bytes=size,
        start=start,
        stop=stop,
        is_part=answer.status == 206,
        tag=hashlib.sha256("\n".join([*told, str(size)]).encode()).hexdigest()[:32],
        # By the server's clock, where it does not say: what may be new is not passed over.
        modified_unix_s=_now_unix_s(headers) if modified is None else modified,
        beginning=beginning,
        body=answer,
    )


def _range_of(answer: Any, start: int) -> tuple[int, int, int]:
    """Returns which bytes come, and the size of the object. Raises: RefusedLinkError."""
    headers = answer.headers
    length = (headers.get("Content-Length") or "").strip()
    text = (headers.get("Content-Range") or "").strip()
    found = _CONTENT_RANGE.fullmatch(text)
    if answer.status == 200:
        if not _DIGITS.fullmatch(length):
            raise RefusedLinkError("no size came with it, expected Content-Length")
        if found and (int(found[1]), int(found[2]) + 1) != (0, int(length)):
            raise RefusedLinkError(
                f"came as a whole, with HTTP status 200, and with Content-Range {found[0]}"
            )
        return 0, int(length), int(length)
    if found is None or found[3] == "*":
        raise RefusedLinkError(
            f"came with Content-Range {printable(text)[:60] or 'missing'}, expected that of byte "
            f"{start} on, with the size of the whole"
        )
    begin, stop, size = int(found[1]), int(found[2]) + 1, int(found[3])
    fits = begin == start < stop <= size
    if not fits or (_DIGITS.fullmatch(length) and int(length) != stop - begin):
        raise RefusedLinkError(
            f"came with Content-Range {printable(text)[:60]} and Content-Length "
            f"{printable(length)[:20] or 'missing'}, expected byte {start} on"
        )
    return begin, stop, size


def _beginning(answer: Any, size_bytes: int) -> bytes:
    """Returns the first bytes of a body, by which HTML is told."""
    data, until = b"", time.monotonic() + _BEGINNING_SECONDS
    while len(data) < min(_BEGINNING_BYTES, size_bytes):
        more = answer.read1(min(_BEGINNING_BYTES, size_bytes) - len(data))
        if not more:
            break
        data += more
        if time.monotonic() > until:
            raise StoreBusyError(f"only {len(data)} bytes came within {_BEGINNING_SECONDS:g} s")
    return data


def _is_html(content_type: str, beginning: bytes) -> bool:
    """Whether HTML came. What is called so may yet be an archive: none begins with `<`."""
    text = beginning.removeprefix(b"\xef\xbb\xbf").lstrip()
    is_called_so = content_type.partition(";")[0].strip().lower() in (
        "text/html",
        "application/xhtml+xml",
    )
    return text.startswith(b"<") and (is_called_so or bool(_HTML.match(text)))

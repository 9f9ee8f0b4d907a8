"""Manifests that are asked of the vendor's API (Stream Video) by its own SDK, the extra `[stream]`:
`stream:TYPE:ID` for the recordings of one call, `stream:since=36h` for those of all calls that were
touched since.

The vendor lists recordings by call only: `since` first asks for the calls of which the creation,
the last update, the start that was set, or the end lies after that moment, and those that go on
now, page by page; then for the recordings of each, of which those that ended before that moment are
left out. What moves the last update of a call that was made long ago and is joined again is the
vendor's business and not written down: for calls whose id is used for months, events are the better
manifest.

The SDK is used for what is behind its typed calls, its signed requests: its types refuse a whole
list for one time that they do not like, and keep microseconds of the others.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import tenacity

from transforms.media.errors import ConfigError, StorageError
from transforms.media.rfc3339 import parse_time
from transforms.media.text import one_line, printable, without_secrets
from transforms.sources.manifests.entries import Unread, read_value
from transforms.sources.manifests.entry import BadEntry, LeftOut, ManifestEntry
from transforms.storage import secrets, storage_options
from transforms.storage.storage_options import StreamAccount

if TYPE_CHECKING:
    from getstream.stream import Stream

PREFIX = "stream:"
_EXPECTED = "expected stream:TYPE:ID, or stream:since=36h (m, h, d, or a time)"
_CALL = re.compile(r"[\w-]{1,256}:(?!\.\.?\Z)[^\s/?#\\]{1,256}", re.ASCII)
_AGE = re.compile(r"(?P<count>\d{1,6})(?P<unit>[mhd])", re.ASCII)
_UNIT_SECONDS = {"m": 60, "h": 3_600, "d": 86_400}
_PAGE_CALLS = 25
_AT_A_TIME = 8
"""Requests for the recordings of calls."""
_TRIES = 6
_BACK_OFF = tenacity.wait_random_exponential(multiplier=0.5, max=30)
_MAX_WAIT_SECONDS = 60
"""The most that is waited where the API says for how long."""
_TIMEOUT_SECONDS = 30.0
_SILENT_CALLS = 3
"""Calls in a row of which the API does not answer: it is down, or this program is shut out."""


def is_stream(where: str) -> bool:
    """Whether a manifest is asked of the vendor's API."""
    return where.startswith(PREFIX)


def check_stream(where: str) -> None:
    """Finds out whether a manifest can be asked for at all. Raises: ConfigError: it is not spelled
    so, or the SDK is not installed.
    """
    _parse(where, time.time_ns())
    _import_sdk(where)


def read_stream(where: str) -> Iterator[ManifestEntry | LeftOut | BadEntry]:
    """Yields what the vendor's API names, asked with the account of `storage_options`.

    A call whose recordings cannot be listed is a bad entry; the others go on. Requests that are
    refused for their number, fail with 5xx or are not answered are tried again with back-off.

    Raises:
      ConfigError: as `check_stream`, or a secret cannot be read.
      StorageError: the API refuses the key, cannot be reached, or does not list calls.
    """
    now_unix_ns = time.time_ns()
    asked = _parse(where, now_unix_ns)
    _import_sdk(where)
    api = _Api(where, storage_options.current().stream)
    try:
        if isinstance(asked, int):
            yield from _since(where, api, asked, now_unix_ns)
            return
        answer = api.list_recordings(asked)
        if isinstance(answer, _ApiError) and answer.is_passing:
            raise _unreachable(where, answer)
        yield from _of_call(where, asked, answer, now_unix_ns)
    finally:
        api.close()


def _parse(where: str, now_unix_ns: int) -> str | int:
    """Returns the cid of one call, or the moment since which calls are asked for. Raises:
    ConfigError.
    """
    asked = where.removeprefix(PREFIX)
    if asked.startswith("since="):
        since = asked.removeprefix("since=")
        if age := _AGE.fullmatch(since):
            seconds = int(age["count"]) * _UNIT_SECONDS[age["unit"]]
            return max(0, now_unix_ns - seconds * 1_000_000_000)
        moment = parse_time(since)
        if moment is not None and 0 <= moment < 1 << 62:
            return moment
    elif _CALL.fullmatch(asked):
        return asked
    raise ConfigError(f"{_shown(where)}: {_EXPECTED}")


def _shown(text: str) -> str:
    return one_line(printable(without_secrets(text)))[:200]


def _import_sdk(where: str) -> None:
    try:
        import getstream.stream  # noqa: F401 - takes a second
    except ImportError:
        raise ConfigError(
            f"{_shown(where)}: needs the vendor's SDK, which is not installed: "
            "pip install callpress[stream]"
        ) from None


class _ApiError(Exception):
    """The API refused a request, or did not answer after all tries. The message says how."""

    def __init__(self, message: str, *, status: int | None, is_passing: bool) -> None:
        super().__init__(message)
        self.status = status
        """None where nothing answered."""
        self.is_passing = is_passing
        """Whether it may answer later."""


class _Api:
    """The vendor's API, as far as it is needed; several threads may use it."""

    def __init__(self, where: str, account: StreamAccount) -> None:
        """Raises: ConfigError: a secret cannot be read, or the address is none."""
        from getstream.stream import BASE_URL, Stream

        base_url = account.base_url or os.environ.get("STREAM_BASE_URL") or BASE_URL
        if not storage_options.BASE_URL.fullmatch(
            base_url
        ):  # it may have a password in it, and is not told
            raise ConfigError(
                f"{_shown(where)}: the base_url of its API is no address, expected https://host"
            )
        # They have the key in the address of a request, and the signed token in its headers.
        for name in ("httpx", "httpcore", "getstream"):
            logging.getLogger(name).setLevel(logging.WARNING)
        self._client: Stream = Stream(
            api_key=secrets.read(account.api_key),
            api_secret=secrets.read(account.api_secret),
            base_url=base_url,
            request_timeout=_TIMEOUT_SECONDS,
            max_conns_per_host=_AT_A_TIME,
            idle_timeout=55.0,
            connect_timeout=10.0,
        )
        self._video = self._client.video
        self._tries = tenacity.Retrying(
            retry=tenacity.retry_if_exception(_may_pass),
            stop=tenacity.stop_after_attempt(_TRIES),
            wait=_wait,
            reraise=True,
        )

    def list_calls(self, since_unix_ns: int) -> Iterator[list[str]]:
        """Yields the cids of calls, a page at a time. Raises: _ApiError."""
        moment = datetime.fromtimestamp(since_unix_ns // 1_000_000_000, UTC).isoformat()
        after = {"$gte": moment.replace("+00:00", "Z")}
        times = ("created_at", "updated_at", "starts_at", "ended_at")
        asked: dict[str, Any] = {
            "filter_conditions": {"$or": [*({each: after} for each in times), {"ongoing": True}]},
            "sort": [{"field": "created_at", "direction": 1}],
            "limit": _PAGE_CALLS,
        }
        while True:
            answer = self._ask(
                lambda: self._video.post("/api/v2/video/calls", dict[str, Any], json=dict(asked))
            )
            calls = answer.get("calls") or []
            yield [cid for each in calls if (cid := _cid_of(each))]
            following = answer.get("next")
            if not following or following == asked.get("next"):
                return
            asked["next"] = following

    def list_recordings(self, cid: str) -> dict[str, Any] | _ApiError:
        """Returns the list of a call's recordings, or why there is none."""
        kind, _, name = cid.partition(":")
        try:
            return self._ask(
                lambda: self._video.get(
                    "/api/v2/video/call/{type}/{id}/recordings",
                    dict[str, Any],
                    path_params={"type": kind, "id": name},
                )
            )
        except _ApiError as error:
            return error

    def close(self) -> None:
        """Gives up the connections."""
        self._client.close()

    def _ask(self, request: Callable[[], Any]) -> dict[str, Any]:
        """Returns what a request is answered with. Raises: _ApiError."""
        from getstream.exceptions import StreamException

        try:
            answer = self._tries(request).data
        except StreamException as error:
            raise _described(error) from None
        except (RecursionError, ValueError):
            raise _ApiError("its answer is no JSON", status=200, is_passing=False) from None
        if not isinstance(answer, dict):
            raise _ApiError("its answer is no JSON object", status=200, is_passing=False)
        return answer


def _may_pass(error: BaseException) -> bool:
    """Whether another try, a little later, may go well."""
    status = getattr(error, "status_code", None)
    if isinstance(status, int):
        return status in (408, 429) or status >= 500
    return getattr(error, "error_type", "tls_handshake_failed") != "tls_handshake_failed"


def _wait(state: tenacity.RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    told = getattr(error, "retry_after", None)
    return min(told.total_seconds(), _MAX_WAIT_SECONDS) if told else float(_BACK_OFF(state))


_UNANSWERED = {
    "timeout": "it does not answer in time",
    "dns_failure": "the name of its host is not known",
    "tls_handshake_failed": "its certificate is not trusted, or it speaks no TLS",
}


def _described(error: Exception) -> _ApiError:
    status = getattr(error, "status_code", None)
    if isinstance(status, int):
        said = _shown(str(getattr(error, "message", "")).split("\n", 1)[0])
        message = f"HTTP status {status}" + (f": {said}" if said else "")
        return _ApiError(message, status=status, is_passing=_may_pass(error))
    kind = getattr(error, "error_type", "")
    message = _UNANSWERED.get(kind, "it cannot be connected to")
    return _ApiError(message, status=None, is_passing=_may_pass(error))


def _cid_of(call: Any) -> str:
    cid = call.get("call", {}).get("cid") if isinstance(call, dict) else None
    return cid if isinstance(cid, str) and ":" in cid else ""


def _since(
    where: str, api: _Api, since_unix_ns: int, now_unix_ns: int
) -> Iterator[ManifestEntry | LeftOut | BadEntry]:
    silent = 0
    with ThreadPoolExecutor(_AT_A_TIME) as pool:
        try:
            for cids in api.list_calls(since_unix_ns):
                for cid, answer in zip(cids, pool.map(api.list_recordings, cids), strict=True):
                    is_silent = isinstance(answer, _ApiError) and answer.is_passing
                    silent = silent + 1 if is_silent else 0
                    if isinstance(answer, _ApiError) and silent >= _SILENT_CALLS:
                        raise answer
                    for found in _of_call(where, cid, answer, now_unix_ns):
                        ended = getattr(found, "ended_unix_ns", None)
                        if ended is None or ended >= since_unix_ns:
                            yield found
        except _ApiError as error:
            raise _unreachable(where, error) from None


def _of_call(
    where: str, cid: str, answer: dict[str, Any] | _ApiError, now_unix_ns: int
) -> Iterator[ManifestEntry | LeftOut | BadEntry]:
    """Yields what the list of a call's recordings names. Raises: StorageError: the key is
    refused, which no call is to blame for.
    """
    shown, position = _shown(where), f"call {_shown(cid)}"
    if isinstance(answer, _ApiError):
        if answer.status == 401:
            raise _unreachable(where, answer)
        why = f"its recordings cannot be listed: {answer}"
        yield BadEntry(manifest=shown, position=position, why=why)
        return
    for found in read_value(answer, position):
        if isinstance(found, Unread):
            yield BadEntry(manifest=shown, position=found.position, why=found.why)
        elif isinstance(found, ManifestEntry):
            yield dataclasses.replace(found, call_cid=cid, issued_unix_ns=now_unix_ns)
        else:
            yield found


def _unreachable(where: str, error: _ApiError) -> StorageError:
    hint = ", look at the key and the secret" if error.status in (401, 403) else ""
    return StorageError(f"{_shown(where)}: the vendor's API: {error}{hint}")

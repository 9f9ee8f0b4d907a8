"""Sends a notice as one POST over HTTPS, signed as the target's keys allow."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from transforms.media.errors import ConfigError
from transforms.notices import signatures
from transforms.notices.sender import Answer, Notice, NoticeState
from transforms.storage import secrets
from transforms.storage.link_connections import RefusedLinkError
from transforms.storage.link_posts import Endpoint, Reply
from transforms.storage.store import StoreBusyError
from transforms.targets import Target

_AGAIN = (408, 425, 429)
"""With 5xx: what may go well a little later."""
_ASKS_TO_WAIT = (429, 503)
_GONE = 410
_EVENT_ID = re.compile(r"[\x21-\x7e]{1,256}")
"""What a header can hold, and no receiver takes for two."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Keys:
    """What a target's references stand for."""

    endpoint: Endpoint
    secret: str = field(repr=False)
    api_key: str = field(repr=False)
    webhook_keys: tuple[bytes, ...] = field(repr=False)


class HttpsSender:
    """Fulfils `Sender` for an endpoint. Secrets are read with the first notice."""

    most = 1

    def __init__(self, target: Target) -> None:
        self.at_a_time = target.at_a_time
        self._target = target
        self._lock = threading.Lock()
        self._keys: _Keys | None = None
        self._is_closed = False

    def send(self, notices: Sequence[Notice]) -> Sequence[Answer]:
        """Sends them one after the other."""
        return [self._send(notice) for notice in notices]

    def close(self) -> None:
        """Cuts all connections: who waits for an answer is told at once that there is none."""
        with self._lock:
            self._is_closed = True
            if self._keys is not None:
                self._keys.endpoint.close()

    def _send(self, notice: Notice) -> Answer:
        if not _EVENT_ID.fullmatch(notice.event_id):
            return Answer(state=NoticeState.FAILED, why="its id is none, expected ASCII")
        try:
            keys = self._read_keys()
            headers = signatures.headers(
                notice.body,
                notice.event_id,
                notice.attempt,
                int(time.time()),
                secret=keys.secret,
                api_key=keys.api_key,
                webhook_keys=keys.webhook_keys,
            )
            return _answer_to(keys.endpoint.post(headers, notice.body))
        except StoreBusyError as error:
            return Answer(state=NoticeState.PENDING, why=str(error))
        except (RefusedLinkError, ConfigError) as error:
            return Answer(state=NoticeState.PENDING, why=str(error), ends_target=True)

    def _read_keys(self) -> _Keys:
        """Returns what the target's references stand for. Raises: ConfigError, RefusedLinkError."""
        with self._lock:
            if self._keys is None:
                self._keys = self._new_keys()
            if self._is_closed:
                self._keys.endpoint.close()
            return self._keys

    def _new_keys(self) -> _Keys:
        target = self._target
        return _Keys(
            endpoint=Endpoint(
                secrets.read(target.address) if target.address else target.place,
                timeout_seconds=target.timeout_seconds,
                at_a_time=target.at_a_time,
            ),
            secret=secrets.read(target.secret) if target.secret else "",
            api_key=secrets.read(target.api_key) if target.api_key else "",
            webhook_keys=tuple(map(_webhook_key, target.webhook_keys)),
        )


def _webhook_key(reference: str) -> bytes:
    """Returns a key of Standard Webhooks. Raises: ConfigError."""
    try:
        return signatures.webhook_key(secrets.read(reference))
    except ValueError as error:
        raise ConfigError(f"{reference}: {error}") from None


def _answer_to(reply: Reply) -> Answer:
    status = reply.status
    told = f"HTTP status {status}"
    if 200 <= status < 300:
        return Answer(state=NoticeState.DELIVERED, http_status=status)
    if status == _GONE:
        return Answer(
            state=NoticeState.GONE,
            http_status=status,
            why=f"{told}: it takes nothing any more",
            ends_target=True,
        )
    if status in _AGAIN or status >= 500:
        return Answer(
            state=NoticeState.PENDING,
            http_status=status,
            why=told,
            after_seconds=reply.after_seconds if status in _ASKS_TO_WAIT else 0.0,
        )
    if 300 <= status < 400:
        told += " sends elsewhere, which is not followed"
    return Answer(
        state=NoticeState.FAILED, http_status=status, why=f"{told}, expected one from 200 to 299"
    )

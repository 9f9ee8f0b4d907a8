"""Sends a notice as one POST over HTTPS, signed as the target's keys allow."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Sequence

from transforms.media.errors import ConfigError
from transforms.notices import signatures, target_secrets
from transforms.notices.sender import Answer, Notice, NoticeState
from transforms.notices.target_secrets import TargetSecrets
from transforms.storage.link_connections import RefusedLinkError
from transforms.storage.link_posts import Endpoint, Reply
from transforms.storage.store import StoreBusyError
from transforms.targets import Target

_AGAIN = (408, 425, 429)
"""With 5xx: what may go well a little later."""
_ASKS_TO_WAIT = (429, 503)
_NOT_OF_THE_BODY = (401, 403, 404, 405, 407, 421, 426)
"""With 3xx: what says nothing against an event, but that the target, its address or a key is to be
mended, or that it does not know the call yet. A whole night is not lost to a key that was mistyped.
"""
_GONE = 410
_EVENT_ID = re.compile(r"[\x21-\x7e]{1,256}")
"""What a header can hold, and no receiver takes for two."""


class HttpsSender:
    """Fulfils `Sender` for an endpoint. Secrets are read with the first notice."""

    most = 1

    def __init__(self, target: Target) -> None:
        self.at_a_time = target.at_a_time
        self._target = target
        self._lock = threading.Lock()
        self._secrets = TargetSecrets()
        self._endpoint: Endpoint | None = None
        self._is_closed = False

    def send(self, notices: Sequence[Notice]) -> Sequence[Answer]:
        """Sends them one after the other."""
        return [self._send(notice) for notice in notices]

    def close(self) -> None:
        """Cuts all connections: who waits for an answer is told at once that there is none."""
        self._is_closed = True  # first: whoever makes the endpoint at this moment sees it
        if self._endpoint is not None:
            self._endpoint.close()

    def _send(self, notice: Notice) -> Answer:
        if not _EVENT_ID.fullmatch(notice.event_id):
            return Answer(state=NoticeState.FAILED, why="its id is none, expected ASCII")
        try:
            endpoint = self._connected()
            headers = signatures.headers(
                notice.body,
                notice.event_id,
                notice.attempt,
                int(time.time()),
                secret=self._secrets.secret,
                api_key=self._secrets.api_key,
                webhook_keys=self._secrets.webhook_keys,
            )
            return _answer_to(endpoint.post(headers, notice.body))
        except StoreBusyError as error:
            return Answer(state=NoticeState.PENDING, why=self._told(error))
        except (RefusedLinkError, ConfigError) as error:
            return Answer(state=NoticeState.PENDING, why=self._told(error), ends_target=True)

    def _told(self, error: Exception) -> str:
        return target_secrets.without_host(self._target, self._secrets.url, str(error))

    def _connected(self) -> Endpoint:
        """Returns where to post, with the secrets read. Raises: ConfigError, RefusedLinkError."""
        target = self._target
        with self._lock:
            if self._endpoint is None:
                self._secrets = target_secrets.read_secrets(target)
                self._endpoint = Endpoint(
                    self._secrets.url,
                    timeout_seconds=target.timeout_seconds,
                    at_a_time=target.at_a_time,
                )
            if self._is_closed:
                self._endpoint.close()
            return self._endpoint


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
    is_redirect = 300 <= status < 400
    if is_redirect:
        told += " sends elsewhere, which is not followed"
    waits = is_redirect or status in _NOT_OF_THE_BODY
    return Answer(
        state=NoticeState.PENDING if waits else NoticeState.FAILED,
        http_status=status,
        why=f"{told}, expected one from 200 to 299",
        waits_for_next_run=waits,
    )

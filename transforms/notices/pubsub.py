"""Sends notices to a topic of Pub/Sub, by Google's client.

A request holds the notices of one call session, in their order, under one ordering key: a
subscription with message ordering gets them in that order. Requests for different call sessions go
out at the same time. A message is the event as it is in the catalog; its attributes `event_id` and
`type` are for filters and for those who want each event once, as Pub/Sub may deliver it again.
"""

from __future__ import annotations

import functools
import hashlib
import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import google.auth
import grpc
from google.api_core import exceptions as google_errors
from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError, TransportError
from google.auth.transport.requests import Request
from google.pubsub_v1 import PublisherClient
from google.pubsub_v1.services.publisher.transports import PublisherGrpcTransport
from google.rpc.error_details_pb2 import RetryInfo

from transforms.media.values import CallKey
from transforms.notices.sender import Answer, Notice, NoticeState
from transforms.storage import errors, google_account
from transforms.targets import PUBSUB_EMULATOR, Target

_SCOPE = "https://www.googleapis.com/auth/pubsub"
_MOST_KEY_BYTES = 1024
"""Of an ordering key, by the quotas of Pub/Sub. They also allow 1,000 messages and 10 MB a request,
far more than `most` notices have.
"""
# HTTP has them as 409 and 499, and neither says that the next try fails as well.
_PASSING = google_errors.Aborted | google_errors.Cancelled


class PubSubSender:
    """Fulfils `Sender` for a topic. Credentials are looked for as late as the first notice."""

    most = 256
    at_a_time = 1
    """Of two calls at once the later might overtake the earlier; see `send`."""

    def __init__(self, target: Target) -> None:
        self._topic = target.place
        self._timeout_seconds = target.timeout_seconds
        self._requests_at_once = target.at_a_time
        self._lock = threading.Lock()
        self._client: PublisherClient | None = None
        self._end: Answer | None = None
        """What ended the sending, once something has."""

    def send(self, notices: Sequence[Notice]) -> Sequence[Answer]:
        """Sends some notices: those of one call session with one request, and as many requests at
        once as the target takes.
        """
        try:
            client = self._connected()
        except GoogleAuthError as error:
            return [_unauthorized(error)] * len(notices)
        of_calls: dict[CallKey, list[int]] = {}
        for place, notice in enumerate(notices):
            of_calls.setdefault(notice.call, []).append(place)
        answers: dict[int, Answer] = {}
        publish = functools.partial(self._publish, client)
        with ThreadPoolExecutor(min(self._requests_at_once, len(of_calls) or 1)) as pool:
            groups = [[notices[place] for place in places] for places in of_calls.values()]
            for places, found in zip(of_calls.values(), pool.map(publish, groups), strict=True):
                answers.update(zip(places, found, strict=True))
        return [answers[place] for place in range(len(notices))]

    def close(self) -> None:
        """Cuts the connection: what is under way fails, and may be tried again. It waits for nobody
        who still asks for credentials.
        """
        self._end = Answer(
            state=NoticeState.PENDING, why="the time for sending is over", ends_target=True
        )
        if (client := self._client) is not None:
            client.transport.close()

    def _connected(self) -> PublisherClient:
        """Returns the client. Raises: GoogleAuthError: there are no credentials for one."""
        with self._lock:
            if self._client is None:
                self._client = _make_client(self._timeout_seconds)
            return self._client

    def _publish(self, client: PublisherClient, notices: list[Notice]) -> list[Answer]:
        """Publishes the notices of a call session; returns what came of each."""
        answer = self._request(client, notices)
        if answer.state is not NoticeState.FAILED or len(notices) == 1:
            return [answer] * len(notices)
        # A request is refused for any one message, which is to cost no other.
        answers: list[Answer] = []
        awaited: Answer | None = None  # of one that the next ones are not to overtake
        for each in notices:
            answer = awaited or self._request(client, [each])
            if answer.state is NoticeState.PENDING:
                awaited = answer
            answers.append(answer)
        return answers

    def _request(self, client: PublisherClient, notices: list[Notice]) -> Answer:
        if (end := self._ended()) is not None:
            return end
        messages = [
            {
                "data": each.body,
                "ordering_key": _ordering_key(each.call),
                "attributes": {"event_id": each.event_id, "type": each.event_type},
            }
            for each in notices
        ]
        request = {"topic": self._topic, "messages": messages}
        try:
            client.publish(request, retry=None, timeout=self._timeout_seconds)
        except google_errors.GoogleAPICallError as error:
            answer = _answer_of(error)
            if answer.ends_target:
                self._end = answer
            return answer
        except ValueError:
            if (end := self._ended()) is None:
                raise
            return end  # the channel was closed a moment ago
        return Answer(state=NoticeState.DELIVERED, http_status=200)

    def _ended(self) -> Answer | None:
        return self._end


def _make_client(timeout_seconds: float) -> PublisherClient:
    """Returns a client. Raises: GoogleAuthError."""
    if emulator := os.environ.get(PUBSUB_EMULATOR):
        # A proxy for the rest of the world would not find what stands on this machine.
        channel = grpc.insecure_channel(emulator, options=[("grpc.enable_http_proxy", 0)])
        return PublisherClient(transport=PublisherGrpcTransport(channel=channel))
    if why := google_account.why_no_credentials():
        raise DefaultCredentialsError(why)
    credentials, _ = google.auth.default(scopes=[_SCOPE])
    # Within a request a refusal would look as if the service could not be reached.
    credentials.refresh(functools.partial(Request(), timeout=timeout_seconds))
    options = {"universe_domain": credentials.universe_domain}
    return PublisherClient(credentials=credentials, client_options=options)


def _ordering_key(call: CallKey) -> str:
    """Returns the same key for all notices of a call session; a digest where ids are too long."""
    key = f"{call.cid}:{call.call_session_id}"
    data = key.encode()
    return key if len(data) <= _MOST_KEY_BYTES else hashlib.sha256(data).hexdigest()


def _answer_of(error: google_errors.GoogleAPICallError) -> Answer:
    told: dict[str, Any] = {
        "http_status": None if error.code is None else int(error.code),
        "why": errors.describe_error(error),
    }
    if isinstance(error, google_errors.InvalidArgument):
        return Answer(state=NoticeState.FAILED, **told)
    if isinstance(error, _PASSING) or errors.is_passing(error):
        waits = [each.retry_delay for each in error.details if isinstance(each, RetryInfo)]
        after_seconds = max((each.ToTimedelta().total_seconds() for each in waits), default=0.0)
        return Answer(state=NoticeState.PENDING, after_seconds=after_seconds, **told)
    # No such topic, no permission, a key that is disabled: an operator may mend it.
    return Answer(state=NoticeState.PENDING, ends_target=True, **told)


def _unauthorized(error: GoogleAuthError) -> Answer:
    is_passing = error.retryable or isinstance(error, TransportError)
    why = f"Google credentials: {errors.describe_error(error)}"
    return Answer(state=NoticeState.PENDING, why=why, ends_target=not is_passing)

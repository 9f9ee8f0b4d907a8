"""A server of Pub/Sub on this machine, and what is published to it, as Google's client sees it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
from google.pubsub_v1 import PublisherClient, SubscriberClient
from google.pubsub_v1.services.publisher.transports import PublisherGrpcTransport
from google.pubsub_v1.services.subscriber.transports import SubscriberGrpcTransport

from tests.support.go_programs import PUBSUB, go_program
from tests.support.processes import HOST, free_port, running_server


@dataclass(frozen=True)
class PubSubServer:
    """A server, and clients of it."""

    address: str
    """`HOST:PORT`, as PUBSUB_EMULATOR_HOST has it."""
    publisher: Any
    subscriber: Any

    def make_topic(self, name: str) -> str:
        """Makes a topic, with a subscription to it; returns its full name. Args: name: some fail,
        see `pubsub/main.go`.
        """
        topic = f"projects/calls/topics/{name}"
        self.publisher.create_topic({"name": topic})
        self.subscriber.create_subscription({"name": _subscription(topic), "topic": topic})
        return topic

    def published(self, topic: str) -> list[Any]:
        """Returns the messages that a topic was sent and that were not asked for before, as they
        came.
        """
        subscription = _subscription(topic)
        with warnings.catch_warnings():  # of `return_immediately`: here it is what is meant
            warnings.simplefilter("ignore", DeprecationWarning)
            answer = self.subscriber.pull(
                {"subscription": subscription, "max_messages": 1000, "return_immediately": True}
            )
        received = answer.received_messages
        if received:
            ids = [each.ack_id for each in received]
            self.subscriber.acknowledge({"subscription": subscription, "ack_ids": ids})
        messages = [each.message for each in received]
        return sorted(messages, key=lambda each: int(each.message_id[1:]))


def _subscription(topic: str) -> str:
    return topic.replace("/topics/", "/subscriptions/")


@contextmanager
def running_pubsub() -> Iterator[PubSubServer]:
    """Runs a server until the end of the block; skips the test without Go."""
    program, port = go_program(PUBSUB), free_port()
    address = f"{HOST}:{port}"
    with (
        running_server([program, address], port),
        grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel,
    ):
        yield PubSubServer(
            address,
            PublisherClient(transport=PublisherGrpcTransport(channel=channel)),
            SubscriberClient(transport=SubscriberGrpcTransport(channel=channel)),
        )

"""Which sender a target has. Each is imported when it is needed: their libraries are large."""

from __future__ import annotations

from transforms.notices.sender import Sender
from transforms.targets import Target, TargetKind


def make_sender(target: Target, sender_id: str) -> Sender:
    """Returns what sends to a target; it connects with the first notice. Args: sender_id: what
    tells this sending from others, such as the run's id.
    """
    if target.kind is TargetKind.JSON_LINES:
        from transforms.notices.json_lines import JsonLinesSender

        return JsonLinesSender(target, sender_id)
    if target.kind is TargetKind.PUBSUB:
        from transforms.notices.pubsub import PubSubSender

        return PubSubSender(target)
    from transforms.notices.https_sender import HttpsSender

    return HttpsSender(target)

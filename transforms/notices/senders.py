"""Which sender a target has."""

from __future__ import annotations

from transforms.notices.sender import Sender
from transforms.targets import Target


def make_sender(target: Target, sender_id: str) -> Sender:
    """Returns what sends to a target. Args: sender_id: as `tell_pending` has it."""
    from transforms.notices.https_sender import HttpsSender

    return HttpsSender(target)

"""The headers by which receivers know a notice."""

from __future__ import annotations

import hashlib
import hmac

import pytest

from transforms.notices.signatures import headers, webhook_key

KEY = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
"""With what it signs here, the example of Standard Webhooks."""
EXAMPLE = (b'{"test": 2432232314}', "msg_p5jXN8AQM9LWM0D4loKWxJek", 1, 1_614_265_330)
SIGNED = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_example_of_standard_webhooks_is_signed_as_there() -> None:
    found = headers(*EXAMPLE, secret="", api_key="", webhook_keys=[webhook_key(KEY)])
    assert found["webhook-signature"] == SIGNED
    assert (found["webhook-id"], found["webhook-timestamp"]) == (EXAMPLE[1], "1614265330")


def test_each_key_signs_while_keys_are_changed() -> None:
    other = bytes(range(32))
    found = headers(*EXAMPLE, secret="", api_key="", webhook_keys=[other, webhook_key(KEY)])
    first, second = found["webhook-signature"].split(" ")
    assert (first != SIGNED, second) == (True, SIGNED)


def test_vendors_headers_stand_beside_them() -> None:
    found = headers(b"body", "e1", 3, 17, secret="tell nobody", api_key="who", webhook_keys=[])
    signature = hmac.new(b"tell nobody", b"body", hashlib.sha256).hexdigest()
    assert found == {
        "Content-Type": "application/json",
        "X-WEBHOOK-ID": "e1",
        "X-WEBHOOK-ATTEMPT": "3",
        "X-API-KEY": "who",
        "X-SIGNATURE": signature,
        "webhook-id": "e1",
        "webhook-timestamp": "17",
    }


def test_without_keys_nothing_is_signed() -> None:
    found = headers(b"body", "e1", 1, 17, secret="", api_key="", webhook_keys=[])
    assert set(found) == {
        "Content-Type", "X-WEBHOOK-ID", "X-WEBHOOK-ATTEMPT", "webhook-id", "webhook-timestamp",
    }  # fmt: skip


@pytest.mark.parametrize(
    "text",
    ["", "whsec_", KEY.removeprefix("whsec_"), "whsec_ab", f"{KEY}!", "whsec_" + "A" * 88,
     f"{KEY}é", "whsec_" + "A" * 28],
)  # fmt: skip
def test_key_of_another_shape_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(ValueError, match="expected whsec_ and base64 of 24 to 64 bytes") as refused:
        webhook_key(text)
    assert len(text) <= len("whsec_") or text not in str(refused.value)


@pytest.mark.parametrize(("size", "text"), [(24, "A" * 32), (64, "A" * 86 + "==")])
def test_shortest_and_longest_key(size: int, text: str) -> None:
    assert webhook_key(f"whsec_{text}") == bytes(size)

"""Receivers that others have written, and our example of one, take what is signed here, and nothing
else. The example also takes what the vendor signs, by the vendor's own rules.
"""

from __future__ import annotations

import gzip
import hashlib
import hmac
import io
import json
import stat
import sys
import time
from base64 import b64encode
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.support import vendor
from tests.support.beam import call_row, recording_row
from tests.support.certificates import Authority
from tests.support.tls_site import Site
from tests.support.webhook_receivers import (
    EXAMPLE,
    Delivery,
    deliver,
    running_example,
    verified,
)
from transforms.media.values import CallKey
from transforms.notices.events import Event, failed_event, ready_event
from transforms.notices.https_sender import HttpsSender
from transforms.notices.sender import Notice, NoticeState
from transforms.notices.signatures import headers, webhook_key
from transforms.sources.manifests.entry import BadEntry, LeftOut, ManifestEntry
from transforms.sources.manifests.read_entries import read_entries
from transforms.storage import storage_options
from transforms.storage.storage_options import StorageOptions
from transforms.targets import Target, TargetKind

SECRET = "planted-secret-0815-planted-secret-0815"
OLD_KEY, NEW_KEY = (f"whsec_{b64encode(bytes([byte]) * 32).decode()}" for byte in (7, 8))
OTHER_KEY = f"whsec_{b64encode(bytes(24)).decode()}"
IDS = ["standup", "Zoë", "ü" * 4096, "\u202e\x07\"'\\", "🎙"]


def events() -> list[Event]:
    """Returns events of calls with ids of all sorts."""
    found = []
    for call_id in IDS:
        call = CallKey(call_type="default", call_id=call_id, call_session_id=f"{call_id}!")
        uri = "gs://pressed/recordings/a/b/c/d.mkv"
        file = {"filename": "d.mkv", "sha256": "ab" * 32, "size_bytes": 1, "offset_ms": 0}
        for participant in (None, f"{call_id}\n"):
            row = recording_row(participant, uri, call, duration_ms=5, **file)
            found.append(ready_event(row, {"status": "partial"}, "cd" * 32, uri))
        found.append(failed_event(call_row(call, status="failed"), "composite", "RtpdumpError"))
    return found


def signed(event: Event, *, keys: tuple[str, ...]) -> Delivery:
    body = event.body.encode()
    return Delivery(
        body,
        headers(
            body,
            event.event_id,
            1,
            int(time.time()),
            secret=SECRET,
            api_key="planted-key",
            webhook_keys=[webhook_key(key) for key in keys],
        ),
    )


def vendors(event: dict[str, Any], *, is_gzipped: bool = False) -> Delivery:
    """Returns an event as the vendor sends and signs it."""
    body = json.dumps(event).encode()
    signature = hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
    return Delivery(gzip.compress(body) if is_gzipped else body, {"X-SIGNATURE": signature})


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("receiver") / "raw.jsonl"


@pytest.fixture(scope="module")
def example(file: Path) -> Iterator[int]:
    """The port of the example, which has the secret and the newer key."""
    with running_example(file, secret=SECRET, keys=[NEW_KEY]) as port:
        yield port


@pytest.fixture(autouse=True)
def _emptied(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "file" in request.fixturenames:
        request.getfixturevalue("file").unlink(missing_ok=True)


def listed(file: Path) -> list[ManifestEntry | LeftOut | BadEntry]:
    return list(read_entries(str(file), io.BytesIO(file.read_bytes())))


def sent(site: Site, authority: Authority) -> list[Delivery]:
    """Returns what an endpoint gets of the events."""
    given = {"SECRET": SECRET, "API": "planted-key", "OLD": OLD_KEY, "NEW": NEW_KEY}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(authority.certificate_file))
        patch.setenv("NO_PROXY", "*")
        patch.setattr(
            storage_options, "_options", StorageOptions(named_hosts=frozenset({site.host_and_port}))
        )
        for name, value in given.items():
            patch.setenv(f"RECEIVERS_{name}", value)
        target = Target(
            name="crm",
            kind=TargetKind.HTTPS,
            place=site.put("/hook", b""),
            secret="env:RECEIVERS_SECRET",
            api_key="env:RECEIVERS_API",
            webhook_keys=("env:RECEIVERS_OLD", "env:RECEIVERS_NEW"),
        )
        sender = HttpsSender(target)
        notices = [
            Notice(
                event_id=event.event_id,
                event_type=event.event_type,
                call=CallKey(call_type="default", call_id="standup", call_session_id="s"),
                attempt=2,
                body=event.body.encode(),
                shard="2026-11-20_part-0",
            )
            for event in events()
        ]
        site.requests.clear()
        answers = sender.send(notices)
        sender.close()
    assert {answer.state for answer in answers} == {NoticeState.DELIVERED}
    return [Delivery(request.body, _as_sent(request.headers)) for request in site.requests]


def _as_sent(headers: Mapping[str, str]) -> dict[str, str]:
    """Returns headers without those of the connection, spelled as the vendor's SDK reads them."""
    kept = {name: value for name, value in headers.items() if name.startswith(("webhook-", "x-"))}
    return {name.upper() if name.startswith("x-") else name: kept[name] for name in kept}


@pytest.fixture(scope="module")
def deliveries(_tls_site: Site, authority: Authority) -> dict[str, list[Delivery]]:
    genuine = sent(_tls_site, authority)
    first = genuine[0]
    return {
        "genuine": genuine,
        "changed": [Delivery(first.body.replace(b"standup", b"stamdup"), first.headers)],
        "by another key": [signed(events()[0], keys=(OTHER_KEY, OTHER_KEY))],
        "vendor's": [vendors(vendor.event("one")), vendors(vendor.event("one"), is_gzipped=True)],
    }


@pytest.fixture(scope="module")
def by_others(deliveries: dict[str, list[Delivery]]) -> dict[str, list[tuple[str, ...]]]:
    """What the vendor's SDK and that of Standard Webhooks make of each."""
    every = [each for kind in deliveries.values() for each in kind]
    told = iter(verified(every, SECRET, [OLD_KEY, NEW_KEY]))
    return {kind: [next(told) for _ in found] for kind, found in deliveries.items()}


def test_all_three_accept_every_event(
    deliveries: dict[str, list[Delivery]],
    by_others: dict[str, list[tuple[str, ...]]],
    example: int,
    file: Path,
    tmp_path: Path,
) -> None:
    kinds = ["CallRecordingReadyEvent", "CallRecordingReadyEvent", "CallRecordingFailedEvent"]
    genuine = deliveries["genuine"]

    assert by_others["genuine"] == [(kind, "verified", "verified") for kind in kinds * len(IDS)]
    assert {deliver(example, each) for each in genuine} == {200}
    # By each signature alone as well.
    with running_example(tmp_path / "raw.jsonl", keys=[OLD_KEY]) as port:
        assert {deliver(port, each) for each in genuine} == {200}
    with running_example(tmp_path / "raw.jsonl", secret=SECRET) as port:
        assert {deliver(port, each) for each in genuine} == {200}
    assert not file.exists()  # none of them is raw


def test_none_accepts_what_was_changed_on_the_way(
    deliveries: dict[str, list[Delivery]],
    by_others: dict[str, list[tuple[str, ...]]],
    example: int,
    tmp_path: Path,
) -> None:
    (changed,), (of_other,) = deliveries["changed"], deliveries["by another key"]
    none = "No matching signature found"

    assert by_others["changed"] == [("signature mismatch", none, none)]
    assert by_others["by another key"] == [("CallRecordingReadyEvent", none, none)]
    assert deliver(example, changed) == 401
    assert deliver(example, Delivery(b"", changed.headers)) == 401
    assert deliver(example, of_other) == 200  # for its other signature
    with running_example(tmp_path / "raw.jsonl", keys=[NEW_KEY]) as port:
        assert deliver(port, of_other) == 401


def test_example_accepts_nothing_by_keys_that_are_empty(tmp_path: Path) -> None:
    forged = headers(b"{}", "e1", 1, int(time.time()), secret="", api_key="", webhook_keys=[b""])
    vendors_forged = hmac.new(b"", b"{}", hashlib.sha256).hexdigest()

    with running_example(tmp_path / "raw.jsonl", keys=["whsec_", "whsec_????"]) as port:
        assert deliver(port, Delivery(b"{}", {**forged, "X-SIGNATURE": vendors_forged})) == 401


@pytest.mark.parametrize("seconds", [-310, 310])
def test_example_refuses_what_was_signed_at_another_time(example: int, seconds: int) -> None:
    body = events()[0].body.encode()
    found = headers(
        body, "e1", 1, int(time.time()) + seconds,
        secret="", api_key="", webhook_keys=[webhook_key(NEW_KEY)],
    )  # fmt: skip
    assert deliver(example, Delivery(body, found)) == 401
    for damaged in ("", "1e9", "²", "9" * 400, "nan", "-1"):
        assert deliver(example, Delivery(body, {**found, "webhook-timestamp": damaged})) == 401


@pytest.mark.parametrize("is_gzipped", [False, True])
def test_vendors_events_become_a_manifest(
    by_others: dict[str, list[tuple[str, ...]]], example: int, file: Path, is_gzipped: bool
) -> None:
    told = [vendor.event("one"), vendor.event("zoë"), vendor.event("mix", "composite")]
    told += [vendor.other_event(), vendor.event("one")]  # the last one again
    sent = [vendors(each, is_gzipped=is_gzipped) for each in told]

    assert by_others["vendor's"][is_gzipped][0] == "CallRecordingReadyEvent"
    assert [deliver(example, each) for each in sent] == [200] * 5
    assert [each.uri for each in listed(file) if isinstance(each, ManifestEntry)] == [
        vendor.uri_of("one"), vendor.uri_of("zoë"), vendor.uri_of("one"),
    ]  # fmt: skip
    assert len(listed(file)) == 3
    assert stat.S_IMODE(file.stat().st_mode) == 0o600  # as the links are signed


def test_disk_that_was_full_costs_no_other_entry(example: int, file: Path) -> None:
    file.write_bytes(json.dumps(vendor.event("one")).encode()[:200])

    assert deliver(example, vendors(vendor.event("two"))) == 200

    broken, entry = listed(file)
    assert isinstance(broken, BadEntry)
    assert isinstance(entry, ManifestEntry)
    assert entry.uri == vendor.uri_of("two")


def test_example_answers_what_it_cannot_use(example: int, file: Path) -> None:
    bodies = [b"no JSON", b"[1]", b"null", b'{"no": "type"}', b'{"type": "call.recording_ready"}']
    for body in bodies:
        signature = hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
        assert deliver(example, Delivery(body, {"X-SIGNATURE": signature})) == 400
    for body in (b"\x1f\x8bno gzip", gzip.compress(b"[]")[:-3]):
        assert deliver(example, Delivery(body, {"X-SIGNATURE": "ab"})) in (400, 401)
    assert not file.exists()


def test_example_reads_no_more_than_it_allows(example: int) -> None:
    long = vendors(vendor.event("one", padding="x" * (1 << 20)), is_gzipped=True)
    assert deliver(example, long) == 401  # for want of its end
    for length in ("1048577", "9" * 400, "-1", "²", "1e3"):
        assert deliver(example, Delivery(b"", {"Content-Length": length})) == 413


def test_example_has_sixty_lines_and_needs_python_alone() -> None:
    text = EXAMPLE.read_text("utf-8")
    assert len(text.splitlines()) <= 60
    names = {line.split()[1].split(".")[0] for line in text.splitlines()
             if line.startswith(("import ", "from "))}  # fmt: skip
    assert names <= set(sys.stdlib_module_names)

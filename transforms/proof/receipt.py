"""A receipt: what was proven of a catalog, by whom it is signed, and the form both are kept in.

JSON in the form of RFC 8785, whose one spelling for one content is what is hashed and signed: texts
and integers only, so that no two programs write a number differently. `sha256` is of the receipt
without `sha256` and `signature`; the signature is of all of it but `signature`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import BaseModel, ConfigDict, Field

from transforms.media.errors import CallpressError
from transforms.proof import signing
from transforms.storage import objects

FORMAT = "callpress receipt"
VERSION = 1
"""Of keys and of the words of the sentence alike: a receipt that was made is checked by later
versions too, so either of them changes with another number.
"""
MOST_WHOLE = (1 << 53) - 1
"""The largest integer that every reader of JSON has exactly (RFC 8785 s3.2.2.3, RFC 7493 s2.2)."""

Whole = Annotated[int, Field(ge=0, le=MOST_WHOLE)]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Date = Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}$")]
Moment = Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{6}Z$")]


class ReceiptError(CallpressError):
    """No receipt can be made of what was found."""


class Part(BaseModel):
    """A part of a receipt: types as they are, nothing else in it."""

    model_config = ConfigDict(
        strict=True, extra="forbid", frozen=True, use_attribute_docstrings=True
    )


class NamedEntry(Part):
    """A recording of the listing that is not pressed whole."""

    uri: str
    """Without the signature of a link."""
    call_cid: str
    """`type:id`; empty where the listing does not say."""
    call_session_id: str
    """Empty where the listing does not say."""
    state: Literal["partial", "failed", "waiting", "absent"]
    """What became of it; docs/reconcile.md defines the words."""
    why: str
    """Why it is not pressed, in words."""
    is_missing: bool
    """Whether somebody has to act: it counts in `missing`."""


class ReceivedListing(Part):
    """What the vendor lists, and what became of it."""

    sha256: Sha256
    """Of the sorted lines of location and call session of all entries; not of signatures."""
    listed: Whole
    """Recordings, each once."""
    pressed: Whole
    """All of it is in the catalog, or nothing was sent."""
    partial: Whole
    """Something usable was made and something is missing."""
    failed: Whole
    """Nothing was made, for a cause that does not pass by itself, or as often as it is tried."""
    waiting: Whole
    """Left to the next run; or a store, a link or a codec process failed, and it tries again."""
    absent: Whole
    """The catalog has nothing of it."""
    missing: Whole
    """Of these, those of which somebody has to see to it that they are pressed."""
    not_readable: Whole
    """Entries, and manifests as a whole, that cannot be read."""
    named: list[NamedEntry]
    """Those that are not `pressed`, 2,000 at most."""


class ArchiveOfReceipt(Part):
    """An archive of which the catalog has not everything."""

    archive_uri: str
    """As `archives.archive_uri`, less what a terminal would obey; 400 characters at most."""
    status: str
    """`partial`, `failed` or `waiting`."""
    error_type: str
    """Of its first failure; empty where there is none."""
    error_message: str
    """Of its first failure; 400 characters at most."""


class Archives(Part):
    """The archives of the catalog, by status."""

    ok: Whole
    """Pressed whole."""
    empty: Whole
    """Nothing was sent."""
    partial: Whole
    """Something usable was made and something is missing."""
    failed: Whole
    """Nothing was made."""
    waiting: Whole
    """A run with a bound left it to the next one."""
    named: list[ArchiveOfReceipt]
    """Those that are neither `ok` nor `empty`, 2,000 at most."""


class Day(Part):
    """The files of the calls that began on one date (UTC)."""

    call_date: Date
    """The date."""
    files: Whole
    """How many files, by their rows."""
    size_bytes: Whole
    """Of all of them."""
    sha256: Sha256
    """Of the lines `<sha256>  <uri>` of its files, as `sha256sum` writes them, sorted by bytes."""
    newest_row_at: Moment
    """When the newest row of these files was made (`created_at`)."""


class Files(Part):
    """All media files that the catalog names."""

    count: Whole
    """How many, by the rows of `recordings`."""
    size_bytes: Whole
    """Of all of them."""
    sha256: Sha256
    """Of the lines `<call_date> <sha256>` of all dates, in their order."""
    hashed: bool
    """Whether each was read and compared by its SHA-256; else by its size alone."""
    dates: list[Day]
    """In their order; of dates that have files."""


class Packets(Part):
    """The records of all dumps, and what became of them."""

    records: Whole
    """Of all dumps."""
    fates: dict[Annotated[str, Field(pattern="^[a-z_]{1,40}$")], Whole]
    """By fate, as the columns `records_*` of `dumps` have them; `other` of a later version."""
    in_no_file: Whole
    """Of these, those that may be audio and are in no file, each for a reason that is told."""
    unaccounted: Whole
    """Records that no fate has."""


class Seconds(Part):
    """Sums over the segments of all archives, in ms."""

    claimed_ms: Whole
    """By the metadata."""
    found_ms: Whole
    """In the dumps."""
    missing_ms: Whole
    """Claimed or received, in no file, and told."""
    unaccounted_ms: Whole
    """Claimed, and neither found nor told as missing."""
    segments_without_claim: Whole
    """Of which the metadata does not say when they were."""


class Places(Part):
    """Bounds on the error of all times: `sync_error_ms` of `segments`, in microseconds."""

    segments: Whole
    """Rows of `segments`."""
    largest_error_us: Whole
    """No second is placed further off than this."""
    typical_error_us: Whole
    """Half of the time of all segments is placed within it; rounded up to 0.1 ms."""


class Fault(Part):
    """One thing that does not agree."""

    uri: str
    """The file or object that it is about."""
    what: str
    """What was found, and what was expected."""


class Faults(Part):
    """What does not agree in tables and files."""

    count: Whole
    """How many things."""
    named: list[Fault]
    """2,000 at most."""


class Signature(Part):
    """By whom the receipt is signed."""

    algorithm: Literal["ed25519"]
    """RFC 8032."""
    public_key: str
    """Its 32 bytes, in base64."""
    value: str
    """The 64 bytes of the signature, in base64."""


class Receipt(Part):
    """What `callpress prove` found of a catalog."""

    format: Literal["callpress receipt"]
    """By which a receipt is known."""
    version: Literal[1]
    """Of the form of the receipt."""
    callpress_version: str
    """Version that made it."""
    made_at: Moment
    """When it was begun to be made, in UTC."""
    catalog: str
    """Where the catalog lies."""
    sentence: str
    """All of it in a sentence, which follows from the rest."""
    proven: bool
    """Whether listing, tables, files and sums agree, and nothing is not known."""
    run_at_work: str | None
    """A run that was at work over the catalog meanwhile, which makes that nothing is proven."""
    listing: ReceivedListing | None
    """Null where no listing was given."""
    rows: dict[Annotated[str, Field(pattern="^[a-z_]{1,40}$")], Whole]
    """By table."""
    archives: Archives
    """The archives of the catalog, by status."""
    files: Files
    """All media files that the catalog names."""
    packets: Packets
    """The records of all dumps, and what became of them."""
    seconds: Seconds
    """What is claimed, found and missing, in ms."""
    places: Places
    """How exactly everything is placed in time."""
    faults: Faults
    """What does not agree in tables and files."""
    not_known: dict[Annotated[str, Field(pattern="^[a-z_]{1,40}$")], Whole]
    """How many rows do not say what is asked of them, by what that is, as in earlier versions."""
    sha256: Sha256
    """Of the receipt without this and `signature`."""
    signature: Signature | None
    """Over the receipt without this; null where no key was given."""

    @property
    def whole(self) -> int:
        """How many recordings, or archives where there is no listing, are whole."""
        return self.listing.pressed if self.listing else self.archives.ok + self.archives.empty

    @property
    def told_by_name(self) -> int:
        """How many are not whole."""
        if listing := self.listing:
            return listing.partial + listing.failed + listing.waiting + listing.absent
        return self.archives.partial + self.archives.failed + self.archives.waiting


def write(uri: str, content: Mapping[str, Any]) -> None:
    """Writes a receipt, a line; it is not visible before it is whole. Raises: StorageError."""
    objects.write_bytes(uri, canonical(content) + b"\n")


def canonical(content: Mapping[str, Any]) -> bytes:
    """Returns the one spelling of a receipt (RFC 8785): it has texts, integers, booleans and null,
    and ASCII keys, so that Python's order of keys is that of UTF-16.
    """
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def body_of(content: Mapping[str, Any], *left_out: str) -> bytes:
    """Returns the spelling of a receipt without some of its keys."""
    return canonical({name: value for name, value in content.items() if name not in left_out})


def sha256_of(content: Mapping[str, Any]) -> str:
    """Returns the digest that a receipt is to state of itself."""
    return hashlib.sha256(body_of(content, "sha256", "signature")).hexdigest()


def sign(content: Mapping[str, Any], key: Ed25519PrivateKey) -> dict[str, Any]:
    """Returns a receipt with its signature."""
    message = body_of(content, "signature")
    signature = Signature(
        algorithm="ed25519",
        public_key=base64.b64encode(signing.public_bytes(key.public_key())).decode("ascii"),
        value=base64.b64encode(key.sign(message)).decode("ascii"),
    )
    return {**content, "signature": signature.model_dump()}


def signer_of(content: Mapping[str, Any], signature: Signature) -> bytes | None:
    """Returns the bytes of the public key by which a receipt is signed; None when the signature is
    not right.
    """
    try:
        key = base64.b64decode(signature.public_key, validate=True)
        value = base64.b64decode(signature.value, validate=True)
    except (binascii.Error, ValueError):
        return None
    return key if signing.is_signed_by(key, value, body_of(content, "signature")) else None

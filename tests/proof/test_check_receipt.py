"""Receipts that are as they were made, and those that are not: edited by hand, signed by others, of
a later version, no receipts at all. None costs more than a few lines.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.support import schemas
from tests.support.command import ROOT, callpress
from transforms.proof import read_receipt, signing
from transforms.proof.accounts import Accounts, FilesOfDate, NamedArchive
from transforms.proof.compare import changes
from transforms.proof.make_receipt import Circumstances, Faults, make_receipt
from transforms.proof.receipt import Receipt, canonical, sha256_of, sign
from transforms.proof.verdict import sentence_of

Content = dict[str, Any]
KEY = Ed25519PrivateKey.from_private_bytes(b"\1" * 32)
OTHER_KEY = Ed25519PrivateKey.from_private_bytes(b"\2" * 32)


def _made(**circumstances: Any) -> Content:
    """Returns a receipt of a catalog that has three archives, one of which failed."""
    accounts = Accounts()
    accounts.rows.update(archives=3, recordings=4, segments=2, runs=1)
    accounts.archives.update(ok=2, failed=1)
    accounts.named.append(
        NamedArchive(
            archive_uri="/raw/ü\U0001f600.tar", status="failed", error_type="E", error_message="m"
        )
    )
    accounts.files += [
        FilesOfDate(call_date=date, count=2, size_bytes=9, sha256=digit * 64, newest_unix_us=1)
        for date, digit in (("2026-11-21", "1"), ("2026-11-22", "2"))
    ]
    accounts.records = 100
    accounts.fates.update(placed=97, control=2, invalid=1)
    accounts.segments, accounts.largest_error_us = 2, 4_712
    given = {
        "catalog": "/pressed/catalog",
        "callpress_version": "0.1.0",
        "made_unix_ns": 1_795_348_800_123_456_789,
        "hashed": True,
        "run_at_work": None,
    }
    return make_receipt(Circumstances(**{**given, **circumstances}), accounts, Faults(), None)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "receipt.json"


def _private(key: Any) -> bytes:
    return bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )


def _public(key: Any) -> bytes:
    return bytes(
        key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )


def _pem(folder: Path, name: str, data: bytes) -> Path:
    (folder / name).write_bytes(data)
    return folder / name


SENTENCE = (
    "the catalog has 3 archives; 2 whole, 1 named; 0 packets and 0.0 s unaccounted; 1 packet and "
    "0.0 s in no file, and told; every file by SHA-256; every second placed within +/- 4.8 ms"
)


def test_receipt_without_signature_is_as_it_was_made(file: Path) -> None:
    file.write_bytes(canonical(_made()))
    done = callpress("prove", "--check", file)
    assert done.status == 0
    assert f"callpress: {SENTENCE}\n" in done.out
    assert "as it was made on 2026-11-22T12:00:00.123456Z; not signed: anybody may" in done.out


@pytest.mark.parametrize(("name", "status"), [("receipt", 0), ("receipt-not-proven", 1)])
def test_published_example_is_as_it_was_made(name: str, status: int) -> None:
    """One that was made stays right: its sentence is that of its version."""
    done = callpress("prove", "--check", schemas.FOLDER / "examples" / f"{name}.json")
    assert done.status == status
    assert "as it was made on 2026-11-29" in done.out


def test_checking_does_without_the_slow_libraries() -> None:
    example = schemas.FOLDER / "examples" / "receipt.json"
    code = (
        "import sys\n"
        "for name in ('apache_beam', 'google.cloud', 'boto3', 'av'):\n"
        "    sys.modules[name] = None\n"
        "from pipelines.cli import main\n"
        f"sys.exit(main(['prove', '--check', {str(example)!r}]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_layout_of_the_json_does_not_matter(file: Path) -> None:
    content = sign(_made(), KEY)
    file.write_text(json.dumps(dict(reversed(content.items())), indent=4))
    assert callpress("prove", "--check", file).status == 0


def test_signature_is_told_with_its_key_and_counts_where_that_was_given(file: Path) -> None:
    file.write_bytes(canonical(sign(_made(), KEY)))
    fingerprint = signing.fingerprint(KEY.public_key().public_bytes_raw())

    done = callpress("prove", "--check", file)
    assert done.status == 0
    assert f"signed by a key that nobody vouched for, {fingerprint} (SHA-256)" in done.out

    mine = _pem(file.parent, "mine.pem", _public(KEY))
    for name in (mine, f"file:{mine}"):
        done = callpress("prove", "--check", file, "--public-key", name)
        assert done.status == 0
        assert f"signed by the key that was given, {fingerprint}" in done.out
    der = subprocess.run(
        ["openssl", "pkey", "-pubin", "-in", mine, "-outform", "DER"],
        capture_output=True,
        check=True,
    ).stdout
    digest = subprocess.run(["sha256sum"], input=der, capture_output=True, check=True).stdout
    assert digest.decode().split()[0] == fingerprint

    other = _pem(file.parent, "other.pem", _public(OTHER_KEY))
    done = callpress("prove", "--check", file, "--public-key", other, "--json")
    told = json.loads(done.out)
    assert (done.status, told["signed_by"], told["is_vouched_for"]) == (1, fingerprint, False)
    assert told["faults"][0].startswith(f"it is signed by another key, {fingerprint}, than that")

    file.write_bytes(canonical(_made()))
    done = callpress("prove", "--check", file, "--public-key", mine)
    assert done.status == 1
    assert "it is not signed, and --public-key says who is to have" in done.out


def _set(*path: Any, to: Any) -> Callable[[Content], None]:
    def edit(content: Content) -> None:
        for name in path[:-1]:
            content = content[name]
        content[path[-1]] = to

    return edit


def _sealed(*edits: Callable[[Content], None]) -> Callable[[Content], None]:
    """An edit by somebody who knows how the digest is made."""

    def edit(content: Content) -> None:
        for each in edits:
            each(content)
        content["sha256"] = sha256_of(content)

    return edit


EDITS: dict[str, tuple[Callable[[Content], None], str]] = {
    "a figure": (_set("packets", "records", to=99), "its content has the SHA-256 "),
    "the date of a file": (_set("files", "dates", 0, "call_date", to="2026-11-20"), "its content"),
    "the sentence": (_sealed(_set("sentence", to="all is well")), "its sentence is not what its"),
    "a failure less": (
        _sealed(_set("archives", "failed", to=0)),
        "rows.archives: it says 3, its parts give 2",
    ),
    "a name less": (
        _sealed(_set("archives", "named", to=[])),
        "archives.named: it says 0, its parts give 1",
    ),
    "a file more": (_sealed(_set("files", "count", to=5)), "files.count: it says 5, its parts"),
    "a digest": (
        _sealed(_set("files", "dates", 1, "sha256", to="3" * 64)),
        "files.sha256: it says ",
    ),
    "a fate": (
        _sealed(_set("packets", "fates", "invalid", to=0)),
        "packets.records: it says 100, its parts give 99",
    ),
    "records that no fate has": (
        _sealed(_set("packets", "unaccounted", to=1)),
        "it says proven: true, which its figures deny",
    ),
    "what is not known": (
        _sealed(_set("not_known", "tracks", to=1)),
        "it says proven: true, which its figures deny",
    ),
    "its type": (_set("packets", "records", to="100"), "packets.records: Input should be a"),
    "true for a number": (_set("rows", "runs", to=True), "rows.runs: Input should be a valid int"),
    "less than nothing": (_set("rows", "runs", to=-1), "rows.runs: Input should be greater than"),
    "a key more": (_set("verdict", to="\x1b[2J"), "verdict: Extra inputs are not permitted"),
    "a key less": (lambda content: content.pop("sentence"), "sentence: Field required"),
    "an odd key": (_set("rows", "\x1b[2J", to=1), "rows.\\x1b[2J.[key]: String should match"),
    "half a character": (_set("catalog", to="\ud800"), "a text that is no Unicode, which no"),
    "a fraction": (_set("packets", "records", to=100.0), "the number 100.0 is no integer"),
    "no number": (_set("packets", "records", to=float("nan")), "the number NaN is no integer"),
    "a long number": (_set("packets", "records", to=10**4_000), "a number has 4001 digits"),
    "a large number": (_set("packets", "records", to=1 << 53), "packets.records: Input should be"),
    "a version that never was": (_set("version", to=0), "version: Input should be 1"),
}  # fmt: skip


@pytest.mark.parametrize(("edit", "said"), EDITS.values(), ids=EDITS)
def test_receipt_that_was_edited_is_told(
    file: Path, edit: Callable[[Content], None], said: str
) -> None:
    content = _made()
    edit(content)
    file.write_text(json.dumps(content))
    done = callpress("prove", "--check", file)
    assert (done.status, done.err) == (1, "")
    assert f"{file}: {said}" in done.out
    assert "callpress: the receipt is not as it was made" in done.out
    assert "\x1b" not in done.out


def test_signature_does_not_outlive_an_edit_that_agrees_with_itself(file: Path) -> None:
    content = sign(_made(), KEY)
    content["made_at"] = "2026-11-23T12:00:00.000000Z"
    content["sha256"] = sha256_of(content)
    file.write_bytes(canonical(content))
    done = callpress("prove", "--check", file)
    assert done.status == 1
    assert "its signature is not right: it was made of something else" in done.out


@pytest.mark.parametrize("odd", ["", "AA==", "no base64", "\u00e9", "A" * 43 + "="])
def test_signature_of_any_shape_is_not_right(file: Path, odd: str) -> None:
    for name in ("public_key", "value"):
        content = sign(_made(), KEY)
        content["signature"][name] = odd
        file.write_bytes(canonical(content))
        done = callpress("prove", "--check", file)
        assert done.status == 1
        assert "its signature is not right" in done.out


def test_key_twice_is_told_and_the_last_does_not_count(file: Path) -> None:
    text = canonical(_made()).decode()
    file.write_text(text.replace('"version":1', '"proven":false,"version":1'))
    done = callpress("prove", "--check", file)
    assert done.status == 1
    assert "a key is there twice, which no receipt has" in done.out


def test_receipt_that_says_not_proven_is_valid_and_no_success(file: Path) -> None:
    content = _made(run_at_work="run night on elsewhere")
    assert content["sentence"].startswith("not proven (a run was at work): the catalog has")
    file.write_bytes(canonical(content))
    done = callpress("prove", "--check", file)
    assert done.status == 1
    assert "as it was made on 2026-11-22" in done.out


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "is no JSON, expected a receipt"),
        (b"{", "is no JSON, expected a receipt"),
        (b"\xff\xfe{}", "is no JSON, expected a receipt"),
        (b"[" * 1_000_000, "is no JSON, expected a receipt"),
        (b'{"a":' * 1_000_000, "is no JSON, expected a receipt"),
        (b"[]", "is JSON of something else, expected a receipt"),
        (b'{"format": "callpress results"}', "is JSON of something else, expected a receipt"),
        (b'{"format": "callpress receipt", "version": 2}', "is a receipt of version 2, this callp"),
        (b'{"format": "callpress receipt", "version": 1}', None),
    ],
)  # fmt: skip
def test_what_is_no_receipt_is_wrong_usage(file: Path, data: bytes, said: str | None) -> None:
    file.write_bytes(data)
    done = callpress("prove", "--check", file)
    assert done.status == (1 if said is None else 2)
    assert (said or "") in done.err
    assert (done.out + done.err).count("\n") <= 12


def test_receipt_that_is_too_long_or_not_there_is_wrong_usage(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read_receipt, "MOST_BYTES", 100)
    file.write_bytes(canonical(_made()))
    for name, said in (
        (file, "has more than 100 bytes, expected a receipt"),
        (file.parent, "Is a directory, expected a receipt"),
        (file.parent / "nowhere", "No such file or directory, expected a receipt"),
    ):
        done = callpress("prove", "--check", name)
        assert (done.status, done.out) == (2, "")
        assert said in done.err


# --- keys -----------------------------------------------------------------------------------------


def _encrypted() -> bytes:
    return KEY.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )


RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=1024)
EC_KEY = ec.generate_private_key(ec.SECP256R1())
WRONG_KEYS: dict[str, tuple[bytes, str, str]] = {
    "RSA": (_private(RSA_KEY), "is a key of RSA, expected an ed25519 key", "is a private key"),
    "EC": (_private(EC_KEY), "is a key of EC, expected an ed25519 key", "is a private key"),
    "RSA, public": (_public(RSA_KEY), "is a public key", "is a key of RSA, expected one of"),
    "public": (_public(KEY), "is a public key, expected the private one", ""),
    "private": (_private(KEY), "", "is a private key, which nobody else needs"),
    "encrypted": (_encrypted(), "the key has a password", "is a private key"),
    "empty": (b"\n", "is empty, expected a key", "is empty, expected a key"),
    "garbage": (b"\0\xff" * 99, "is no key that can be read", "is no key that can be read"),
    "cut": (_private(KEY)[:60], "is no key that can be read", "is a private key"),
    "too long": (b"x" * 99_999, "has more than 65536 bytes", "has more than 65536 bytes"),
}  # fmt: skip


@pytest.mark.parametrize(("pem", "as_private", "as_public"), WRONG_KEYS.values(), ids=WRONG_KEYS)
def test_wrong_key_is_told_before_any_work_and_nothing_of_it(
    file: Path, pem: bytes, as_private: str, as_public: str
) -> None:
    file.write_bytes(canonical(sign(_made(), KEY)))
    name = f"file:{_pem(file.parent, 'key.pem', pem)}"
    no_catalog = file.parent / "no catalog"
    for arguments, said in (
        (("--catalog", no_catalog, "--sign-key", name), as_private),
        (("--check", file, "--public-key", name), as_public),
    ):
        done = callpress("prove", *arguments)
        if said:
            assert (done.status, done.out) == (2, "")
            assert said in done.err
            assert name.removeprefix("file:") in done.err
        body = pem.decode("latin-1").strip().splitlines()[1:2]
        assert not body or body[0] not in done.err + done.out


def test_key_of_the_environment(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUDIT_KEY", _public(KEY).decode())
    file.write_bytes(canonical(sign(_made(), KEY)))
    assert callpress("prove", "--check", file, "--public-key", "env:AUDIT_KEY").status == 0
    monkeypatch.delenv("AUDIT_KEY")
    done = callpress("prove", "--check", file, "--public-key", "env:AUDIT_KEY")
    assert done.status == 2
    assert done.err.startswith("callpress: --public-key env:AUDIT_KEY: the environment of this ")
    done = callpress("prove", "--catalog", file.parent, "--sign-key", "-----BEGIN PRIVATE KEY-----")
    assert (done.status, "BEGIN" in done.err) == (2, False)
    done = callpress("prove", "--check", file, "--public-key", file.parent / "nowhere")
    assert done.status == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "--catalog is required"),
        (("--catalog", ""), "--catalog '' names nothing"),
        (("--catalog", "c", "--output", ""), "--output '' names nothing"),
        (("--check", ""), "--check '' names nothing"),
        (("--check", "r", "--output", "o"), "--output is for making a receipt"),
        (("--check", "r", "--manifest", "m"), "--manifest is for making a receipt"),
        (("--check", "r", "--sign-key", "env:K"), "--sign-key is for making a receipt"),
        (("--check", "r", "--fast"), "--fast is about the files of --catalog"),
        (("--catalog", "c", "--public-key", "k"), "--public-key is for checking a receipt"),
        (("--catalog", "c", "--outputs", "k"), "prove does not know --outputs"),
    ],
)
def test_wrong_usage(arguments: tuple[str, ...], said: str) -> None:
    done = callpress("prove", *arguments)
    assert (done.status, done.out) == (2, "")
    assert said in done.err


def test_sentence_says_what_is_not_proven() -> None:
    faults = Faults()
    faults.add("/a", "is gone")
    accounts = Accounts(unaccounted_records=3, unaccounted_ms=1_234, missing_ms=1)
    accounts.records = 3
    accounts.not_known.update(places=2, tracks=5)
    accounts.segments = 2
    content = make_receipt(
        Circumstances(
            catalog="/c", callpress_version="0", made_unix_ns=0, hashed=False, run_at_work=None
        ),
        accounts,
        faults,
        None,
    )
    assert content["sentence"] == (
        "not proven (not all agrees, not all is known): the catalog has 0 archives; 0 whole, 0 "
        "named; 3 packets and 1.3 s unaccounted but for 5 rows where it is not known; 0 packets "
        "and 0.1 s in no file, and told; 1 fault in files and tables; every second but those of 2 "
        "segments placed within +/- 0.0 ms"
    )
    assert content["sentence"] == sentence_of(Receipt.model_validate(content))


@pytest.mark.parametrize(
    ("then", "now", "changed"),
    [
        ({"runs": 1}, {"runs": 2, "notices": 7}, []),  # by a version that told nobody
        ({"runs": 2, "notices": 7}, {"runs": 2, "notices": 9}, []),
        ({"runs": 2, "notices": 7}, {"runs": 1}, ["rows.notices", "rows.runs"]),
        ({"runs": 1, "calls": 1}, {"runs": 1, "calls": 2}, ["rows.calls"]),
    ],
)
def test_rows_that_runs_add_are_no_change(
    then: dict[str, int], now: dict[str, int], changed: list[str]
) -> None:
    receipt = Receipt.model_validate({**_made(), "rows": then})
    content = {**_made(), "rows": now}
    accounts = Accounts(files=[], named=[])
    found = [each.where for each in changes(receipt, content, accounts)]
    assert [where for where in found if where.startswith("rows.")] == changed

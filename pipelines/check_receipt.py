"""`callpress prove --check`: whether a receipt is as it was made, who signed it, and what has
changed in the catalog since.

callpress prove --check receipt.json --public-key public.pem
callpress prove --check receipt.json --catalog ./pressed/catalog
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

from pipelines.catalog_commands import CheckArguments
from pipelines.options import EXIT_FAILED
from pipelines.prove import Lock, look_at
from transforms.media.errors import CallpressError, ConfigError, StorageError
from transforms.media.text import printable, printable_json, utf8_text
from transforms.proof import signing
from transforms.proof.compare import Change, accounts_for, changes
from transforms.proof.make_receipt import Circumstances, make_receipt
from transforms.proof.read_receipt import read_receipt
from transforms.proof.receipt import Receipt, signer_of
from transforms.proof.verdict import disagreements
from transforms.storage import objects, secrets, uris

_MOST_KEY_BYTES = 1 << 16


@dataclass(slots=True, kw_only=True)
class _Checked:
    """What was found out about a receipt."""

    receipt: Receipt | None
    """None where it is not even of the form of one."""
    faults: list[str]
    """What makes it invalid."""
    signed_by: str | None = None
    """The fingerprint of the key whose signature is right."""
    is_vouched_for: bool = False
    """Whether that is the key that was given."""
    changes: list[Change] | None = None
    """Since it was made; None where it was not compared with a catalog."""
    run_at_work: str | None = None
    """What was writing to the catalog meanwhile."""

    @property
    def exit_status(self) -> int:
        """0 when it is as it was made, says that all is proven, and nothing has changed."""
        is_good = self.receipt is not None and self.receipt.proven and not self.faults
        return 0 if is_good and not (self.changes or self.run_at_work) else EXIT_FAILED


def check_receipt(arguments: CheckArguments) -> int:
    """Checks a receipt; returns the exit status.

    Where no key was given, it says nothing about who made the receipt: anybody can sign one, with
    a key of his own. A signature is told then with the fingerprint of its key; whoever wants it to
    count gives the key that he knows.

    Raises:
      NotAReceiptError: it is none.
      ConfigError: the key is none.
      NoCatalogError: there is no such catalog.
      CallpressError: a store does not give the receipt or the catalog.
    """
    expected = _public_key(arguments.public_key)
    catalog = uris.absolute(arguments.catalog.rstrip("/")) if arguments.catalog else None
    objects.find_credentials(filter(None, (uris.absolute(arguments.receipt), catalog)))
    content, receipt, faults = read_receipt(arguments.receipt)
    checked = _Checked(receipt=receipt, faults=faults)
    if receipt is not None:
        faults += disagreements(content, receipt)
        _check_signature(checked, content, receipt, expected)
        if catalog is not None and not _is_same(catalog, receipt.catalog):
            faults.append(f"it is of the catalog {receipt.catalog}, --catalog is {catalog}")
        elif catalog is not None and not faults:
            _compare(checked, receipt, catalog, arguments)
    if arguments.as_json:
        print(printable_json(json.dumps(_plain(checked), indent=2, ensure_ascii=False)))
    else:
        _tell(checked, printable(uris.shown(arguments.receipt)))
    return checked.exit_status


def _is_same(catalog: str, stated: str) -> bool:
    """Whether a receipt is of a catalog. Args: stated: what it says, which may be anything."""
    if printable(utf8_text(catalog)) == stated:
        return True
    try:
        return printable(stated) == stated and objects.resolve(catalog) == objects.resolve(stated)
    except CallpressError:
        return False


def _public_key(name: str | None) -> bytes | None:
    """Returns the key that is to have signed a receipt. Raises: ConfigError: it is none, or cannot
    be read.
    """
    if name is None:
        return None
    shown = f"--public-key {printable(uris.shown(name))}"
    if secrets.is_reference(name):
        pem = secrets.read_key("--public-key", name)
    else:
        objects.find_credentials((uris.absolute(name),))
        try:
            with objects.open_input(uris.absolute(name)) as file:
                pem = file.read(_MOST_KEY_BYTES)
        except StorageError as error:
            raise ConfigError(f"--public-key {error.message}") from None
    return signing.public_bytes(signing.public_key(shown, pem))


def _check_signature(
    checked: _Checked, content: Mapping[str, Any], receipt: Receipt, expected: bytes | None
) -> None:
    if receipt.signature is None:
        if expected is not None:
            checked.faults.append(
                "it is not signed, and --public-key says who is to have signed it"
            )
        return
    key = signer_of(content, receipt.signature)
    if key is None:
        checked.faults.append("its signature is not right: it was made of something else")
        return
    checked.signed_by = signing.fingerprint(key)
    checked.is_vouched_for = key == expected
    if expected is not None and key != expected:
        checked.faults.append(
            f"it is signed by another key, {checked.signed_by}, than that of --public-key, "
            f"{signing.fingerprint(expected)} (SHA-256)"
        )


def _compare(checked: _Checked, receipt: Receipt, catalog: str, arguments: CheckArguments) -> None:
    """Compares a receipt with its catalog as it is now."""
    seen, accounts = Lock.of(catalog), accounts_for(receipt)
    faults = look_at(catalog, accounts, fast=arguments.fast, tell=lambda *_: None)
    checked.run_at_work = seen.who_was_at_work()
    now = make_receipt(
        Circumstances(
            catalog=catalog,
            callpress_version=version("callpress"),
            made_unix_ns=time.time_ns(),
            hashed=not arguments.fast,
            run_at_work=checked.run_at_work,
        ),
        accounts,
        faults,
        None,
    )
    checked.changes = list(changes(receipt, now, accounts))


def _plain(checked: _Checked) -> dict[str, Any]:
    """Returns what programs are told."""
    receipt = checked.receipt
    return {
        "exit_status": checked.exit_status,
        "sentence": receipt and receipt.sentence,
        "proven": receipt is not None and receipt.proven,
        "made_at": receipt and receipt.made_at,
        "faults": list(map(printable, checked.faults)),
        "signed_by": checked.signed_by,
        "is_vouched_for": checked.is_vouched_for,
        "changes": None if checked.changes is None else [asdict(each) for each in checked.changes],
        "run_at_work": checked.run_at_work,
    }


def _tell(checked: _Checked, shown: str) -> None:
    receipt = checked.receipt
    for fault in checked.faults:
        print(f"{shown}: {printable(fault)}")
    if receipt is None or checked.faults:
        print("callpress: the receipt is not as it was made, or not of this catalog or key")
        return
    for change in checked.changes or ():
        print(f"{printable(change.where)}: {printable(change.what)}")
    if checked.run_at_work is not None:
        print(
            f"callpress: {printable(checked.run_at_work)} was at work: what it was replacing may "
            "look changed"
        )
    print(f"callpress: {printable(receipt.sentence)}")
    print(f"callpress: as it was made on {receipt.made_at}; {_signed(checked)}{_changed(checked)}")


def _signed(checked: _Checked) -> str:
    if checked.signed_by is None:
        return "not signed: anybody may have made it"
    if checked.is_vouched_for:
        return f"signed by the key that was given, {checked.signed_by} (SHA-256)"
    return (
        f"signed by a key that nobody vouched for, {checked.signed_by} (SHA-256): give the one "
        "that you know with --public-key"
    )


def _changed(checked: _Checked) -> str:
    if checked.changes is None:
        return ""
    if not checked.changes:
        return "; nothing has changed since"
    count = len(checked.changes)
    return f"; {f'{count} things are' if count > 1 else '1 thing is'} not as it says"

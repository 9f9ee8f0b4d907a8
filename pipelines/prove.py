"""`callpress prove`: whether listing, tables, files and sums agree, and the receipt that says so.

callpress prove --catalog ./pressed/catalog
callpress prove --catalog gs://bucket/pressed/catalog --manifest list.json \
    --output gs://audit/2026-11-29.json --sign-key gcp-secret:projects/p/secrets/key/versions/1
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pipelines import listings
from pipelines.catalog_commands import ProveArguments
from pipelines.ending import check_file
from pipelines.options import EXIT_FAILED
from pipelines.verify import tables_of
from transforms.catalog.check_files import CheckedFiles
from transforms.catalog.schema import TABLES
from transforms.locking import lock
from transforms.media.errors import ConfigError, StorageError
from transforms.media.settings import PressSettings
from transforms.media.text import printable, printable_json
from transforms.proof import receipt as receipts
from transforms.proof import signing
from transforms.proof.accounts import Accounts
from transforms.proof.make_receipt import Circumstances, Faults, make_receipt, received
from transforms.proof.receipt import Receipt, sign
from transforms.proof.reconcile import reconcile as compare
from transforms.proof.verdict import WHAT_IS_NOT_KNOWN
from transforms.storage import objects, secrets, uris

_ENDED = "a run that has ended meanwhile"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lock:
    """The lock of a catalog as it was before somebody read that."""

    catalog: str
    held: lock.HeldLock | None
    last_state: str | None

    @classmethod
    def of(cls, catalog: str) -> Lock:
        """Looks at the lock of a catalog. Raises: ConfigError, StorageError: it cannot be read."""
        last_state = lock.last_state(catalog)
        return cls(catalog=catalog, held=lock.look(catalog), last_state=last_state)

    def who_was_at_work(self) -> str | None:
        """Returns what is, or was, writing to the catalog since then; None for nobody. Raises: as
        `of`.
        """
        for each in (lock.look(self.catalog), self.held):
            if each is not None and not each.is_dead():
                return each.name
        return _ENDED if lock.last_state(self.catalog) != self.last_state else None


def prove(arguments: ProveArguments, settings: PressSettings) -> int:
    """Says what is proven of a catalog, a line for each thing that does not agree; returns the exit
    status, 0 only where all agree and nothing is not known.

    Raises:
      NoCatalogError: there is no catalog.
      ConfigError: the key is none that signs, a manifest none that is read, or the receipt has no
        name of a file.
      CallpressError: the catalog cannot be listed, or the receipt not be written, which is found
        out before any work where that can be.
    """
    key = _signing_key(arguments.sign_key)
    catalog = uris.absolute(arguments.catalog.rstrip("/"))
    output = _place_of(arguments.receipt, catalog)
    objects.find_credentials(filter(None, (catalog, output)))
    if output is not None:
        _prepare_folder_of(output)
    listing = listings.read(arguments.listing) if arguments.listing.manifests else None
    made_unix_ns = time.time_ns()
    tell = _ignore if arguments.as_json else _tell_fault
    seen = Lock.of(catalog)
    accounts = Accounts()
    faults = look_at(catalog, accounts, fast=arguments.fast, tell=tell)
    found = None
    if listing is not None:
        found = compare(listing, catalog, listings.terms_of(arguments.listing, settings))
    content = make_receipt(
        Circumstances(
            catalog=catalog,
            callpress_version=version("callpress"),
            made_unix_ns=made_unix_ns,
            hashed=not arguments.fast,
            run_at_work=seen.who_was_at_work(),
        ),
        accounts,
        faults,
        None if listing is None or found is None else received(listing, found),
    )
    if key is not None:
        content = sign(content, key)
    if output is not None:
        receipts.write(output, content)
    receipt = Receipt.model_validate(content)
    if arguments.as_json:
        print(printable_json(json.dumps(content, indent=2, ensure_ascii=False)))
    else:
        if listing is not None and found is not None:
            listings.tell(listing, found)
        _tell(receipt)
    return 0 if receipt.proven else EXIT_FAILED


def look_at(
    catalog: str, accounts: Accounts, *, fast: bool, tell: Callable[[str, str, str], None]
) -> Faults:
    """Returns what does not agree in tables and files of a catalog, all of it looked at once.

    Args:
      catalog: its URI.
      accounts: takes all shards in.
      fast: whether files are compared by their sizes alone.
      tell: is told where something is wrong, what, and what heals it.

    Raises:
      NoCatalogError: there is no catalog.
      CallpressError: its place cannot be listed.
    """
    tables = tables_of(catalog)
    faults = Faults()
    for problem in tables.problems(accounts.add):
        faults.add(problem.uri, problem.what)
        tell(problem.uri, problem.what, problem.heal)
    accounts.end()
    files = CheckedFiles(catalog, None, tables.files["recordings"], tables.files["calls"])
    for problem in files.problems(fast=fast):
        faults.add(problem.uri, problem.what)
        tell(problem.uri, problem.what, problem.heal)
    for fault in accounts.lacking:
        tell(fault.uri, fault.what, "")
    faults.take_lacking(accounts)
    return faults


def _signing_key(reference: str | None) -> Ed25519PrivateKey | None:
    """Returns the key to sign with. Raises: ConfigError: it cannot be read, or is none."""
    if reference is None:
        return None
    if not secrets.is_reference(reference):
        raise ConfigError(f"--sign-key: is no reference, expected {secrets.EXPECTED}")
    pem = secrets.read_key("--sign-key", reference)
    return signing.private_key(f"--sign-key {printable(reference)}", pem)


def _place_of(output: str | None, catalog: str) -> str | None:
    """Returns where the receipt goes. Raises: ConfigError: nothing may lie there."""
    if output is None:
        return None
    check_file("--output", output)
    place = uris.absolute(output)
    for table in TABLES:
        if uris.is_within(objects.resolve(place), objects.resolve(uris.join(catalog, table))):
            raise ConfigError(
                f"--output {output}: lies in the table {table}, which has nothing but its rows; "
                "expected another place"
            )
    return place


def _prepare_folder_of(output: str) -> None:
    """Makes the folder of the receipt, where its store has folders. Raises: StorageError: it cannot
    be written.
    """
    try:
        objects.prepare_folder(os.path.dirname(output))
    except StorageError as error:
        raise StorageError(f"--output {output}: cannot be written: {error.message}") from None


def _tell_fault(uri: str, what: str, heal: str) -> None:
    more = f"; to heal: {heal}" if heal else ""
    print(f"{printable(uri)}: {printable(what)}{more}", flush=True)


def _ignore(_uri: str, _what: str, _heal: str) -> None:
    pass


def _tell(receipt: Receipt) -> None:
    """Tells what else is in a receipt, and its sentence last."""
    for line in lines_of(receipt):
        print(line)
    print(f"callpress: {receipt.sentence}")


def lines_of(receipt: Receipt) -> list[str]:
    """Returns what is not whole, or not known, a line for each."""
    lines = []
    if receipt.listing is None:
        for archive in receipt.archives.named:
            why = ": ".join(filter(None, (archive.error_type, archive.error_message)))
            lines.append(f"{archive.archive_uri}: {archive.status}" + (f": {why}" if why else ""))
    for what, count in sorted(receipt.not_known.items()):
        lines.append(f"callpress: not known: {count:,} {WHAT_IS_NOT_KNOWN.get(what, what)}")
    if receipt.run_at_work is not None:
        lines.append(
            f"callpress: {receipt.run_at_work} was at work over the catalog: what it was replacing "
            "may look wrong, and nothing is proven; do it again once the run has ended"
        )
    return lines

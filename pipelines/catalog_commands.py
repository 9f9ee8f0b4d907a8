"""The commands that read a catalog: their flags, and what they were asked for. Beam-free, so that
`--help` and usage errors answer at once.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field

from pipelines.parsing import Commands, UsageError
from transforms.bounds import parse_duration
from transforms.storage import uris


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyArguments:
    """What `callpress verify` was asked for."""

    catalog: str
    output: str | None
    config: str | None
    fast: bool
    repair: bool
    as_json: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RunsArguments:
    """What `callpress runs` was asked for."""

    catalog: str
    config: str | None
    last: int
    """How many runs, at most."""
    as_json: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ProveArguments:
    """What `callpress prove` was asked for."""

    catalog: str
    config: str | None
    listing: ListingArguments
    """No manifests where the catalog alone is proven."""
    receipt: str | None
    """Where it is to be written."""
    sign_key: str | None
    """A reference."""
    fast: bool
    as_json: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckArguments:
    """What `callpress prove --check` was asked for."""

    receipt: str
    public_key: str | None
    """A reference, or a file."""
    catalog: str | None
    """Compared with what it is now; None to check the receipt by itself."""
    config: str | None
    fast: bool
    as_json: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ListingArguments:
    """Which recordings should be there, and from when on one that is not is missing."""

    manifests: tuple[str, ...] = field(repr=False)
    """As of `run`; links may have signatures."""
    grace_seconds: int
    kept_seconds: int
    """For how long the vendor keeps a recording after its end."""
    allow_private_addresses: bool
    """Whether links to manifests may lead to addresses that are not public."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReconcileArguments:
    """What `callpress reconcile` was asked for."""

    listing: ListingArguments
    catalog: str
    config: str | None
    as_json: bool


CatalogArguments = (
    VerifyArguments | ProveArguments | CheckArguments | RunsArguments | ReconcileArguments
)


def add_all(commands: Commands) -> None:
    """Adds the parsers of these commands."""
    _add_verify(commands)
    _add_prove(commands)
    _add_runs(commands)
    _add_reconcile(commands)


def _add_verify(commands: Commands) -> None:
    verify = commands.add_parser(
        "verify",
        help="compare a catalog with its files",
        description="Checks that each row of a catalog has its file, unchanged, and each file its "
        "row, and that the tables agree; says how to heal what is wrong. Writes nothing without "
        "--repair.",
        epilog="Exit status: 0 all as it should be, 1 something is wrong (each thing a line), 2 "
        "wrong usage, 130 Ctrl-C.",
    )
    verify.add_argument(
        "--catalog", metavar="URI", help="the tables; with --output alone <output>/catalog"
    )
    verify.add_argument(
        "--output", metavar="URI", help="where recordings lie (default: where the rows say)"
    )
    verify.add_argument(
        "--config", metavar="PROFILE", help="as of run: its [stores] say how places are reached"
    )
    verify.add_argument("--fast", action="store_true", help="compare sizes only, read no recording")
    verify.add_argument(
        "--repair",
        action="store_true",
        help="note the calls of which something is wrong, for the next run to press them anew",
    )
    verify.add_argument(
        "--json", action="store_true", dest="as_json", help="as JSON instead of lines"
    )
    verify.set_defaults(read=_read_verify)


def _read_verify(arguments: argparse.Namespace) -> VerifyArguments:
    if not (arguments.catalog or arguments.output):
        raise UsageError("--catalog is required")
    return VerifyArguments(
        catalog=arguments.catalog or arguments.output.rstrip("/") + "/catalog",
        output=arguments.output,
        config=arguments.config and uris.without_file(arguments.config),
        fast=arguments.fast,
        repair=arguments.repair,
        as_json=arguments.as_json,
    )


def _add_prove(commands: Commands) -> None:
    prove = commands.add_parser(
        "prove",
        help="prove that nothing is missing, with a receipt",
        description="Says whether what the vendor lists, tables, files, packets and seconds agree, "
        "in a sentence and a line for each thing that does not, and writes a receipt of it; with "
        "--check, whether a receipt is as it was made, and what has changed since.",
        epilog="Exit status: 0 all agree and nothing is not known (with --check: the receipt is as "
        "it was made and nothing has changed), 1 not so, 2 wrong usage, a key that is none, or "
        "with --check what is no receipt, 130 Ctrl-C.",
    )
    prove.add_argument("--catalog", metavar="URI", help="the tables")
    add_listing_flags(prove)
    prove.add_argument(
        "--output", dest="receipt", metavar="FILE", help="where the receipt is written (JSON)"
    )
    prove.add_argument(
        "--sign-key",
        metavar="REF",
        help="the ed25519 key to sign it with: env:NAME, file:PATH or gcp-secret:...",
    )
    prove.add_argument(
        "--check", metavar="FILE", help="a receipt: check it, with --catalog against the catalog"
    )
    prove.add_argument(
        "--public-key",
        metavar="KEY",
        help="with --check: the key that is to have signed it, a file or a reference",
    )
    prove.add_argument(
        "--config",
        metavar="PROFILE",
        help="as of run: its [stores] and [stream] say how places are reached, its [limits] "
        "max_attempts what is tried again",
    )
    prove.add_argument("--fast", action="store_true", help="compare sizes only, read no recording")
    prove.add_argument(
        "--json", action="store_true", dest="as_json", help="as JSON instead of lines"
    )
    prove.set_defaults(read=_read_prove)


def _read_prove(arguments: argparse.Namespace) -> ProveArguments | CheckArguments:
    config = arguments.config and uris.without_file(arguments.config)
    if arguments.check is None:
        if arguments.public_key is not None:
            raise UsageError("--public-key is for checking a receipt, expected --check beside it")
        if not arguments.catalog:
            raise UsageError("--catalog is required")
        return ProveArguments(
            catalog=arguments.catalog,
            config=config,
            listing=read_listing_flags(arguments),
            receipt=arguments.receipt,
            sign_key=arguments.sign_key,
            fast=arguments.fast,
            as_json=arguments.as_json,
        )
    for flag, given in (
        ("--manifest", arguments.manifest),
        ("--output", arguments.receipt),
        ("--sign-key", arguments.sign_key),
    ):
        if given:
            raise UsageError(f"{flag} is for making a receipt, expected none beside --check")
    if arguments.fast and not arguments.catalog:
        raise UsageError("--fast is about the files of --catalog, expected that beside it")
    return CheckArguments(
        receipt=arguments.check,
        public_key=arguments.public_key,
        catalog=arguments.catalog,
        config=config,
        fast=arguments.fast,
        as_json=arguments.as_json,
    )


def _add_runs(commands: Commands) -> None:
    runs = commands.add_parser(
        "runs",
        help="list runs and how they went",
        description="Lists the last runs over a catalog, those too that nobody waited for, and the "
        "one that is at work.",
    )
    runs.add_argument("--catalog", metavar="URI", help="the tables")
    runs.add_argument(
        "--config", metavar="PROFILE", help="as of run: its [stores] say how places are reached"
    )
    runs.add_argument(
        "--last", type=int, default=20, metavar="N", help="how many, of 400 at most (default: 20)"
    )
    runs.add_argument(
        "--json", action="store_true", dest="as_json", help="as JSON instead of a table"
    )
    runs.set_defaults(read=_read_runs)


def _read_runs(arguments: argparse.Namespace) -> RunsArguments:
    if not arguments.catalog:
        raise UsageError("--catalog is required")
    if arguments.last < 1:
        raise UsageError(f"--last {arguments.last}: expected a positive number")
    return RunsArguments(
        catalog=arguments.catalog,
        config=arguments.config and uris.without_file(arguments.config),
        last=arguments.last,
        as_json=arguments.as_json,
    )


def _add_reconcile(commands: Commands) -> None:
    reconcile = commands.add_parser(
        "reconcile",
        help="tell which recordings of a listing are missing in a catalog",
        description="Tells of each raw recording of a listing whether it is pressed, partial, "
        "failed, waiting or absent, and when the vendor deletes it. Writes nothing.",
        epilog="Exit status: 0 none is missing, 1 one is, or an entry or a listing cannot be read "
        "(each a line), 2 wrong usage, or a manifest that is not there, 130 Ctrl-C.",
    )
    add_listing_flags(reconcile)
    reconcile.add_argument("--catalog", metavar="URI", help="the tables")
    reconcile.add_argument(
        "--config",
        metavar="PROFILE",
        help="as of run: its [limits] max_attempts says what is tried again, its [stores] and "
        "[stream] how places are reached",
    )
    reconcile.add_argument(
        "--json", action="store_true", dest="as_json", help="as JSON instead of lines"
    )
    reconcile.set_defaults(read=_read_reconcile)


def _read_reconcile(arguments: argparse.Namespace) -> ReconcileArguments:
    for flag in ("manifest", "catalog"):
        if not getattr(arguments, flag):
            raise UsageError(f"--{flag} is required")
    return ReconcileArguments(
        listing=read_listing_flags(arguments),
        catalog=arguments.catalog,
        config=arguments.config and uris.without_file(arguments.config),
        as_json=arguments.as_json,
    )


def add_listing_flags(command: argparse.ArgumentParser) -> None:
    """Adds the flags of a command that compares a catalog with a listing."""
    command.add_argument(
        "--manifest",
        action="append",
        default=[],
        metavar="WHERE",
        help="a listing of recordings, as of run; may be repeated",
    )
    command.add_argument(
        "--grace",
        default="6h",
        metavar="TIME",
        help="a recording that ended less than this ago may be waiting, or absent (default: 6h)",
    )
    command.add_argument(
        "--kept",
        default="14d",
        metavar="TIME",
        help="for how long the vendor keeps a recording after its end (default: 14d)",
    )
    command.add_argument(
        "--allow-private-addresses",
        action="store_true",
        help="as of run: let a link lead to addresses that are not public",
    )


def read_listing_flags(arguments: argparse.Namespace) -> ListingArguments:
    """Returns what these flags say. Raises: ConfigError: a time is none."""
    return ListingArguments(
        manifests=tuple(arguments.manifest),
        grace_seconds=parse_duration("--grace", arguments.grace),
        kept_seconds=parse_duration("--kept", arguments.kept),
        allow_private_addresses=arguments.allow_private_addresses,
    )

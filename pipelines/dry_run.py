"""`callpress run --dry_run`: which archives a run would press and which not, why, and how much that
is. Writes nothing.
"""

from __future__ import annotations

import logging
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from apache_beam.io.filesystems import FileSystems
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipelines import manifests, places
from pipelines.accounts import accounts_of, check_secrets_reach_workers
from pipelines.beam_options import beam_options, engine_of
from pipelines.check_targets import check_targets
from pipelines.ending import Ending, check_summary_json
from pipelines.job_profile import JobProfile
from pipelines.logs import set_up_logging
from pipelines.options import RunArguments
from pipelines.run import job_settings, notify_of, use_options
from transforms.begin_run import new_run
from transforms.bounds import Bounds
from transforms.catalog import pending_replacement
from transforms.catalog.repressing import Repressing, tell, weigh
from transforms.catalog.waiting import waiting_archives
from transforms.choose_archives import in_order, within
from transforms.context import JobSettings
from transforms.elements import ArchiveRef, Row
from transforms.list_archives import find_archives, refer
from transforms.media.errors import RecordingError
from transforms.media.text import printable
from transforms.media.wall_time import utc_date
from transforms.read_manifests import to_error, wants_entry
from transforms.reason import Reason
from transforms.skip_processed import (
    is_before,
    is_newer,
    judge,
    recorded,
    recorded_anywhere,
    refer_to_entry,
)
from transforms.sources.archive_files import ListedArchive
from transforms.sources.manifests.entry import BadEntry, LeftOut, ManifestEntry
from transforms.sources.manifests.reading import newness, read_source
from transforms.storage import objects


def dry_run(arguments: RunArguments, profile: JobProfile, ending: Ending) -> int:
    """Lists what the same command without `--dry_run` would do; returns the exit status.

    Reads listings and the catalog's table of archives, and no archive. Filters by call or
    participant leave no archive out before it is read, and so not here either.

    Raises:
      UsageError, ConfigError: as the run would.
      CallpressError: nothing matched, or the catalog cannot be read.
    """
    if arguments.verbose or arguments.log_file:
        set_up_logging(arguments, "dry-run")
    else:
        logging.getLogger().addHandler(logging.NullHandler())
    check_summary_json(arguments.summary_json)
    options = beam_options(arguments.beam_args, arguments.beam_lines)
    FileSystems.set_options(options)
    engine = engine_of(options, arguments)
    notify = notify_of(arguments, profile, engine)
    check_secrets_reach_workers(
        (*accounts_of(arguments.manifests), *notify.targets),
        has_workers_here=engine.has_workers_here,
        secrets_in_image=arguments.secrets_in_image,
    )
    where = places.places_of(arguments)
    use_options(arguments, where)
    objects.find_credentials(
        (*where.inputs, *manifests.stores_of(where), where.catalog_uri, *where.own_uris)
    )
    places.check_apart(where)
    places.check_copies_apart(where)
    check_targets(
        notify,
        where.catalog_uri,
        where.output_uri,
        shares_this_machine=engine.shares_this_machine,
        reads_secrets=engine.has_workers_here,
    )
    manifests.check(where)
    places.check_inputs(where.inputs, may_come_later=bool(where.links or where.manifests))
    job = job_settings(arguments, profile.settings, where, engine, staging_root="")
    with tempfile.TemporaryDirectory(prefix="callpress-") as folder:
        named = manifests.stage(where, folder, reads_files=True)
        plan = make_plan(where.inputs, replace(job, manifests=named))
    ending.write({**plan, "exit_status": 0, "reason": Reason.OK})
    _print(plan)
    if notify.targets:
        names = ", ".join(printable(target.name) for target in notify.targets)
        print(f"would tell {names} of what is made")
    return 0


def make_plan(patterns: Iterable[str], job: JobSettings) -> dict[str, Any]:
    """Returns what would be done, as `--summary-json` tells it. Raises: StorageError: the catalog
    cannot be read.
    """
    matched = [find_archives(pattern, job) for pattern in patterns]
    found = {listed.uri: listed for each in matched for listed in each.archives}
    run = replace(
        new_run(job, time.time_ns()),
        repeat_archives=pending_replacement.archives_to_repeat(job.catalog_uri),
    )
    waits: set[str] = set()
    if job.filters.since and not job.filters.is_about_a_part:
        waits.update(waiting_archives(job.catalog_uri))
    archives = [
        found[uri]
        for uri in sorted(found)
        if uri in waits or found[uri].is_after(run.since_unix_ns)
    ]
    rows = _known(job.catalog_uri, archives)
    press: list[dict[str, Any]] = []
    skip: list[dict[str, Any]] = []
    anew: list[dict[str, Any]] = []
    refs: dict[str, ArchiveRef] = {}
    for listed in archives:
        entry = {"archive_uri": listed.uri, "size_bytes": listed.size_bytes}
        try:
            ref = refer(listed)
        except RecordingError as error:
            why = error.message.removeprefix(f"{listed.uri}: ")
            press.append({**entry, "why": f"cannot be looked at: {why}", "attempt": 1})
            continue
        row = rows.get(listed.uri)
        verdict = judge(ref, row, job, run)
        if verdict.todo is not None:
            refs[listed.uri] = verdict.todo
            found_todo = anew if verdict.is_anew else press
            found_todo.append({**entry, "why": verdict.why, "attempt": verdict.todo.attempt})
        else:
            skip.append({**entry, "why": verdict.why})
    passed_over: Counter[str] = Counter()
    unreadable: list[dict[str, Any]] = []
    named = _read_manifests(job, passed_over, unreadable)
    named_rows = _rows_of(job.catalog_uri, [uri for uri in named if uri not in found])
    listed_count = len(archives)
    for uri, named_entry in sorted(named.items()):
        row = named_rows.get(uri)
        ref = refer_to_entry(named_entry, row, run)
        verdict = judge(ref, row, job, run)
        is_waiting = verdict.todo is not None and verdict.todo.is_waiting
        if uri in found or (is_before(named_entry, run) and not is_waiting):
            continue
        listed_count += 1
        told = {"archive_uri": uri, "size_bytes": ref.size_bytes, "why": verdict.why}
        if verdict.todo is None:
            skip.append(told)
            continue
        refs[uri] = verdict.todo
        (anew if verdict.is_anew else press).append({**told, "attempt": verdict.todo.attempt})
    repressing = weigh(
        job.catalog_uri,
        len(anew),
        sum(entry["size_bytes"] for entry in anew),
        is_wanted=job.repress,
    )
    if repressing.is_refused:
        for each in anew:
            del each["attempt"]
            each["why"] += ", without --repress"
    (skip if repressing.is_refused else press).extend(anew)
    press, wait = _bounded(press, refs, job.bounds)
    for entries in (press, skip, wait):
        entries.sort(key=lambda entry: entry["archive_uri"])
    return {
        "dry_run": True,
        "archives": {
            "listed": listed_count,
            "to_press": len(press),
            "to_skip": len(skip),
            "to_wait": len(wait),
        },
        "bytes_to_press": sum(entry["size_bytes"] for entry in press),
        "bytes_to_skip": sum(entry["size_bytes"] for entry in skip),
        "bytes_to_wait": sum(entry["size_bytes"] for entry in wait),
        "repress": asdict(repressing) if anew else None,
        "press": press,
        "skip": skip,
        "wait": wait,
        "unreadable": unreadable,
        "files_left_out": sum(each.own_count for each in matched),
        "passed_over": dict(passed_over),
        "not_asked": sum(
            1
            for entry in press
            if entry["archive_uri"] in refs and refs[entry["archive_uri"]].is_unseen
        ),
    }


def _read_manifests(
    job: JobSettings, passed_over: Counter[str], unreadable: list[dict[str, Any]]
) -> dict[str, ManifestEntry]:
    """Returns what manifests name that is wanted, each archive once, by URI.

    Args:
      job: with the manifests.
      passed_over: entries of no raw recording are counted there, by why.
      unreadable: entries that cannot be read are put there; a run has a failure for each.
    """
    named: dict[str, tuple[tuple[int, int], ManifestEntry]] = {}
    for source in job.manifests:
        try:
            for shown, each in read_source(source):
                if isinstance(each, LeftOut):
                    passed_over[each] += 1
                elif isinstance(each, BadEntry):
                    error = to_error(each, shown)
                    unreadable.append(_unreadable(shown, error))
                elif wants_entry(each, job.filters):
                    rank = newness(each)
                    if each.uri not in named or rank >= named[each.uri][0]:
                        named[each.uri] = rank, each
        except RecordingError as error:
            unreadable.append(_unreadable(source.shown, error))
    return {uri: entry for uri, (_, entry) in named.items()}


def _unreadable(shown: str, error: RecordingError) -> dict[str, Any]:
    return {"manifest": shown, "why": error.message.removeprefix(f"{shown}: ")}


def _rows_of(catalog_uri: str, archive_uris: Sequence[str]) -> dict[str, Row]:
    """Returns the rows of `archives` of some archives, by URI, whatever date they are under."""
    rows: dict[str, Row] = {}
    for row in recorded_anywhere(catalog_uri, archive_uris) if archive_uris else ():
        known = rows.get(row["archive_uri"])
        if known is None or is_newer(row["created_at"], known["created_at"]):
            rows[row["archive_uri"]] = row
    return rows


def _bounded(
    press: Sequence[dict[str, Any]], refs: Mapping[str, ArchiveRef], bounds: Bounds
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Returns of what is to be pressed that which bounds take on, and that which they leave."""
    by_uri = {entry["archive_uri"]: entry for entry in press}
    ordered = in_order(refs[uri] for uri in by_uri if uri in refs)
    taken, bound = within(ordered, bounds)
    wait = []
    for ref in ordered[taken:]:
        assert bound is not None  # nothing else leaves any
        entry = by_uri.pop(ref.uri)
        wait.append({**entry, "why": f"{entry['why']}, past {bound.flag} {bounds.given(bound)}"})
    return list(by_uri.values()), wait


def _known(catalog_uri: str, archives: Iterable[ListedArchive]) -> dict[str, Row]:
    """Returns the rows of `archives` of some archives, by URI, each under the date it was modified
    on.
    """
    by_date: dict[str, list[str]] = defaultdict(list)
    for listed in archives:
        by_date[utc_date(listed.modified_unix_ns)].append(listed.uri)
    rows: dict[str, Row] = {}
    for date, uris in by_date.items():
        for row in recorded(catalog_uri, date, uris):
            known = rows.get(row["archive_uri"])
            if known is None or is_newer(row["created_at"], known["created_at"]):
                rows[row["archive_uri"]] = row
    return rows


def _print(plan: Mapping[str, Any]) -> None:
    entries: Sequence[tuple[str, Mapping[str, Any]]] = [
        *(("press", entry) for entry in plan["press"]),
        *(("skip", entry) for entry in plan["skip"]),
        *(("wait", entry) for entry in plan["wait"]),
        *(
            ("fail", {"why": each["why"], "size_bytes": 0, "archive_uri": each["manifest"]})
            for each in plan["unreadable"]
        ),
    ]
    if sys.stdout.isatty():
        table = Table(title="callpress run --dry_run: nothing is written", title_justify="left")
        table.add_column("would")
        table.add_column("why")
        table.add_column("size", justify="right")
        table.add_column("archive", overflow="fold")
        for verb, entry in entries:
            why, uri = printable(entry["why"]), printable(entry["archive_uri"])
            table.add_row(verb, Text(why), _size(entry["size_bytes"]), Text(uri))
        Console(highlight=False).print(table)
    else:
        for verb, entry in entries:
            print(
                f"{verb}\t{printable(entry['why'])}\t{entry['size_bytes']}\t{printable(entry['archive_uri'])}"
            )
    reasons = Counter(entry["why"] for entry in plan["press"])
    told = ", ".join(f"{count} {printable(why)}" for why, count in reasons.most_common(5))
    archives = plan["archives"]
    print(
        f"would press {archives['to_press']} of {archives['listed']} archives, "
        f"{_size(plan['bytes_to_press'])}"
        f"{f' ({told})' if told else ''}, and skip {archives['to_skip']}, "
        f"{_size(plan['bytes_to_skip'])}"
        + (
            f"; {archives['to_wait']}, {_size(plan['bytes_to_wait'])}, would wait for the next run"
            if archives["to_wait"]
            else ""
        )
    )
    if plan["unreadable"]:
        count = len(plan["unreadable"])
        print(f"{count} {'entry' if count == 1 else 'entries'} of manifests cannot be read")
    places.tell_left_out(plan["files_left_out"])
    manifests.tell_passed_over(plan["passed_over"])
    if plan["not_asked"]:
        count = plan["not_asked"]
        print(
            f"no store was asked for {count} {'archive' if count == 1 else 'archives'} that "
            "manifests name: sizes are as the catalog knows them (0 where it does not), and "
            "whether links are good is not known"
        )
    if plan["repress"]:
        print(tell(Repressing(**plan["repress"])))


def _size(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:.1f} MB" if size_bytes >= 100_000 else f"{size_bytes} bytes"

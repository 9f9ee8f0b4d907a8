"""Results of runs: what became of each, beside the tables, for whoever asks: the command that
started the run, if it is still there, and `callpress runs`.

    <catalog>/results/<run_id>.json    in the shape of --summary-json; the last 400 stay
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any, cast

from transforms.bounds import Bound, Bounds
from transforms.catalog.repressing import Repressing, tell
from transforms.context import JobSettings, RunIdentity
from transforms.elements import Status
from transforms.media.errors import StorageError
from transforms.media.settings import PressSettings
from transforms.media.text import printable
from transforms.media.units import SAMPLE_RATE_HZ
from transforms.media.wall_time import to_time
from transforms.reason import Reason
from transforms.storage import globs, objects, uris

logger = logging.getLogger(__name__)

FOLDER = "results"
KEPT = 400
_NAME = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{6}\.json")
"""As runs are named: nothing else in the folder is ours."""
_READ_AT_A_TIME = 16
Result = Mapping[str, Any]


def write(catalog_uri: str, result: Result) -> None:
    """Writes a run's result, and deletes the oldest. Raises: StorageError."""
    objects.write_bytes(
        uri_of(catalog_uri, result["run_id"]), json.dumps(result, indent=2).encode()
    )
    try:
        for uri in _names(catalog_uri)[KEPT:]:
            objects.delete(uri)
    except StorageError as error:  # as in a bucket that is locked against deleting
        logger.warning("old results stay: %s", error)


def read(catalog_uri: str, run_id: str) -> Result | None:
    """Returns a run's result, None when it has none. Raises: StorageError."""
    uri = uri_of(catalog_uri, run_id)
    return _read(uri) if objects.match(globs.quote(uri)) else None


def newest(catalog_uri: str, count: int) -> tuple[list[Result], list[str]]:
    """Returns the results of the last runs, the newest first, and what is wrong with those among
    them that cannot be read.

    Raises:
      StorageError: they cannot be listed.
    """

    def look(uri: str) -> Result | StorageError | None:
        try:
            return _read(uri)
        except StorageError as error:  # unless a run at its end has just deleted it
            return error if objects.match(globs.quote(uri)) else None

    with ThreadPoolExecutor(_READ_AT_A_TIME) as pool:
        looked = list(pool.map(look, _names(catalog_uri)[:count]))
    found = [each for each in looked if isinstance(each, Mapping)]
    return found, [each.message for each in looked if isinstance(each, StorageError)]


def _names(catalog_uri: str) -> list[str]:
    """Returns all results, the newest first: a run's id begins with when it began."""
    folder = uris.join(catalog_uri, FOLDER)
    listed = objects.match(uris.join(globs.quote(folder), "*.json"))
    return [each.path for each in reversed(listed) if _NAME.fullmatch(each.path[len(folder) + 1 :])]


def _read(uri: str) -> Result:
    try:
        found: Any = json.loads(objects.read_bytes(uri))
    except (ValueError, RecursionError):
        found = None
    if not _is_result(found):
        raise StorageError(f"{uri}: is damaged, expected the result of a run; remove it")
    return cast(Result, found)


def _is_result(found: Any) -> bool:
    """Whether something has all of a result that is told to people."""
    try:
        times = [datetime.fromisoformat(found[name]) for name in ("started_at", "finished_at")]
        counts = found["counts"]
        numbers = [found["exit_status"], counts["recordings"], counts["failures"]]
        for table in ("archives", "calls"):
            numbers += counts[table].values()
        texts = [found["run_id"], found["reason"], *found["told"]]
    except (ValueError, LookupError, TypeError, AttributeError):
        return False
    return (
        all(time.tzinfo is not None for time in times)
        and all(isinstance(number, int) for number in numbers)
        and all(isinstance(text, str) for text in texts)
    )


def uri_of(catalog_uri: str, run_id: str) -> str:
    """Returns where a run's result is, or will be."""
    return uris.join(catalog_uri, FOLDER, f"{run_id}.json")


def judge(result: Result, job: JobSettings, run: RunIdentity) -> tuple[Reason, list[str]]:
    """Returns why a run that came to its end has its exit status, and what people are told of it.

    Args:
      result: what its last step found.
      job, run: of which.
    """
    found: list[tuple[Reason, str]] = []
    if why := too_many_failed(result["counts"], job.settings):
        found.append((Reason.TOO_MANY_FAILED, why))
    if not_read := result["counts"].get("passed_over_not_read"):
        found.insert(0, (Reason.STORAGE_DOWN, _tell_not_read(not_read)))
    waits = _what_waits(result["counts"], job.bounds)
    # What was named may be in archives that were not read.
    unmatched = () if waits else result["unmatched"]
    missing = {(name["flag"], name["value"]): _tell_unmatched(name) for name in unmatched}
    mistakes = job.filters.must_be_there(missing.keys())
    found += [(Reason.NOTHING_MATCHED, missing[name]) for name in mistakes]
    lines = [line for _, line in found]
    lines += [line for name, line in sorted(missing.items()) if name not in mistakes]
    if result["repress"]:
        repressing = Repressing(**result["repress"])
        lines.append(tell(repressing))
        if repressing.is_refused:
            found.append((Reason.REPRESS_NEEDED, lines[-1]))
    if waits:
        lines.append(waits)
    if kept := result["counts"].get("files_kept"):
        lines.append(
            f"{kept} files that no row names any more stay, as their store does not let them be "
            "deleted; failures has a row of each (RetainedFileError)"
        )
    if not lines and (quiet := _quiet_night(result["counts"], job, run)):
        lines.append(quiet)
    return found[0][0] if found else Reason.OK, lines


def _tell_unmatched(name: Mapping[str, Any]) -> str:
    near = f"; there are {', '.join(name['nearest'])}" if name["nearest"] else ""
    return printable(f"{name['flag']} {name['value']} matches nothing{near}")


def _tell_not_read(count: int) -> str:
    manifests = "1 manifest" if count == 1 else f"{count} manifests"
    return (
        f"{manifests} could not be read, or not to the end: what else is named there is not known; "
        "failures has a row of each (stage ReadManifests)"
    )


def _what_waits(counts: Mapping[str, int], bounds: Bounds) -> str:
    """Returns what to tell of archives that are left to the next run, empty without any."""
    waiting = counts.get(f"archives_{Status.WAITING}", 0)
    if not waiting:
        return ""
    why = " and ".join(
        f"{bound.flag} {bounds.given(bound)}" for bound in Bound if counts.get(f"put_off_{bound}")
    )
    line = f"{waiting} archives wait for the next run, which begins with them ({why})"
    if counts.get("put_off_stop_after") and not counts.get("calls_pressed"):
        line += "; no call was done in that time: with --max-archives a run begins fewer"
    return line


def _quiet_night(counts: Mapping[str, int], job: JobSettings, run: RunIdentity) -> str:
    """Returns what to tell of a run that found nothing to do, empty for any other."""
    if any(counts.get(f"archives_{status}") for status in Status):
        return ""
    if listed := counts.get("archives_listed", 0):
        return f"nothing new: the catalog has all of the {listed} archives"
    since = run.since_unix_ns
    if since is None and job.manifests:
        return "nothing new: the manifests name no recording that is wanted"
    return (
        "" if since is None else f"nothing new: no archive is newer than {to_time(since)} (--since)"
    )


def summarise(
    result: Mapping[str, Any], exit_status: int, reason: Reason, told: Sequence[str]
) -> dict[str, Any]:
    """Returns the end result of a run, for programs.

    Args:
      result: what its last step found.
      exit_status: of the command that waits for it.
      reason: for that status.
      told: what people are told of it, in lines.
    """
    counts: Mapping[str, int] = result["counts"]

    def by_status(table: str, *names: str) -> dict[str, int]:
        return {name: counts.get(f"{table}_{name}", 0) for name in names}

    return {
        "run_id": result["run_id"],
        "exit_status": exit_status,
        "reason": str(reason),
        "started_at": result["started_at"],
        "finished_at": result["finished_at"],
        "counts": {
            "archives": by_status(
                "archives", "listed", "skipped", "ok", "partial", "failed", "empty", "waiting"
            ),
            "calls": by_status("calls", "ok", "partial", "failed", "empty"),
            "recordings": counts.get("files_written", 0),
            "failures": counts.get("failures", 0),
            "left_out": counts.get("left_out", 0),
            "passed_over": by_status("passed_over", "composite", "individual", "other_event"),
        },
        "claimed_seconds": counts.get("claimed_ms", 0) / 1_000,
        "missing_seconds": counts.get("missing_ms", 0) / 1_000,
        "unmatched": result["unmatched"],
        "repress": result["repress"],
        "reconcile": result["reconcile"],
        "notices": result["notices"],
        "first_time": by_status("first_time", "ok", "partial", "failed", "empty"),
        "media_seconds": round(counts.get("media_samples", 0) / SAMPLE_RATE_HZ, 3),
        "cpu_seconds": round(counts.get("cpu_ns", 0) / 1e9, 3),
        "bytes_read": counts.get("bytes_read", 0),
        "bytes_written": counts.get("bytes_written", 0),
        "failures": [_plain_failure(failure) for failure in result["failures"]],
        "told": list(told),
    }


def _plain_failure(failure: Mapping[str, Any]) -> dict[str, Any]:
    call = failure["call"]
    return {
        **{
            name: value
            for name, value in failure.items()
            if name not in ("call", "archive_modified_unix_ns", "lacks_segment")
        },
        "call_cid": f"{call['call_type']}:{call['call_id']}" if call else None,
        "call_session_id": call["call_session_id"] if call else None,
    }


def run_status(tally: Mapping[str, int], settings: PressSettings) -> Status:
    """Returns how a run went: `failed` when more of the archives that it attempted for the first
    time than allowed failed or are partial.
    """
    if too_many_failed(tally, settings):
        return Status.FAILED
    is_whole = not (tally.get("archives_failed", 0) or tally.get("archives_partial", 0))
    return Status.OK if is_whole else Status.PARTIAL


def too_many_failed(tally: Mapping[str, int], settings: PressSettings) -> str:
    """Returns what an operator is to know of archives that failed for the first time, empty when
    no more of them did than the settings allow.
    """
    first = {status: tally.get(f"first_time_{status}", 0) for status in Status}
    bad, attempted = first[Status.FAILED] + first[Status.PARTIAL], sum(first.values())
    most = settings.most_failed
    if bad and bad / attempted > settings.max_failed_ratio:
        limit = f"{settings.max_failed_ratio:.0%} of them (max_failed_ratio)"
    elif most is not None and bad > most:
        limit = f"{most} (max_failed_count)"
    else:
        return ""
    return (
        f"{bad} of the {attempted} archives attempted for the first time failed or are partial, "
        f"more than {limit}"
    )

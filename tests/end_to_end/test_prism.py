"""The same on Beam's portable engine Prism, with workers outside of the launcher, on gs://.

All of it is in this one file, so that one process of the suite has the servers.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from google.api_core.exceptions import PreconditionFailed
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage

from tests.support.builders import Participant, Segment, encode_opus, make_call_archive, tone
from tests.support.command import (
    DTX_STALLS,
    SAMPLE,
    STEREO_STALLS,
    Finished,
    callpress_process,
    query,
)
from tests.support.prism import PrismCluster, running_prism_cluster
from tests.support.processes import wait_until
from tests.support.storage_proxy import HeldRequest, holding
from tests.support.translation import FLAGS as DATAFLOW
from transforms.catalog.schema import SCHEMAS
from transforms.locking.lock import NAME, LockState, decode

pytestmark = pytest.mark.slow

BUCKET = "calls"
OF_THE_RUN = {"run_id", "created_at", "processed_at", "failed_at", "updated_at"}
"""Columns that tell one run from another."""
OF_THE_RUN_IN_EVENTS = re.compile(r'"(?:created_at|egress_id)":(?:\d+|"[^"]*")')
LEASE_SECONDS = 6
"""Of the runs that lose their lock."""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrismCluster]:
    with running_prism_cluster(tmp_path_factory.mktemp("prism")) as cluster:
        yield cluster


@pytest.fixture(autouse=True)
def _nothing_is_left(cluster: PrismCluster) -> Iterator[None]:
    yield
    cluster.check_nothing_is_left()


@pytest.fixture(scope="module")
def bucket(cluster: PrismCluster) -> storage.Bucket:
    client = storage.Client(
        project="anonymous",
        credentials=AnonymousCredentials(),
        client_options={"api_endpoint": cluster.env["STORAGE_EMULATOR_HOST"]},
    )
    return client.create_bucket(BUCKET)


def _talk(frequency_hz: float, start_ms: int = 0) -> Segment:
    return Segment(
        packets=encode_opus(tone(frequency_hz, 3), frame_ms=20),
        start_ms=start_ms,
        ssrc=int(frequency_hz),
        base_filename=f"f{frequency_hz:.0f}_{start_ms}",
    )


def _upload_archives(bucket: storage.Bucket) -> None:
    """Uploads three captures, a call that lies in two archives, and an archive that breaks off."""
    for path in (SAMPLE, DTX_STALLS, STEREO_STALLS):
        bucket.blob(f"raw/{path.name}").upload_from_filename(path)
    bucket.blob("raw/broken.tar.gz").upload_from_string(SAMPLE.read_bytes()[:1000])
    first = [
        Participant(participant_id="alice", segments=[_talk(300)]),
        Participant(participant_id="bob", segments=[_talk(500)]),
    ]
    second = [
        Participant(participant_id="alice", segments=[_talk(300, 5000)]),
        Participant(participant_id="carol", segments=[_talk(700, 4000)]),
    ]
    bucket.blob("raw/first.tar.gz").upload_from_string(make_call_archive(first))
    bucket.blob("raw/second.zip").upload_from_string(make_call_archive(second, kind="zip"))


@dataclass(frozen=True, kw_only=True)
class Pressed:
    """A run that ended, and a copy of what lies under its output."""

    done: Finished
    files: dict[str, Path]
    folder: Path

    def rows(self, table: str) -> list[dict[str, Any]]:
        return query(self.folder / "catalog", table)


def _run(cluster: PrismCluster, output: str, *flags: str, pattern: str = "*") -> Finished:
    """Runs over all archives, or some."""
    return callpress_process(
        *("run", "--input", f"gs://{BUCKET}/raw/{pattern}", "--output", f"gs://{BUCKET}/{output}"),
        *("--temp_location", f"gs://{BUCKET}/tmp-{output}", *flags),
        *("--notify", f"gs://{BUCKET}/{output}/told"),
        env=cluster.env,
    )


def _copied(done: Finished, bucket: storage.Bucket, output: str, folder: Path) -> Pressed:
    """Copies down what a run has made."""
    files = {}
    for blob in bucket.list_blobs(prefix=f"{output}/"):
        name = blob.name.removeprefix(f"{output}/")
        files[name] = folder / name
        files[name].parent.mkdir(parents=True, exist_ok=True)
        blob.download_to_filename(str(files[name]))
    return Pressed(done=done, files=files, folder=folder)


@pytest.fixture(scope="module")
def on_prism(
    cluster: PrismCluster, bucket: storage.Bucket, tmp_path_factory: pytest.TempPathFactory
) -> Pressed:
    _upload_archives(bucket)
    folder = tmp_path_factory.mktemp("on-prism")
    return _copied(_run(cluster, "on-prism", *cluster.flags), bucket, "on-prism", folder)


@pytest.fixture(scope="module")
def locally(
    cluster: PrismCluster,
    bucket: storage.Bucket,
    on_prism: Pressed,
    tmp_path_factory: pytest.TempPathFactory,
) -> Pressed:
    folder = tmp_path_factory.mktemp("locally")
    return _copied(_run(cluster, "locally"), bucket, "locally", folder)


def test_run_ends_as_on_the_local_engine(on_prism: Pressed, locally: Pressed) -> None:
    for pressed in (on_prism, locally):
        assert pressed.done.status == 1, pressed.done.err
        assert "Traceback" not in pressed.done.err
        assert "raw/broken.tar.gz" in pressed.done.out
    assert "6 listed, 5 ok, 1 failed" in on_prism.done.out
    assert "callpress: Created job with id: [job-" in on_prism.done.err
    assert on_prism.done.err.splitlines()[-1] == locally.done.err.splitlines()[-1]


def test_media_is_the_local_engines_to_the_byte(on_prism: Pressed, locally: Pressed) -> None:
    def hashes(pressed: Pressed) -> dict[str, str]:
        return {
            name: hashlib.sha256(path.read_bytes()).hexdigest()
            for name, path in pressed.files.items()
            if name.startswith("recordings/")
        }

    assert len(hashes(on_prism)) == 15 + 4
    assert hashes(on_prism) == hashes(locally)


@pytest.mark.parametrize("table", sorted(set(SCHEMAS) - {"runs"}))
def test_rows_are_the_local_engines(on_prism: Pressed, locally: Pressed, table: str) -> None:
    def rows(pressed: Pressed, output: str) -> list[dict[str, Any]]:
        return [
            {
                name: OF_THE_RUN_IN_EVENTS.sub(
                    "", str(value).replace(f"gs://{BUCKET}/{output}/", "")
                )
                for name, value in row.items()
                if name not in OF_THE_RUN
            }
            for row in pressed.rows(table)
        ]

    assert rows(on_prism, "on-prism")
    assert rows(on_prism, "on-prism") == rows(locally, "locally")


def test_all_files_are_told_by_a_worker(on_prism: Pressed, locally: Pressed) -> None:
    for pressed in (on_prism, locally):
        told = [
            json.loads(line)["call_recording"]["filename"]
            for name, path in pressed.files.items()
            if name.startswith("told/")
            for line in path.open()
        ]
        assert sorted(told) == sorted(row["filename"] for row in pressed.rows("recordings"))
        assert {row["state"] for row in pressed.rows("notices")} == {"delivered"}


def test_nothing_is_staged_once_a_run_has_ended(on_prism: Pressed, bucket: storage.Bucket) -> None:
    assert on_prism.done.status == 1
    assert not list(bucket.list_blobs(prefix="tmp-on-prism/"))
    assert {name.split("/")[0] for name in on_prism.files} == {"catalog", "recordings", "told"}


def test_second_run_that_nobody_waits_for_presses_nothing(
    cluster: PrismCluster, bucket: storage.Bucket, on_prism: Pressed, tmp_path: Path
) -> None:
    """Three archives match its pattern; the others a file of the launcher's machine names."""
    manifest = tmp_path / "others.txt"
    names = (SAMPLE.name, "first.tar.gz", "second.zip")
    manifest.write_text("\n".join(f"gs://{BUCKET}/raw/{name}" for name in names))
    named = ("--manifest", str(manifest))
    started = _run(cluster, "on-prism", *named, *cluster.flags, "--detach", pattern="[bc]*")

    assert started.status == 0, started.err
    assert "Created job with id: [" in started.err
    wait_until(lambda: len(list(bucket.list_blobs(prefix="on-prism/catalog/results/"))) == 2, 60)
    wait_until(lambda: _holder(bucket.blob(f"on-prism/catalog/{NAME}")) is None)
    again = _copied(started, bucket, "on-prism", tmp_path / "again")
    assert not list(bucket.list_blobs(prefix="tmp-on-prism/"))
    assert len(again.rows("runs")) == 2
    (name,) = again.files.keys() - on_prism.files.keys()  # no other file
    result = json.loads(again.files[name].read_text())
    assert (result["exit_status"], result["reason"]) == (0, "ok")
    archives = result["counts"]["archives"]
    assert (archives["listed"], archives["skipped"], archives["failed"]) == (6, 5, 1)
    assert result["counts"]["recordings"] == 0


def _holder(lock: storage.Blob) -> LockState | None:
    """Returns which run has a catalog's lock."""
    state = decode(lock.download_as_bytes())
    return state if state is not None and state.expires_unix_s else None


# --- what may happen to a job, its launcher and its workers ---------------------------------------


class HeldRun:
    """A run in the middle of its publishing, and what holds it there."""

    def __init__(self, launcher: subprocess.Popen[bytes], held: HeldRequest, err: Path) -> None:
        self.launcher = launcher
        self.held = held
        self._err = err

    def wait(self) -> None:
        """Waits until it is there."""
        wait_until(lambda: self.held.has_come.is_set() or self.launcher.poll() is not None, 200)
        assert self.launcher.poll() is None, self.err

    @property
    def err(self) -> str:
        """What the launcher has said so far."""
        return self._err.read_text()

    @property
    def job_id(self) -> str:
        """The engine's name for the job."""
        found = re.search(r"Created job with id: \[(.+)\]", self.err)
        assert found is not None, self.err
        return found[1]


class Night:
    """Two small calls in a place of their own, and the runs over them."""

    def __init__(
        self, cluster: PrismCluster, bucket: storage.Bucket, name: str, flags: Sequence[str] = ()
    ) -> None:
        self._cluster = cluster
        self._bucket = bucket
        self._flags = flags or cluster.flags
        self.name = name
        for call in ("first", "second"):
            people = [Participant(participant_id="alice", segments=[_talk(300)])]
            data = make_call_archive(people, call_id=call, call_session_id=call)
            bucket.blob(f"{name}-raw/{call}.tar.gz").upload_from_string(data)
        self.catalog = f"gs://{bucket.name}/{name}/catalog"
        profile = cluster.folder / "short-lease.toml"
        profile.write_text(f"[limits]\nlock_seconds = {LEASE_SECONDS}\n")
        place = f"gs://{bucket.name}/{name}"
        self._command = (
            *("run", "--input", f"{place}-raw/*", "--output", place, "--config", profile),
            *("--temp_location", f"{place}-tmp", *self._flags),
        )

    @contextmanager
    def held(
        self, what: str = "recordings/", meanwhile: Callable[[], None] | None = None
    ) -> Iterator[HeldRun]:
        """Starts a run of which an upload is held, the first one that begins so; its launcher is
        gone when the block ends.

        Args:
          what: how the upload's name begins.
          meanwhile: what is done before it goes on by itself.
        """
        pattern = rf"/upload/.*\b{self.name}/{what}"
        path = self._cluster.folder / f"{self.name}.err"
        faults = self._cluster.faults
        with holding(faults, pattern, meanwhile) as held, open(path, "wb") as err:
            launcher = subprocess.Popen(
                [sys.executable, "-m", "pipelines.cli", *map(str, self._command)],
                stdout=subprocess.DEVNULL,
                stderr=err,
                env={**os.environ, **self._cluster.env},
            )
            try:
                yield HeldRun(launcher, held, path)
            finally:
                launcher.kill()
                launcher.wait()

    def run(self) -> Finished:
        """Runs over both."""
        return callpress_process(*self._command, env=self._cluster.env)

    def run_locally(self, temporary: Path) -> Finished:
        """Runs over both as on another machine: with temporary files elsewhere, where nobody else's
        codec processes take turns.
        """
        command = [part for part in self._command if part not in self._flags]
        return callpress_process(*command, env={**self._cluster.env, "TMPDIR": str(temporary)})

    def names(self, suffix: str = "") -> list[str]:
        """Returns the objects of this place, or of one beside it."""
        prefix = f"{self.name}{suffix}/"
        return [blob.name.removeprefix(prefix) for blob in self._bucket.list_blobs(prefix=prefix)]

    def results(self) -> list[dict[str, Any]]:
        """Returns what runs have left in the catalog, the oldest first."""
        return [
            json.loads(self._bucket.blob(f"{self.name}/{name}").download_as_bytes())
            for name in self.names()
            if name.startswith("catalog/results/")
        ]

    def lock(self) -> LockState | None:
        """Returns who has the catalog's lock."""
        return _holder(self._lock())

    def lock_age_seconds(self) -> float:
        """Returns how long ago the lock was last renewed."""
        blob = self._lock()
        blob.reload()
        return (datetime.now(UTC) - blob.updated).total_seconds()

    def write_lock(self, state: LockState) -> None:
        """Gives the lock to another run."""
        self._lock().upload_from_string(json.dumps(asdict(state)))

    def _lock(self) -> storage.Blob:
        return self._bucket.blob(f"{self.name}/catalog/{NAME}")

    def check_whole(self, of_a_loser: str = "none") -> None:
        """All is published once, and nothing else is there, but for what a run staged after another
        had taken its place.
        """
        assert len([name for name in self.names() if name.startswith("recordings/")]) == 4
        assert [name for name in self.names("-tmp") if of_a_loser not in name] == []
        assert self.lock() is None


def _check_told_in_lines(status: int, err: str, *parts: str) -> None:
    assert status == 1, err
    assert "Traceback" not in err
    assert "bug" not in err
    for part in parts:
        assert re.search(part, err), err


def test_job_goes_on_without_its_launcher_and_a_rival_is_refused(
    cluster: PrismCluster, bucket: storage.Bucket
) -> None:
    night = Night(cluster, bucket, "alone")
    with night.held() as run:
        run.wait()
        run.launcher.kill()
        holder = night.lock()
        assert holder is not None

        rival = night.run()

        _check_told_in_lines(rival.status, rival.err, f"run {holder.run_id} .*holds the catalog")
        run.held.let_go()
        wait_until(night.results)
        wait_until(lambda: night.lock() is None)

    (result,) = night.results()
    assert (result["run_id"], result["reason"]) == (holder.run_id, "ok")
    assert result["counts"]["recordings"] == 4
    night.check_whole()
    told = callpress_process("runs", "--catalog", night.catalog, "--json", env=cluster.env)
    assert [run["run_id"] for run in json.loads(told.out)["runs"]] == [holder.run_id]


def test_job_that_was_translated_for_dataflow_is_another_run_each_time(
    cluster: PrismCluster, bucket: storage.Bucket
) -> None:
    """A template is one job, which is started night by night."""
    places = (
        f"--staging_location=gs://{BUCKET}/code",
        f"--template_location=gs://{BUCKET}/templates/nightly",
    )
    others = [flag for flag in DATAFLOW if not flag.startswith(("--temp", "--staging"))]
    lean = "--experiments=disable_logging_submission_environment"  # without `pip freeze`
    night = Night(cluster, bucket, "nightly", (*others, *places, lean))
    written = night.run()
    assert written.status == 0, written.err
    assert night.names() == []
    (job,) = (
        blob.download_as_bytes()
        for blob in bucket.list_blobs(prefix="code/")
        if blob.name.endswith("/pipeline.pb")
    )

    states = cluster.submit(job, 2)

    assert states == ["DONE", "DONE"]
    first, second = night.results()
    assert first["run_id"] != second["run_id"]
    assert first["finished_at"] < second["started_at"]
    assert (first["counts"]["archives"]["ok"], first["counts"]["recordings"]) == (2, 4)
    assert (second["counts"]["archives"]["skipped"], second["counts"]["recordings"]) == (2, 0)
    night.check_whole()


def test_run_that_slept_past_its_lease_publishes_no_more(
    cluster: PrismCluster, bucket: storage.Bucket, tmp_path: Path
) -> None:
    night = Night(cluster, bucket, "slept")
    with night.held() as run:
        run.wait()
        worker = cluster.worker_of(run.job_id)
        os.kill(worker, signal.SIGSTOP)
        try:
            holder = night.lock()
            assert holder is not None
            wait_until(lambda: night.lock_age_seconds() > LEASE_SECONDS)
            rival = night.run_locally(tmp_path)
            assert rival.status == 0, rival.err
        finally:
            os.kill(worker, signal.SIGCONT)
        run.held.let_go()
        status = run.launcher.wait(timeout=60)

    _check_told_in_lines(status, run.err, f"run {holder.run_id} lost the catalog's lock")
    (result,) = night.results()
    assert result["run_id"] != holder.run_id
    night.check_whole(of_a_loser=holder.run_id)


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a launcher ended."""

    night: Night
    status: int
    err: str


def _delete(bucket: storage.Bucket) -> bool:
    """Deletes a bucket and all in it; returns whether it is gone: a job at work may still write."""
    try:
        bucket.delete(force=True)
    except PreconditionFailed:
        return False
    return True


@pytest.fixture(scope="module")
def ends(cluster: PrismCluster, bucket: storage.Bucket) -> dict[str, Ended]:
    """Runs that something happens to in the middle, all at the same time."""
    gone = bucket.client.create_bucket("gone")
    nights = {name: Night(cluster, bucket, name) for name in ("lost", "cancelled", "stopped")}
    nights["gone"] = Night(cluster, gone, "gone")
    nights["own"] = Night(cluster, bucket, "own", cluster.own_flags)
    late = Night(cluster, bucket, "late")
    faster = LockState(run_id="faster", host="elsewhere", expires_unix_s=time.time() + 900)
    with ExitStack() as stack:
        runs = {name: stack.enter_context(night.held()) for name, night in nights.items()}
        overtaken = stack.enter_context(
            late.held(f"catalog/{NAME}", lambda: late.write_lock(faster))
        )
        for run in runs.values():
            run.wait()
        os.kill(cluster.worker_of(runs["lost"].job_id), signal.SIGKILL)
        cluster.cancel(runs["cancelled"].job_id)
        runs["stopped"].launcher.send_signal(signal.SIGTERM)
        runs["own"].launcher.send_signal(signal.SIGTERM)
        wait_until(lambda: _delete(gone))
        runs["gone"].held.let_go()
        return {
            name: Ended(night=night, status=run.launcher.wait(timeout=60), err=run.err)
            for name, night, run in (
                *((name, night, runs[name]) for name, night in nights.items()),
                ("late", late, overtaken),
            )
        }


def test_lost_worker_is_told_and_the_next_run_goes_on(ends: dict[str, Ended]) -> None:
    lost = ends["lost"]

    _check_told_in_lines(lost.status, lost.err, r"run \S+ failed: .*a worker was lost")
    again = lost.night.run()
    assert again.status == 0, again.err
    lost.night.check_whole()


def test_job_that_somebody_else_cancelled_is_told(ends: dict[str, Ended]) -> None:
    cancelled = ends["cancelled"]

    _check_told_in_lines(cancelled.status, cancelled.err, "cancelled, and not by this command")


def test_bucket_that_is_deleted_under_a_job_is_told(ends: dict[str, Ended]) -> None:
    gone = ends["gone"]

    # Whichever misses it first: a step that reads or writes, or the look at the lock.
    lost = r"lost the catalog's lock gs://gone/\S+ \(it is gone\)"
    what = rf"run \S+ failed: (gs://gone/.*HTTP status 404|run \S+ {lost})"
    _check_told_in_lines(gone.status, gone.err, what)


def test_rival_that_was_faster_is_named_as_on_the_local_engine(ends: dict[str, Ended]) -> None:
    late = ends["late"]

    _check_told_in_lines(late.status, late.err)
    assert late.err.splitlines()[-1].startswith(
        "callpress: run faster on elsewhere holds the catalog's lock gs://calls/late/"
    )


@pytest.mark.parametrize("name", ["stopped", "own"])
def test_stopped_launcher_has_the_job_cancelled_and_says_what_it_saw(
    ends: dict[str, Ended], name: str
) -> None:
    stopped = ends[name]

    assert stopped.status == 128 + signal.SIGTERM
    assert "is in state CANCELLED" in stopped.err
    assert "The same command again takes up the calls that are finished" in stopped.err
    assert "not known" not in stopped.err
    assert "Traceback" not in stopped.err

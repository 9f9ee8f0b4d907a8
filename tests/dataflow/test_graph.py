"""The graph that Dataflow is given: the names of its steps, where it is cut into stages, and what
its workers are given beside.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.portability import common_urns
from apache_beam.runners.portability.fn_api_runner import FnApiRunner

import transforms
from pipelines import manifests
from pipelines.options import RunArguments, parse_arguments
from pipelines.places import places_of
from tests.support.storage_servers import running_emulator
from tests.support.translation import BUCKET, payloads, steps_behind, translate
from transforms.bounds import Bounds
from transforms.context import JobSettings
from transforms.filters import Filters
from transforms.media.settings import CompositeSettings, PressSettings
from transforms.sources.manifests.reading import ManifestSource
from transforms.sources.own_files import is_our_own
from transforms.storage.storage_options import StorageOptions
from transforms.targets import Notify, Target, TargetKind

Proto = Any
"""A job: Beam's messages have no types that can be checked."""
STEPS = Path(__file__).parents[1] / "data" / "dataflow_steps.txt"
STEPS_OF_MANIFESTS = STEPS.with_name("dataflow_steps_of_manifests.txt")
STEPS_OF_NOTICES = STEPS.with_name("dataflow_steps_of_notices.txt")
JOB = JobSettings(
    output_uri=f"gs://{BUCKET}/pressed",
    catalog_uri=f"gs://{BUCKET}/pressed/catalog",
    settings=PressSettings(),
    filters=Filters(since="36h"),
    overwrite=False,
    bounds=Bounds(max_archives=10_000),
    staging_root=f"gs://{BUCKET}/tmp/callpress-0123456789ab",
    fails_unattended=True,
)
"""Of a night, with what adds steps to it."""
PATTERNS = (f"gs://{BUCKET}/raw/**.tar.gz", f"gs://{BUCKET}/raw/**.zip")


@pytest.fixture(scope="module")
def _bucket() -> Iterator[None]:
    """Beam looks at the place of temporary files, whatever becomes of the job."""
    with running_emulator(BUCKET) as url, pytest.MonkeyPatch.context() as patch:
        patch.setenv("STORAGE_EMULATOR_HOST", url)
        patch.setenv("NO_GCE_CHECK", "true")
        yield


@pytest.fixture(scope="module")
def proto(_bucket: None) -> Proto:
    return translate(PATTERNS, JOB)


@pytest.fixture(scope="module")
def much(_bucket: None) -> Proto:
    """The same with long names, and forty calls and ten people to be found again."""
    calls = tuple(f"default:{uuid.UUID(int=number * 2**100 + number)}" for number in range(40))
    job = replace(
        JOB,
        settings=replace(PressSettings(), composite=CompositeSettings(enabled=False)),
        filters=Filters(calls=calls, participants=calls[:10], since="36h"),
        bounds=Bounds(max_archives=10_000, max_bytes=10**12, stop_after_seconds=18_000),
        catalog_uri=JOB.catalog_uri + "/a/longer/name" * 10,
    )
    return translate(PATTERNS, job)


# --- names ----------------------------------------------------------------------------------------


def _our_names(proto: Proto) -> list[str]:
    """Returns the names of the steps that we gave; not what Beam's own are made of."""
    for module in pkgutil.walk_packages(transforms.__path__, "transforms."):
        if not module.name.startswith("transforms.media"):
            importlib.import_module(module.name)
    ours = {
        kind.__name__
        for kind in beam.PTransform.__subclasses__()
        if kind.__module__.startswith("transforms.")
    }
    steps = proto.components.transforms
    found = []

    def walk(key: str) -> None:
        for child in steps[key].subtransforms:
            found.append(steps[child].unique_name)
            label = re.match(rb"<(\w+)\(PTransform\)", steps[child].spec.payload)
            if label and label[1].decode() in ours:
                walk(child)

    (root,) = proto.root_transform_ids
    walk(root)
    return found


def test_steps_have_the_names_that_dashboards_know(proto: Proto) -> None:
    """A name that changes is a break for whoever watches a step by it: it goes into CHANGELOG.md,
    and into the list.
    """
    assert sorted(_our_names(proto)) == STEPS.read_text().splitlines()


@pytest.fixture(scope="module")
def named(_bucket: None) -> Proto:
    """With manifests and copies."""
    source = ManifestSource(where=f"gs://{BUCKET}/listing.json", shown="listing.json")
    copies = f"gs://{BUCKET}/copies"
    return translate(PATTERNS, replace(JOB, manifests=(source,), copy_raw_uri=copies))


def test_run_over_manifests_has_more_steps_with_names_that_stay(proto: Proto, named: Proto) -> None:
    names, of_named = set(_our_names(proto)), set(_our_names(named))

    assert names <= of_named
    assert sorted(of_named - names) == STEPS_OF_MANIFESTS.read_text().splitlines()
    for name in of_named:
        assert re.fullmatch(r"[A-Z][A-Za-z]+(/[A-Z][A-Za-z]+)*", name), name


@pytest.fixture(scope="module")
def told(_bucket: None) -> Proto:
    """With somebody who is told."""
    target = Target(name="crm", kind=TargetKind.HTTPS, place="https://crm.test/hook")
    return translate(PATTERNS, replace(JOB, notify=Notify(targets=(target,))))


def test_run_that_tells_somebody_has_more_steps_with_names_that_stay(
    proto: Proto, told: Proto
) -> None:
    names, of_told = set(_our_names(proto)), set(_our_names(told))

    assert names <= of_told
    assert sorted(of_told - names) == STEPS_OF_NOTICES.read_text().splitlines()
    for before, behind in (("Notices", "Calls"), ("Calls", "Archives"), ("Archives", "Old")):
        assert f"WriteCatalog/MergeRows/Plan{behind}" in steps_behind(
            told, f"WriteCatalog/MergeRows/TakeAway{before}"
        )
    assert "WriteCatalog/WriteRun" in steps_behind(told, "WriteCatalog/TellNotices/Tell")
    for before in ("MergeRows/DeleteOldFiles", "MergeRows/SettleCalls", "MergeRows/TellOfThem"):
        assert "WriteCatalog/TellNotices/Tell" in steps_behind(told, f"WriteCatalog/{before}")


@pytest.mark.usefixtures("_bucket")
def test_no_signature_is_in_a_job(tmp_path: Path) -> None:
    """What was asked for by links goes by way of staging."""
    link = "https://files.test/a.tar.gz?X-Amz-Signature=PLANTEDSIGNATURE"
    arguments = parse_arguments(
        ["run", "--input", link, "--manifest", f"{link}&of=manifest", "--output", str(tmp_path)]
    )
    assert isinstance(arguments, RunArguments)
    where = replace(places_of(arguments), manifests=())
    root = tmp_path / "callpress-0123456789ab"

    staged = manifests.stage(where, str(root), reads_files=False)

    assert Path(staged[0].where).read_text() == f"{link}\n"
    assert is_our_own(staged[0].where)
    assert "PLANTED" not in repr((staged, places_of(arguments)))
    hosts = manifests.hosts_of(places_of(arguments))
    assert hosts == {"files.test:443"}
    options = StorageOptions(named_hosts=hosts)
    job = translate(PATTERNS, replace(JOB, manifests=staged, storage_options=options))
    assert b"PLANTED" not in job.SerializeToString()
    assert not [each.step for each in payloads(job) if b"PLANTED" in each.content]


@pytest.mark.parametrize("given", ["events", "events/", "ev*/*", "events/[ab].json"])
def test_folder_of_manifests_is_staged_whole(given: str, tmp_path: Path) -> None:
    """Workers elsewhere do not see this machine's disks."""
    (tmp_path / "events").mkdir()
    for name in ("a.json", "b.json"):
        (tmp_path / "events" / name).write_text("https://files.test/" + name)
    flags = ["--manifest", f"{tmp_path}/{given}", "--output", str(tmp_path / "out")]
    arguments = parse_arguments(["run", *flags])
    assert isinstance(arguments, RunArguments)

    (staged,) = manifests.stage(places_of(arguments), str(tmp_path / "root"), reads_files=False)

    files = [path for path in Path(staged.where).rglob("*") if path.is_file()]
    shown = {staged.shown + str(path)[len(staged.where) :] for path in files}
    assert shown == {f"{tmp_path}/events/{name}" for name in ("a.json", "b.json")}


def test_names_can_be_read_and_are_unique(proto: Proto) -> None:
    names = _our_names(proto)

    assert len(set(names)) == len(names) > 150
    for name in names:
        assert re.fullmatch(r"[A-Z][A-Za-z]+(/[A-Z][A-Za-z]+)*", name), name


def test_run_that_names_calls_has_the_same_steps_but_for_those_of_names(
    proto: Proto, much: Proto
) -> None:
    names, of_named = set(_our_names(proto)), set(_our_names(much))

    assert {name.split("/")[0] for name in of_named - names} == {"MatchFilters", "PartsToMatch"}
    # Such a run is not about the night, nor about what waits for it.
    waiting = ("FindWaiting", "ListedAndWaiting", "Start")
    assert names - of_named == {f"ListArchives/{step}" for step in waiting}


# --- stages ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stage_of(proto: Proto) -> dict[str, int]:
    """The number of the stage that each step is fused into, by Beam's own fusion: its engines make
    one piece of all that nothing divides.
    """
    _, stages = FnApiRunner().create_stages(proto)
    return {
        re.sub(r"/ParDo\(\w+\)$", "", step.unique_name): number
        for number, stage in enumerate(stages)
        for step in stage.transforms
    }


CUTS = [
    # The run is named once, whatever is done again behind it.
    ("BeginRun/NameRun", "BeginRun/TakeLock"),
    ("BeginRun/TakeLock", "TakeUpCompleted/LookAtCalls"),
    # Patterns are listed side by side, archives looked at side by side.
    ("ListArchives/Patterns/FlatMap(<lambda at core.py:4094>)", "ListArchives/ListPattern"),
    ("ListArchives/ListPattern", "ListArchives/Fingerprint"),
    # One worker puts a night in order; all unpack it.
    ("ChooseArchives/Choose", "UnpackArchives/Unpack"),
    ("SkipProcessed/Compare", "UnpackArchives/Unpack"),
    ("FindRecalled/FindArchive", "UnpackRecalled/Unpack"),
    # A large archive's tracks are spread over workers, and kept where one is done again.
    ("UnpackArchives/Unpack", "PlanCalls/Plan"),
    ("UnpackArchives/Unpack", "ExtractTracks/Extract"),
    ("PlanCalls/Plan", "ExtractTracks/Extract"),
    ("ExtractTracks/Extract", "MixCalls/Mix"),
    ("MixCalls/Mix", "RecordArchives/Record"),
    # Tables are read and merged shard by shard.
    ("FindPriorRows/ListFiles", "FindPriorRows/ScanFile"),
    ("FindPriorArchives/ListFiles", "FindPriorArchives/ScanFile"),
    ("MixCalls/Mix", "WriteCatalog/MergeRows/PlanCalls"),
    *(
        cut
        for of in ("Calls", "Archives", "Old")
        for cut in (
            (f"WriteCatalog/MergeRows/Plan{of}", f"WriteCatalog/MergeRows/Merge{of}"),
            (f"WriteCatalog/MergeRows/Merge{of}", f"WriteCatalog/MergeRows/TakeAway{of}"),
        )
    ),
    # What the run leaves is there before the lock is given back, and what ends it comes after all.
    ("WriteCatalog/WriteRun", "WriteCatalog/GiveBackLock"),
    ("WriteCatalog/SweepStaging/ListObjects", "WriteCatalog/SweepStaging/DeleteObjects"),
    ("WriteCatalog/GiveBackLock", "WriteCatalog/EndAsItWent"),
]


@pytest.mark.parametrize(("before", "behind"), CUTS)
def test_stage_ends_between(before: str, behind: str, stage_of: dict[str, int]) -> None:
    assert stage_of[before] != stage_of[behind]


HEAVY = (
    "ListArchives/Fingerprint",
    "UnpackArchives/Unpack",
    "UnpackRecalled/Unpack",
    "FindPriorRows/ScanFile",
    "FindPriorArchives/ScanFile",
    "ExtractTracks/Extract",
    "MixCalls/Mix",
    "WriteCatalog/MergeRows/MergeCalls",
    "WriteCatalog/MergeRows/MergeArchives",
    "WriteCatalog/MergeRows/MergeOld",
)


def test_heavy_work_is_spread_over_workers(proto: Proto, stage_of: dict[str, int]) -> None:
    """Each is a stage of its own, and none in one that begins with an element for one worker."""
    stages = {step: stage_of[step] for step in HEAVY}
    of_one_worker = {
        stage_of[step.unique_name]
        for step in proto.components.transforms.values()
        if step.spec.urn == common_urns.primitives.IMPULSE.urn
    }

    assert len(set(stages.values())) == len(stages)
    assert not of_one_worker & set(stages.values())


# --- what workers are given -----------------------------------------------------------------------


def test_nothing_is_staged_beside_the_job(proto: Proto) -> None:
    """No main session, which Beam would stage for Dataflow unless told not to."""
    (environment,) = proto.components.environments.values()

    assert not environment.dependencies


def test_payloads_stay_small_where_much_is_asked_for(much: Proto) -> None:
    """Each step has all that was asked for, once."""
    size, step = max((len(each.stored), each.step) for each in payloads(much))

    assert size <= 10_000, (size, step)

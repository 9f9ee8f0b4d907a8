"""What a night would cost: the model's sums, and where its figures come from."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from benchmarks.operations import INPUTS, classify, machine_figures
from benchmarks.scale_model import CLASS_A, SIZES, Assumptions, ScaleModel, table_of
from tests.support.storage_proxy import Exchange
from transforms.catalog.schema import TABLES

STORED = json.loads(INPUTS.read_text(encoding="utf-8"))
MODEL = ScaleModel(STORED, Assumptions())


def test_cpu_and_memory_are_those_of_the_last_table() -> None:
    assert STORED["machine"] == machine_figures()


def test_counts_of_requests_are_whole_for_each_archive_and_run() -> None:
    store = STORED["store"]
    assert store["rows_per_archive"].keys() == set(TABLES)
    for counts in (store["per_archive"], store["per_run"], store["nothing_new"]):
        found = {key: much for key, much in counts.items() if key.endswith(" requests")}
        assert found
        assert all(much == int(much) and much >= 0 for much in found.values()), found
    # Three tracks: packets, index and rows of each are staged, its file is written once.
    assert store["per_archive"]["write mkv requests"] == store["speakers"]
    assert store["per_archive"]["write mp3 requests"] == 1
    assert (
        store["per_archive"]["write staging requests"]
        == store["per_archive"]["delete staging requests"]
    )


@pytest.mark.parametrize("archives", SIZES)
def test_twice_the_archives_cost_twice(archives: int) -> None:
    once, twice = MODEL.estimate(archives), MODEL.estimate(2 * archives)
    assert twice.cpu_hours == pytest.approx(2 * once.cpu_hours)
    assert twice.size_bytes == pytest.approx({k: 2 * v for k, v in once.size_bytes.items()})
    for key in ("write staging", "read staging", "delete staging", "read archives", "write mkv"):
        assert twice.requests[key] == pytest.approx(2 * once.requests[key])
    # Not the merging: more bundles, and more shards that each read them.
    assert twice.requests["read bundles"] >= 2 * once.requests["read bundles"]


@pytest.mark.parametrize("archives", SIZES)
def test_totals_are_the_sums_of_their_parts_and_the_night_is_done_in_time(archives: int) -> None:
    found = MODEL.estimate(archives)
    kinds = (*CLASS_A, "read", "delete")
    assert sum(map(found.total, kinds)) == pytest.approx(sum(found.requests.values()))
    assert found.wall_hours <= MODEL.assumed.hours
    assert found.cpu_hours <= found.workers * MODEL.assumed.cores * found.wall_hours
    if found.workers > 1:
        fewer = found.cpu_hours / ((found.workers - 1) * MODEL.assumed.cores)
        assert fewer > found.wall_hours * 0.8


def test_the_call_of_the_benchmark_gives_what_was_counted_of_it() -> None:
    store = STORED["store"]
    same = Assumptions(people=int(store["speakers"]), minutes=store["minutes"])
    found = ScaleModel(STORED, same).estimate(1_000)
    for key in ("write staging", "read staging", "write mkv", "write mp3", "read archives"):
        assert found.requests[key] == pytest.approx(
            1_000 * store["per_archive"][f"{key} requests"]
        ), key
        assert found.size_bytes[key] == pytest.approx(
            1_000 * store["per_archive"][f"{key} bytes"]
        ), key


def test_merging_reads_a_bundle_as_often_as_was_counted() -> None:
    store = STORED["store"]
    few = ScaleModel(STORED, Assumptions(people=int(store["speakers"]), minutes=store["minutes"]))
    # All calls of such a night are in one bundle; of the others of the run one is read once.
    assert few.merge_reads(store["archives"][0]) == store["per_run"]["read staging requests"] - 1


def test_silence_costs_less_and_more_people_cost_more() -> None:
    base = MODEL.estimate(10_000)
    quiet = ScaleModel(STORED, replace(MODEL.assumed, has_dtx=True)).estimate(10_000)
    crowd = ScaleModel(STORED, replace(MODEL.assumed, people=8)).estimate(10_000)
    assert quiet.cpu_hours < base.cpu_hours < crowd.cpu_hours
    assert quiet.size_bytes["read archives"] < base.size_bytes["read archives"]


def test_what_breaks_is_told_from_the_first_on() -> None:
    found = sorted(MODEL.breaks())
    lines = [line for _, line in found]
    assert any("24 h x 200 people" in line for line in lines)
    assert any("a million rows" in line for line in lines)
    assert any("listed for more than 10 minutes" in line for line in lines)
    at = [archives for archives, _ in found]
    assert at == sorted(at)
    table = table_of(MODEL, SIZES)
    assert len(table.columns) == 1 + len(SIZES)


@pytest.mark.parametrize(
    ("request_line", "sent", "expected"),
    [
        ("GET /storage/v1/b/calls/o?prefix=raw/&fields=a ", b"", ("list", "archives", 1, 2)),
        ("GET /download/storage/v1/b/calls/o/raw/a?alt=media ", b"", ("read", "archives", 1, 2)),
        ("DELETE /storage/v1/b/calls/o/out/catalog/runs/a ", b"", ("delete", "tables", 1, 0)),
        (
            "POST /upload/storage/v1/b/calls/o?uploadType=multipart out/recordings/a.mkv",
            b'--=1=\r\ncontent-type: application/json\r\n\r\n{"name": "out/recordings/a.mkv"}\r\n'
            b"--=1=\r\ncontent-type: video/x-matroska\r\n\r\nabcdef\r\n--=1=--",
            ("write", "mkv", 1, 6),
        ),
        ("PUT /upload/storage/v1/b/calls/o?name=out/a.mp3 ", b"abc", ("write", "mp3", 0, 3)),
        (
            "POST /batch/storage/v1 ",
            b"DELETE http://h/storage/v1/b/calls/o/tmp%2Fa HTTP/1.1\r\n"
            b"DELETE http://h/storage/v1/b/calls/o/tmp%2Fb HTTP/1.1\r\n",
            ("delete", "staging", 2, 0),
        ),
    ],
    ids=["list", "read", "delete", "upload", "resumed upload", "batch"],
)  # fmt: skip
def test_requests_are_counted_by_kind_and_place(
    request_line: str, sent: bytes, expected: tuple[str, str, int, int]
) -> None:
    assert classify(Exchange(request=request_line, sent=sent, received=b"{}")) == expected

"""From a bucket of S3 into a container of Azure, catalog and staging there too."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.cloud_servers import CloudServer, client_with_faults
from tests.support.command import SAMPLE, callpress_process, decode_with_ffmpeg, query
from tests.support.storage_proxy import Faults, proxied
from transforms.storage import objects


def _copy_down(place: str, folder: Path) -> dict[str, Path]:
    found = {}
    for listed in objects.list_below(place):
        path = folder / listed.path.removeprefix(place + "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(objects.read_bytes(listed.path))
        found[listed.path] = path
    return found


@pytest.mark.slow
def test_sample_from_s3_into_azure(
    moto: CloudServer, azurite: CloudServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = f"{azurite.base}calls/end to end/pressed"
    with (
        client_with_faults(moto, monkeypatch),
        client_with_faults(azurite, monkeypatch),
        proxied(moto.url, at_moto := Faults()) as s3_url,
        proxied(azurite.url, Faults()) as azure_url,
    ):
        objects.write_bytes("s3://calls/end to end/sync #1.tar.gz", SAMPLE.read_bytes())
        run = (
            "run", "--input", "s3://calls/end to end/*.tar.gz", "--output", output,
            f"--temp_location={azurite.base}calls/end to end/staging",
        )  # fmt: skip
        environment = {**moto.environment(s3_url), **azurite.environment(azure_url)}

        first = callpress_process(*run, env=environment)

        assert first.status == 0, first.err + first.out
        assert at_moto.counts["requests"] <= 6  # listed, looked at, read
        files = _copy_down(output, tmp_path / "one")
        rows = query(tmp_path / "one" / "catalog", "recordings")
        assert len(rows) == 6
        for row in rows:
            assert files[row["uri"]].stat().st_size == row["size_bytes"]
            sound = decode_with_ffmpeg(files[row["uri"]], row["channels"])
            assert len(sound) == row["duration_samples"]
        (archive,) = query(tmp_path / "one" / "catalog", "archives")
        assert archive["archive_uri"] == "s3://calls/end to end/sync #1.tar.gz"
        assert objects.list_below(f"{azurite.base}calls/end to end/staging") == []
        (result,) = [name for name in files if "/catalog/results/" in name]
        text = files[result].read_text()
        assert json.loads(text)["counts"]["recordings"] == len(rows)
        for key in ("AZURE_STORAGE_KEY", "AWS_SECRET_ACCESS_KEY"):
            assert environment[key] not in first.out + first.err + text

        second = callpress_process(*run, env=environment)

        assert second.status == 0, second.err + second.out
        assert "1 skipped" in second.out
        done = callpress_process("verify", "--catalog", f"{output}/catalog", env=environment)
        assert done.status == 0, done.err + done.out

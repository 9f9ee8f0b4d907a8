"""The stamp: a worker of another version is told before anything of the job is done."""

from __future__ import annotations

import hashlib
import pickle
import sys
import traceback
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import apache_beam as beam
import pytest
from apache_beam.internal import cloudpickle_pickler
from apache_beam.runners.portability.fn_api_runner import FnApiRunner

from pipelines.runners.job_errors import error_of
from tests.support.job_run import JobRun
from transforms import stamp
from transforms.begin_run import BeginRun
from transforms.locking import lock
from transforms.media.errors import ConfigError
from transforms.stamp import ImageTag, OtherVersionError, Stamp, own_stamp, parse_image_tag

PINS = Path(__file__).parents[2] / "configs" / "worker-requirements.txt"


def _become(monkeypatch: pytest.MonkeyPatch, other: Stamp) -> None:
    """Makes this process one with another stamp."""
    monkeypatch.setattr(stamp, "own_stamp", lambda: other)


def test_own_stamp_is_what_is_installed() -> None:
    own = own_stamp()

    assert own.callpress == version("callpress")
    assert own.python == f"{sys.version_info.major}.{sys.version_info.minor}"
    assert own.beam == beam.__version__
    assert own.pins == hashlib.sha256(PINS.read_bytes()).hexdigest()[:8]


def test_pins_are_installed_with_the_program_and_name_beam() -> None:
    assert Path(stamp.pins_path()).read_bytes() == PINS.read_bytes()
    assert f"\napache-beam=={stamp.pinned_beam()}" in PINS.read_text().replace("[gcp]", "")


# --- tags of images -------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["0.1.0", "1.2.3rc1", "0.2.0.dev3+g1a2b3c4"])
def test_image_tag_is_made_and_read(version: str) -> None:
    own = replace(own_stamp(), callpress=version, python="3.12", pins="1a2b3c4d")

    assert str(own.image_tag) == f"{version.replace('+', '_')}-py3.12-1a2b3c4d"
    assert parse_image_tag(str(own.image_tag)) == own.image_tag


def test_image_tag_has_its_parts() -> None:
    assert parse_image_tag("0.1.0-py3.11-1a2b3c4d") == ImageTag(
        callpress="0.1.0", python="3.11", pins="1a2b3c4d"
    )


@pytest.mark.parametrize(
    "tag",
    [
        "latest",
        "0.1.0",
        "0.1.0-py3.11",
        "0.1.0-py3.11-1A2B3C4D",
        "0.1.0-py3.11-1a2b3c4d5",
        "",
        "x-",
    ],
)
def test_tag_of_others_says_nothing(tag: str) -> None:
    assert parse_image_tag(tag) is None


# --- workers --------------------------------------------------------------------------------------


def test_settings_of_a_job_come_through_where_nothing_differs(context: JobRun) -> None:
    for library in (pickle, cloudpickle_pickler):
        assert library.loads(library.dumps(context.job)) == context.job


@pytest.mark.parametrize(
    ("changed", "differs"),
    [
        ({"callpress": "0.0.9"}, "callpress is 0.0.9 on the worker, "),
        ({"python": "3.99"}, "Python is 3.99 on the worker, 3."),
        ({"beam": "2.70.0"}, "Beam is 2.70.0 on the worker, 2."),
        ({"pins": "00000000"}, "worker-requirements.txt is 00000000 on the worker, "),
    ],
    ids=["callpress", "python", "beam", "pins"],
)
def test_worker_of_another_version_is_told_before_the_lock_is_taken(
    changed: dict[str, str], differs: str, context: JobRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = own_stamp()
    pipeline = beam.Pipeline(runner=FnApiRunner())
    _ = pipeline | BeginRun(context.changed(is_one_process=False).job)
    _become(monkeypatch, replace(own, **changed))

    with pytest.raises(OtherVersionError) as raised:
        pipeline.run()

    # As a launcher elsewhere makes it of an engine's text.
    error = error_of("".join(traceback.format_exception(raised.value)))
    assert isinstance(error, OtherVersionError)
    assert str(error).startswith(differs)
    assert str(error).endswith(
        " where the job was started: start the job with what the workers have, or give them the "
        f"image with the tag {own.image_tag} (--sdk_container_image)"
    )
    assert lock.look(context.job.catalog_uri) is None


def test_stamp_is_unpickled_before_all_else_of_the_settings(
    context: JobRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rest may not be what this version can read: fields and classes come and go."""
    data = pickle.dumps(context.job)
    data = data.replace(b"transforms.media.settings", b"transforms.media.settingz")
    with pytest.raises(ModuleNotFoundError):
        pickle.loads(data)
    _become(monkeypatch, replace(own_stamp(), callpress="0.0.9"))

    with pytest.raises(OtherVersionError, match=r"^callpress is 0\.0\.9 on the worker, "):
        pickle.loads(data)


def test_all_that_differs_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    launcher = pickle.dumps(own_stamp())
    other = Stamp(callpress="9.0", python="3.99", pins="00000000", beam="9.9")
    _become(monkeypatch, other)

    with pytest.raises(ConfigError, match=r"^callpress .*; Python .*; Beam .*; worker-req") as told:
        pickle.loads(launcher)

    assert str(told.value).count("on the worker") == 4

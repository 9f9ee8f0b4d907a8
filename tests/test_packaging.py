"""What is installed works without a checkout: built and installed as pip does, away from here."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.command import DTX_STALLS, SAMPLE
from tests.support.pinned_environment import pinned_environment
from tests.test_architecture import MODULES
from transforms.stamp import PINS, own_stamp

ROOT = Path(__file__).parents[1]
OURS = ("configs", "pipelines", "transforms")

pytestmark = pytest.mark.slow


@dataclass(frozen=True, kw_only=True)
class Installed:
    """An environment with the program in it, and a folder that has nothing to do with it."""

    python: Path
    elsewhere: Path

    def run(self, *command: object) -> str:
        """Returns what a command prints that runs in the other folder; it must end well."""
        return _run(self.elsewhere, self.python.parent / str(command[0]), *command[1:])


def _run(folder: Path, *command: object) -> str:
    done = subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        env={"PATH": "/usr/bin:/bin", "HOME": str(folder)},  # no PYTHONPATH to this checkout
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """The source distribution of this checkout, in an environment of its own, installed by the step
    of the image. It borrows a worker's pinned dependencies, and nothing else: none of the tests'.
    """
    folder = tmp_path_factory.mktemp("packaging")
    source, built, elsewhere = folder / "source", folder / "built", folder / "elsewhere"
    for path in (source, built, elsewhere):
        path.mkdir()
    for name in (*OURS, "tests", "benchmarks", "setup.py", "pyproject.toml", "README.md"):
        # Not in place: what an earlier build left in the checkout would be taken as well.
        _run(ROOT, "cp", "-r", name, source)
    make = f"from setuptools.build_meta import build_sdist; build_sdist({str(built)!r})"
    _run(source, sys.executable, "-c", make)
    (sdist,) = built.iterdir()

    env = folder / "env"
    _run(folder, sys.executable, "-m", "venv", "--without-pip", env)
    (Path(_site_packages(env)) / "borrowed.pth").write_text(_site_packages(pinned_environment()))
    told = _run(elsewhere, ROOT / "scripts" / "image_layers", "program", env, sdist)
    assert told.startswith("No broken requirements found.\ncallpress ")
    return Installed(python=env / "bin" / "python", elsewhere=elsewhere)


def _site_packages(env: Path) -> str:
    return sysconfig.get_path("purelib", "venv", {"base": str(env), "platbase": str(env)})


def test_every_module_of_ours_is_installed_and_no_other(installed: Installed) -> None:
    code = (
        "from importlib.metadata import files\n"
        "for file in files('callpress'):\n"
        "    if file.suffix == '.py': print('.'.join(file.with_suffix('').parts))\n"
    )
    found = set(installed.run("python", "-c", code).split())
    modules = {name for name in found if not name.endswith("__init__")}
    assert modules == set(MODULES)
    assert {name.split(".")[0] for name in found} == set(OURS)


def test_every_module_of_ours_is_imported_from_where_it_is_installed(installed: Installed) -> None:
    code = (
        "import importlib\n"
        f"for name in {sorted([*OURS, 'transforms.media', *MODULES])!r}:\n"
        "    print(importlib.import_module(name).__file__)\n"
    )
    files = installed.run("python", "-c", code).split()
    assert len(files) == len(MODULES) + len(OURS) + 1
    env = installed.python.parents[1]
    assert all(Path(file).is_relative_to(env) for file in files)


def test_profiles_and_requirements_are_installed(installed: Installed) -> None:
    code = (
        "from importlib import resources\n"
        "for file in resources.files('configs').iterdir(): print(file.name)\n"
    )
    found = set(installed.run("python", "-c", code).split()) - {"__init__.py", "__pycache__"}
    shipped = [*(ROOT / "configs").glob("*.toml"), *(ROOT / "configs").glob("*.flags")]
    assert found == {path.name for path in shipped} | {PINS}


def test_command_knows_the_stamp_of_its_workers(installed: Installed) -> None:
    """With the pinned versions that came with it."""
    code = "from transforms.stamp import own_stamp, pins_path; print(own_stamp().pins, pins_path())"
    pins, path = installed.run("python", "-c", code).split()
    assert pins == own_stamp().pins
    assert ROOT not in Path(path).parents


def test_command_tells_its_version(installed: Installed) -> None:
    assert installed.run("callpress", "--version").startswith("callpress ")


def test_command_is_a_module_as_well(installed: Installed) -> None:
    told = installed.run("python", "-m", "pipelines.cli", "--help")
    assert told == installed.run("callpress", "--help")
    assert told.startswith("usage: callpress")


def test_dry_run_takes_a_profile_by_name(installed: Installed) -> None:
    told = installed.run(
        *("callpress", "run", "--dry_run", "--config", "podcast"),
        *("--input", SAMPLE, "--output", installed.elsewhere / "out"),
    )
    assert f"press\tnew\t{SAMPLE.stat().st_size}\t{SAMPLE}\n" in told
    assert not (installed.elsewhere / "out").exists()


def test_recording_is_pressed_by_a_profile_that_is_installed(installed: Installed) -> None:
    """With a worker's libraries alone, as the image, pip and pipx have it."""
    installed.run(
        *("callpress", "run", "--config", "podcast"),
        *("--input", DTX_STALLS, "--output", installed.elsewhere / "pressed"),
    )
    assert list((installed.elsewhere / "pressed").rglob("*.mkv"))


def test_template_is_started_with_what_is_installed(installed: Installed) -> None:
    done = subprocess.run(
        [installed.python, ROOT / "flex_template.py", "--output=gs://pressed"],
        cwd=installed.elsewhere, env={}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (
        2, "callpress: --input or --manifest is required; see callpress --help\n"
    )  # fmt: skip

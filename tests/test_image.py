"""The container image, as far as it goes without an engine that builds one: the files it is made
from, its name, and what it does when it is started. test_packaging.py runs its layers' commands.
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from transforms.stamp import own_stamp, pinned_beam

ROOT = Path(__file__).parents[1]
DOCKERFILE = (ROOT / "Dockerfile").read_text("utf-8")


def test_hadolint_finds_nothing() -> None:
    tools = subprocess.run(
        [ROOT / "scripts" / "tools"], capture_output=True, text=True, check=True
    ).stdout.strip()
    done = subprocess.run(
        [f"{tools}/hadolint", "Dockerfile"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_all_that_is_copied_is_there_and_is_sent() -> None:
    sent = {
        line.removeprefix("!").removesuffix("/**")
        for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines()
        if line.startswith("!")
    }
    copies = re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE)
    sources = [source for copy in copies for source in copy.split()]
    assert "flex_template.py" in sources
    for source in sources:
        assert (ROOT / source).exists(), source
        assert source.partition("/")[0] in sent, source


def test_program_is_installed_from_all_that_it_is_built_from() -> None:
    before = DOCKERFILE[: DOCKERFILE.index("image_layers program")]
    for name in ("setup.py", "pyproject.toml", "configs", "pipelines", "transforms"):
        assert re.search(rf"^COPY (\S+ )*{re.escape(name)} ", before, re.MULTILINE), name


def test_boot_program_is_of_the_pinned_beam() -> None:
    assert f"FROM apache/beam_python3.11_sdk:{pinned_beam()} AS beam\n" in DOCKERFILE


def test_last_stage_compiles_and_fetches_nothing() -> None:
    last = DOCKERFILE[DOCKERFILE.rindex("\nFROM ") :]
    assert last.startswith("\nFROM python:3.11-slim-")
    assert not re.search(r"apt-get|gcc|pip install|curl|wget|ADD ", last)


def test_name_of_the_image_has_the_stamp() -> None:
    done = subprocess.run(
        [ROOT / "scripts" / "image", "--print", "host/repository"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    tag = replace(own_stamp().image_tag, python="3.11")  # whatever Python the tests run on
    assert done.stdout == f"host/repository:{tag}\n"


@pytest.fixture
def programs(tmp_path: Path) -> dict[str, str]:
    """Stand-ins that tell their name and arguments, as the environment of the entry script."""
    for name in ("boot", "launcher", "callpress", "setpriv", "id"):
        program = tmp_path / name
        program.write_text(f'#!/bin/sh\nprintf "%s|" {name} "$@"\n', encoding="utf-8")
        program.chmod(0o755)
    (tmp_path / "id").write_text('#!/bin/sh\necho "$STAND_IN_UID"\n', encoding="utf-8")
    return {
        "PATH": f"{tmp_path}:/usr/bin:/bin",
        "CALLPRESS_BOOT": str(tmp_path / "boot"),
        "CALLPRESS_LAUNCHER": str(tmp_path / "launcher"),
        "STAND_IN_UID": "0",
    }


def _enter(programs: dict[str, str], *arguments: str) -> list[str]:
    done = subprocess.run(
        [ROOT / "scripts" / "container_entry", *arguments],
        env=programs, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout.removesuffix("|").split("|")


@pytest.mark.parametrize(
    ("arguments", "program"),
    [
        (["--id=1-1", "--provision_endpoint=localhost:12371"], "boot"),
        (["--logging_endpoint=localhost:1", "--id=1-1"], "boot"),
        (["--worker_pool"], "boot"),
        ([], "launcher"),
        (["--job=j"], "launcher"),
    ],
    ids=["worker", "worker-other-order", "worker-pool", "launcher", "launcher-arguments"],
)  # fmt: skip
def test_engine_gets_its_program_as_who_it_is(
    programs: dict[str, str], arguments: list[str], program: str
) -> None:
    assert _enter(programs, *arguments) == [program, *arguments]


@pytest.mark.parametrize(
    "arguments",
    [["run", "--input", "a b", "--output", "o", "--id=1"], ["verify"], ["--version"], ["-h"]],
    ids=["run", "verify", "version", "help"],
)
def test_person_gets_the_command_and_not_as_root(
    programs: dict[str, str], arguments: list[str]
) -> None:
    as_root = _enter(programs, *arguments)
    assert as_root[0] == "setpriv"
    assert as_root[as_root.index("callpress", as_root.index("--init-groups")) :] == [
        "callpress", *arguments
    ]  # fmt: skip
    assert _enter({**programs, "STAND_IN_UID": "1000"}, *arguments) == ["callpress", *arguments]

"""Who imports whom: `pipelines -> transforms -> transforms.media`, never back, and inside `media` row by row.

Checked twice: by the text of the imports of every module, and by importing all of `media` where Beam cannot be imported.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MEDIA = ROOT / "transforms" / "media"

# Rows from the bottom up: a module imports from rows below its own and, where the row says so, what is named beside it.
VALUES = {"errors", "model"}
ARITHMETIC = {"gather", "serial", "opus"}
READERS = {
    "archive",
    "tar",
    "gunzip",
    "zip_scan",
    "rtpdump",
    "rtp",
    "sdp",
    "timing",
    "packet_file",
    "names",
    "bounds",
    "mapped",
}
LINES = {"clock", "clock_steps", "observe", "stretches", "red", "payloads", "timeline", "ingest", "catalog", "levels", "speech"}
CODECS = {"decode", "matroska", "mix", "mp3"}
WHOLES = {"contents", "unpack", "extract", "composite"}
ROWS = (VALUES, ARITHMETIC, READERS, LINES, CODECS, WHOLES)
BESIDE = {
    "model": {"errors"},  # what was left out of metadata goes with the rest
    "archive": {"tar", "gunzip", "zip_scan"},  # walks what they read
    "rtp": {"rtpdump"},  # parses whole windows of a dump
    "clock_steps": {"clock"},
    "observe": {"clock", "clock_steps"},
    "stretches": {"observe"},  # the time at which packets should have come
    "red": {"stretches"},
    "payloads": {"red", "stretches"},
    "ingest": {"clock", "observe", "stretches", "red", "payloads"},
    "timeline": {"clock"},
    "speech": {"levels"},  # judges its cells
    "mix": {"decode"},  # the type of its audio
    "unpack": {"contents"},
    "composite": {"extract"},  # the shape of its inputs and of a finished file
}
THIRD_PARTY = {
    "gather": {"numpy"},
    "serial": {"numpy"},
    "opus": {"numpy"},
    "bounds": {"numpy"},
    "mapped": {"numpy"},
    "rtpdump": {"numpy"},
    "rtp": {"numpy"},
    "packet_file": {"numpy"},
    "clock": {"numpy"},
    "clock_steps": {"numpy"},
    "observe": {"numpy"},
    "stretches": {"numpy"},
    "red": {"numpy"},
    "payloads": {"numpy"},
    "ingest": {"numpy"},
    "timeline": {"numpy"},
    "extract": {"numpy"},
    "levels": {"numpy"},
    "speech": {"numpy"},
    "catalog": {"pyarrow"},
    "decode": {"numpy"},
    "matroska": {"av"},
    "mix": {"numpy", "soxr"},
    "composite": {"numpy"},
    "mp3": {"av", "fastcrc", "lameenc", "numpy"},
}
media_modules = sorted(path.stem for path in MEDIA.glob("*.py") if path.stem != "__init__")


def imports_of(path: Path) -> set[str]:
    """Returns the dotted names a module imports anywhere in its text; `from a import b` gives `a` and `a.b`."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: relative import"
            found.add(node.module or "")
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def our_modules(path: Path) -> set[str]:
    """Returns the modules of `media` a module imports, by their last name."""
    prefix = "transforms.media."
    return {name.removeprefix(prefix).split(".")[0] for name in imports_of(path) if name.startswith(prefix)}


def third_party(path: Path) -> set[str]:
    """Returns the packages a module imports that are neither Python's nor ours."""
    tops = {name.split(".")[0] for name in imports_of(path)}
    return tops - set(sys.stdlib_module_names) - {"transforms", "pipelines"}


def test_every_media_module_stands_in_one_row() -> None:
    placed = [module for row in ROWS for module in row]
    assert sorted(placed) == media_modules


@pytest.mark.parametrize("module", media_modules)
def test_media_module_imports_from_rows_below_only(module: str) -> None:
    (level,) = [number for number, row in enumerate(ROWS) if module in row]
    below = set().union(*ROWS[:level])
    assert our_modules(MEDIA / f"{module}.py") <= below | BESIDE.get(module, set())


@pytest.mark.parametrize("module", media_modules)
def test_media_module_imports_the_third_party_packages_of_its_row(module: str) -> None:
    assert third_party(MEDIA / f"{module}.py") == THIRD_PARTY.get(module, set())


@pytest.mark.parametrize("module", media_modules)
def test_media_module_imports_nothing_of_ours_but_media(module: str) -> None:
    ours = {name for name in imports_of(MEDIA / f"{module}.py") if name.split(".")[0] in ("transforms", "pipelines")}
    assert all(name.startswith("transforms.media.") for name in ours)


@pytest.mark.parametrize("path", sorted((ROOT / "transforms").rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_transforms_never_import_pipelines_or_tests(path: Path) -> None:
    assert not {name for name in imports_of(path) if name.split(".")[0] in ("pipelines", "tests")}


@pytest.mark.parametrize("path", sorted((ROOT / "pipelines").rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_pipelines_never_import_tests(path: Path) -> None:
    assert not {name for name in imports_of(path) if name.split(".")[0] == "tests"}


@pytest.mark.parametrize("package", ["transforms", "transforms/media", "pipelines"])
def test_package_file_holds_a_docstring_only(package: str) -> None:
    tree = ast.parse((ROOT / package / "__init__.py").read_text(encoding="utf-8"))
    assert ast.get_docstring(tree)
    assert len(tree.body) == 1


@pytest.mark.parametrize("name", ["transforms", "transforms/media", "pipelines"])
def test_every_folder_with_code_is_a_package(name: str) -> None:
    folders = {path.parent for path in (ROOT / name).rglob("*.py")}
    assert all((folder / "__init__.py").is_file() for folder in folders)


def test_media_imports_where_beam_and_storage_clients_cannot() -> None:
    code = (
        "import sys\n"
        "for name in ('apache_beam', 'google.cloud', 'google.auth', 'fsspec', 'boto3'):\n"
        "    sys.modules[name] = None\n"
        "import importlib\n"
        f"for name in {media_modules!r}:\n"
        "    importlib.import_module(f'transforms.media.{name}')\n"
        "print(sum(name.startswith('transforms.media.') for name in sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == len(media_modules)


def test_inspect_of_a_local_archive_does_without_the_slow_libraries() -> None:
    code = (
        "import sys\n"
        "for name in ('apache_beam', 'google', 'pyarrow', 'av', 'urllib3'):\n"
        "    sys.modules[name] = None\n"
        "from pipelines.cli import main\n"
        "sys.exit(main(['inspect', 'samples/weekly_sync.tar.gz']))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

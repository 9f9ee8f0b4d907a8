"""Who imports whom: a table of rooms, from the bottom of the house to the top. A room is a folder,
or some files of one.

Checked twice: by the text of the imports of every module, and by importing all of `media` where
Beam cannot be imported.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OURS = ("transforms", "pipelines")


@dataclass(frozen=True)
class Room:
    """Some modules that belong together, what they may import of ours, and of others."""

    name: str
    modules: tuple[str, ...]
    """Dotted; a folder stands for all that is in it."""
    below: tuple[str, ...] = ()
    """Names of the rooms it may import, all of which stand above it in the table."""
    libraries: frozenset[str] = field(default_factory=frozenset)
    """Third-party packages; of its own work, not of what it imports."""


# A row a room, from the bottom of the house up: its folder (and, where only some modules of it are
# meant, their names); the rooms it may import from; the libraries it may use.
TABLE = """
base       | media: caps errors findings job media_hours rfc3339 settings text units values
           : wall_time wraparound buffers positioned_file server_clock
           |                                                              | numpy
opus       | media.opus       | base                                      | numpy
clock      | media.clock      | base                                      | numpy
rtp        | media.rtp        | base opus clock                           | numpy
archive    | media.archive    | base rtp                                  | numpy
track      | media.track      | base opus clock rtp archive               | numpy
sound      | media.sound      | base opus track                           | numpy soxr
containers | media.containers | base opus                                 | av fastcrc lameenc numpy
jobs       | media: unpack_archive extract_track lane_file mix_call
           | base opus clock rtp archive track sound containers           | numpy
inspection | media.inspection | base clock rtp archive track              | numpy
storage    | storage          | base
           | | apache_beam boto3 botocore google google_crc32c obstore tenacity urllib3
codec      | codec            | base jobs                                 | av
sources    | sources          | base rtp archive storage                  | getstream tenacity
elements   | : elements bounds context filters reason server_clocks stamp targets tries
           | base clock rtp storage sources |
locking    | locking          | base storage elements                     |
engine     | engine           | codec elements locking                        | apache_beam
catalog    | catalog          | base rtp track sound jobs storage elements locking | numpy pyarrow
notices    | notices          | base storage elements catalog                 | google grpc pyarrow
proof      | proof            | base rtp storage sources elements catalog
           | | cryptography numpy pyarrow pydantic
composites | composites       | base storage elements locking engine catalog notices | apache_beam
recovery   | recovery         | base storage sources elements catalog proof | pydantic
pressing   | pressing
           | base rtp track jobs storage codec sources elements engine catalog |
retrieval  | retrieval        | base storage elements catalog notices             | numpy pyarrow
steps      | : begin_run list_archives skip_processed choose_archives unpack_archives
           : recall_archives plan_calls extract_tracks mix_calls record_archives write_catalog
           : read_manifests look_at_archives copy_archives
           : match_filters take_up_completed
           | base jobs storage sources elements locking engine catalog notices proof composites
           : recovery pressing
           |                                                              | apache_beam
pipelines  | pipelines
           | base opus rtp archive jobs inspection storage codec sources elements locking engine
           : catalog notices composites proof recovery pressing retrieval steps
           | apache_beam cryptography grpc pydantic rich shtab
"""


def _rooms() -> Iterator[Room]:
    text = re.sub(r"\n +([|:])", lambda found: " " + found[1].replace(":", ""), TABLE.strip())
    for line in text.splitlines():
        name, modules, below, *libraries = (cell.strip() for cell in line.split("|"))
        folder, _, names = modules.partition(":")
        package = folder if folder == "pipelines" else f"transforms.{folder.strip()}".strip(".")
        yield Room(
            name,
            tuple(f"{package}.{each}" for each in names.split()) or (package,),
            tuple(below.split()),
            frozenset(" ".join(libraries).split()),
        )


ROOMS = tuple(_rooms())
MEDIA = ROOT / "transforms" / "media"


def name_of(path: Path) -> str:
    """Returns a module's dotted name."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


MODULES = {
    name_of(path): path
    for top in OURS
    for path in sorted((ROOT / top).rglob("*.py"))
    if path.stem != "__init__"
}
MEDIA_MODULES = [name for name in MODULES if name.startswith("transforms.media.")]


@cache
def imports_of(path: Path) -> frozenset[str]:
    """Returns the dotted names a module imports anywhere in its text; `from a import b` gives `a`
    and `a.b`.
    """
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: relative import"
            found.add(node.module or "")
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return frozenset(found)


def our_modules(path: Path) -> frozenset[str]:
    """Returns our modules that a module imports."""
    return imports_of(path) & MODULES.keys()


@cache
def room_of(module: str) -> Room:
    """Returns the room a module stands in: the one that names it, or the folder it is in."""
    found = [
        room
        for room in ROOMS
        if any(module == own or module.startswith(own + ".") for own in room.modules)
    ]
    assert len(found) == 1, (
        f"{module} stands in {[room.name for room in found]}, expected one row of the table"
    )
    return found[0]


def test_rooms_import_from_rooms_above_them_in_the_table_only() -> None:
    names: list[str] = []
    for room in ROOMS:
        assert set(room.below) <= set(names), f"{room.name} names a room that comes later"
        names.append(room.name)


@pytest.mark.parametrize("module", MODULES)
def test_module_imports_from_its_own_room_and_those_below(module: str) -> None:
    room = room_of(module)
    for other in our_modules(MODULES[module]):
        assert room_of(other).name in (room.name, *room.below), f"{module} imports {other}"


@pytest.mark.parametrize("module", MODULES)
def test_module_imports_the_libraries_of_its_room(module: str) -> None:
    tops = {name.split(".")[0] for name in imports_of(MODULES[module])}
    assert tops - set(sys.stdlib_module_names) - set(OURS) <= room_of(module).libraries


def test_every_library_of_a_room_is_used_in_it() -> None:
    for room in ROOMS:
        used = {
            name.split(".")[0]
            for module in MODULES
            if room_of(module) == room
            for name in imports_of(MODULES[module])
        }
        assert room.libraries <= used, f"{room.name}: {room.libraries - used}"


def test_every_room_below_is_needed() -> None:
    for room in ROOMS:
        used = {
            room_of(other).name
            for module in MODULES
            if room_of(module) == room
            for other in our_modules(MODULES[module])
        }
        assert set(room.below) <= used, f"{room.name}: {set(room.below) - used}"


def test_no_transform_imports_another() -> None:
    (transforms,) = (set(room.modules) for room in ROOMS if room.name == "steps")
    for module in transforms:
        assert not our_modules(MODULES[module]) & transforms, module


def test_no_folder_has_a_circle() -> None:
    TopologicalSorter({module: our_modules(path) for module, path in MODULES.items()}).prepare()


_TESTS_OF_STORES = frozenset(
    {"gs", "gs:", "gs://", "s3", "s3:", "s3://", "azfs", "azfs:", "azfs://", "://"}
    | {"is_local", "scheme_of"}
)


@pytest.mark.parametrize("module", MODULES)
def test_only_storage_tells_stores_apart(module: str) -> None:
    """Others call `transforms.storage.objects`, which asks the store of a URI; texts that merely
    name one are free to.
    """
    if module.startswith("transforms.storage."):
        return
    found = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant):
            found.add(node.value)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            found.add(node.attr if node.value.id == "uris" else "")
        elif isinstance(node, ast.ImportFrom) and node.module == "transforms.storage.uris":
            found.update(alias.name for alias in node.names)
    assert not found & _TESTS_OF_STORES


@pytest.mark.parametrize("path", MODULES.values(), ids=MODULES)
def test_nothing_imports_tests(path: Path) -> None:
    assert not {name for name in imports_of(path) if name.split(".")[0] in ("tests", "benchmarks")}


@pytest.mark.parametrize("top", OURS)
def test_package_files_hold_a_docstring_only(top: str) -> None:
    folders = {path.parent for path in (ROOT / top).rglob("*.py")}
    for folder in folders:
        tree = ast.parse((folder / "__init__.py").read_text(encoding="utf-8"))
        assert ast.get_docstring(tree), folder
        assert len(tree.body) == 1, folder


def test_media_imports_where_beam_and_storage_clients_cannot() -> None:
    code = (
        "import sys\n"
        "for name in ('apache_beam', 'google.cloud', 'google.auth', 'fsspec', 'boto3'):\n"
        "    sys.modules[name] = None\n"
        "import importlib\n"
        f"for name in {MEDIA_MODULES!r}:\n"
        "    importlib.import_module(name)\n"
        "print(len({name for name in sys.modules if name.startswith('transforms.')}))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    folders = {path.parent for path in MEDIA.rglob("*.py")}
    assert int(done.stdout) == len(MEDIA_MODULES) + len(folders)


@pytest.mark.parametrize(
    ("flags", "slow"),
    [([], {"numpy"}), (["--clock", "--clock-output", "TMP"], set())],
    ids=["plain", "clock"],
)
def test_inspect_of_a_local_archive_does_without_the_slow_libraries(
    flags: list[str], slow: set[str], tmp_path: Path
) -> None:
    given = [flag.replace("TMP", str(tmp_path)) for flag in flags]
    slow = slow | {"apache_beam", "google", "pyarrow", "av", "urllib3"}
    code = (
        "import sys\n"
        f"for name in {slow!r}:\n"
        "    sys.modules[name] = None\n"
        "from pipelines.cli import main\n"
        f"sys.exit(main(['inspect', 'samples/weekly_sync.tar.gz', *{given!r}]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_commands_of_one_archive_do_without_beam_and_tables(tmp_path: Path) -> None:
    """They are to be done in a second, and each of these takes as long by itself; what decodes and
    writes media lives in the codec process.
    """
    slow = {"apache_beam", "google.cloud.storage", "pyarrow", "pydantic", "rich", "urllib3"}
    code = (
        "import sys\n"
        f"for name in {slow!r}:\n"
        "    sys.modules[name] = None\n"
        "from pipelines.cli import main\n"
        "given = ['--input-file', 'samples/weekly_sync.tar.gz']\n"
        "for name in ('numpy', 'av'):\n"
        "    sys.modules[name] = None\n"
        "listed = main(['list-tracks', *given])\n"
        "del sys.modules['numpy']\n"
        f"made = main(['process-all', *given, '--output', {str(tmp_path)!r}])\n"
        "sys.exit(listed or made)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.iterdir())) == 6

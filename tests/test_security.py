"""What SECURITY.md promises and no other module tests: no code from data, no secrets told, no
terminal obeyed, no port open.
"""

from __future__ import annotations

import ast
import json
import logging
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from google.api_core import exceptions as google_errors
from obstore import exceptions as obstore_errors

from pipelines import run_summary
from pipelines.logs import set_up_logging
from pipelines.options import RunArguments, parse_arguments
from tests.support.builders import Participant, Segment, encode_opus, make_call_archive, noise
from tests.support.command import SAMPLE, callpress, query
from tests.support.job_run import JobRun
from tests.support.processes import children_of
from transforms.composites.merge_rows import _DeleteFn
from transforms.elements import DroppedFile
from transforms.media.text import printable, printable_json, without_secrets
from transforms.storage import errors

ROOT = Path(__file__).parents[1]
OURS = sorted([*(ROOT / "transforms").rglob("*.py"), *(ROOT / "pipelines").rglob("*.py")])

# --- no code from data ----------------------------------------------------------------------------

_RUNS_DATA = {
    "eval", "exec", "compile", "__import__", "import_module", "system", "popen", "execv",
    "execve", "spawnv",
    "load_module", "run_path", "runpy", "allow_pickle", "from_pickle", "read_pickle", "unpickle",
    "Unpickler",
}  # fmt: skip
_MODULES = {
    "pickle",
    "cPickle",
    "dill",
    "cloudpickle",
    "marshal",
    "shelve",
    "joblib",
    "yaml",
    "jsonpickle",
    "runpy",
    "code",
}


def dangers(text: str) -> set[str]:
    """Returns what in a module could make data run: names it calls, modules it loads data with,
    shells.
    """
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names} & _MODULES
        elif isinstance(node, ast.ImportFrom):
            found |= {(node.module or "").split(".")[0]} & _MODULES
        elif isinstance(node, ast.Call):
            name = (
                node.func.attr
                if isinstance(node.func, ast.Attribute)
                else getattr(node.func, "id", "")
            )
            owner = getattr(getattr(node.func, "value", None), "id", "")
            if name in _RUNS_DATA and (owner, name) != ("re", "compile"):
                found.add(name)
            if name in ("load", "loads") and owner in _MODULES:
                found.add(f"{owner}.{name}")
            risky = [word for word in node.keywords if word.arg in ("allow_pickle", "shell")]
            found |= {
                str(word.arg) for word in risky if getattr(word.value, "value", None) is not False
            }
    return found


@pytest.mark.parametrize("path", OURS, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_module_makes_code_of_data(path: Path) -> None:
    # The pipe between a worker and its codec process is the one place: both ends are ours, on one
    # machine, and `multiprocessing.connection` reads it. `pickle` itself is there only to find out
    # what cannot be sent.
    allowed = {"pickle"} if path.name == "child.py" else set()
    assert dangers(path.read_text(encoding="utf-8")) == allowed


def test_pipes_that_pickle_are_in_one_folder() -> None:
    users = {path.name for path in OURS if "multiprocessing" in path.read_text(encoding="utf-8")}
    assert users == {"child.py", "process.py"}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("import pickle\npickle.loads(x)", {"pickle", "pickle.loads"}),
        ("from pickle import loads", {"pickle"}),
        ("numpy.load(x, allow_pickle=True)", {"allow_pickle"}),
        ("eval(x)", {"eval"}),
        ("subprocess.run(x, shell=True)", {"shell"}),
        ("importlib.import_module(x)", {"import_module"}),
        ("numpy.load(x, allow_pickle=flag)", {"allow_pickle"}),
        ("numpy.load(x, allow_pickle=False)", set()),
        ("re.compile(x)", set()),
    ],
)
def test_such_code_would_be_found(text: str, found: set[str]) -> None:
    assert dangers(text) == found


# --- nothing told that lets somebody in -----------------------------------------------------------

SIGNED = (
    "https://storage.googleapis.com/bucket/o/x?X-Goog-Algorithm=GOOG4-RSA-SHA256&X-Goog-Credential=SECRET-who"
    "&X-Goog-Signature=SECRET0123456789abcdef"
)


@pytest.mark.parametrize(
    "text",
    [
        f"403 GET {SIGNED}: no",
        "Max retries exceeded with url: /storage/v1/b/c/o/x?upload_id=SECRET123 (Caused by "
        f"{SIGNED})",
        "https://user:SECRETpassword@host/path failed",
        "gs://SECRETtoken@bucket/x",
        "headers {'Authorization': 'Bearer SECRET.abc.def'}",
        "Authorization: Basic SECRETbase64==",
        "Proxy-Authorization: SECRETvalue",
        "token ya29.SECRET-token_x expired",
        "access_token=SECRET123456&x=1",
        '{"refresh_token": "SECRET/abcdef", "client_secret": "SECRETSECRET"}',
        "aws_secret_access_key = SECRETSECRET",
        "password=SECRETpw1",
        "X-Amz-Signature=SECRETabcdef0 X-Amz-Security-Token=SECRETabcdef1",
        "private_key: '-----BEGIN PRIVATE KEY-----\nSECRETbase64\n-----END PRIVATE KEY-----'",
    ],
)
def test_secrets_are_hidden(text: str) -> None:
    assert "SECRET" not in without_secrets(text)
    assert "[hidden]" in without_secrets(text)


@pytest.mark.parametrize(
    "text",
    [
        "/raw/who?.tar.gz matches nothing",
        "gs://bucket/raw/take [1]?.tar.gz: empty",
        "a.rtpdump: record 17 at byte 4096: length 6, need at least 8",
        "archive key: value; expected a token of 3 bytes",
        "default:standup, session session-1",
        "participant key-holder: ok",
        "begins with b'no', expected tar, gzipped tar or zip",
    ],
)
def test_other_text_is_left_alone(text: str) -> None:
    assert without_secrets(text) == text


@pytest.mark.parametrize(
    "error",
    [
        google_errors.Forbidden(f"GET {SIGNED}: SECRETless\nSECRET body"),
        google_errors.from_http_status(403, f"POST {SIGNED}: denied"),
        OSError(f"HTTPSConnectionPool: Max retries exceeded with url: {SIGNED}"),
        ConnectionError(SIGNED),
        obstore_errors.GenericError(
            f"Generic S3 error: Error performing PUT {SIGNED} in 1ms - HTTP error: error sending "
            f"request for url ({SIGNED})\n\nDebug source:\nuri: {SIGNED}"
        ),
        obstore_errors.PermissionDeniedError(
            f"The operation lacked the privileges: Error performing GET {SIGNED} in 1ms - "
            "Server returned non-2xx status code: 403 Forbidden: <Error><Code>SignatureDoesNotMatch"
            "</Code><StringToSign>SECRET0123456789</StringToSign></Error>"
        ),
        FileNotFoundError(f"Object at location x not found: Error performing GET {SIGNED} in 1ms"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_storage_errors_carry_no_signature(error: Exception) -> None:
    told = errors.describe_error(error)
    assert "Signature" not in told or "SECRET0123456789" not in told
    assert "SECRET0123456789" not in told
    assert "SECRET body" not in told
    assert "\n" not in told


def _arguments(*flags: str) -> RunArguments:
    found = parse_arguments(["run", "--input", "x", "--output", "y", *flags])
    assert isinstance(found, RunArguments)
    return found


def test_log_hides_secrets_and_spells_controls_also_in_tracebacks(tmp_path: Path) -> None:
    log = tmp_path / "log"
    root = logging.getLogger()
    before = (list(root.handlers), root.level)
    try:
        set_up_logging(_arguments("--log-file", str(log)), "run-1")
        try:
            raise ValueError(f"could not fetch {SIGNED} \x1b[2J\u202e")
        except ValueError:
            logging.getLogger("some.library").exception(
                "failed for %s", "https://user:SECRETpw@host/x?sig=SECRETsig"
            )
    finally:
        for handler in root.handlers:
            handler.close()
        root.handlers, root.level = before[0], before[1]

    text = log.read_text()
    assert "SECRET" not in text
    assert "ValueError: could not fetch https://storage.googleapis.com/bucket/o/x?[hidden]" in text
    assert "Traceback (most recent call last):\n" in text
    assert "\x1b" not in text
    assert "\\x1b[2J\\u202e" in text


# --- terminals are not obeyed ---------------------------------------------------------------------

EVIL = "eve\x1b[2J\x1b]0;owned\x07\u202egpj.exe\x9b31m\u2066\u200b\r\x00\x7f"
_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u202a-\u202e\u2066-\u2069]")


def test_printable_spells_what_would_be_obeyed_and_leaves_the_rest() -> None:
    assert not _UNSEEN.search(printable(EVIL))
    assert printable("a\x1bb\u202e\n") == "a\\x1bb\\u202e\\n"
    for text in ("plain", "Zoë", "日本語", "👩\u200d🚀", "é"):
        assert printable(text) == text


def test_json_with_such_characters_spelled_means_the_same() -> None:
    text = printable_json(json.dumps({"id": EVIL, "name": "Zoë 👩\u200d🚀"}, ensure_ascii=False))
    assert not _UNSEEN.search(text)
    assert json.loads(text) == {"id": EVIL, "name": "Zoë 👩\u200d🚀"}


@pytest.mark.slow
def test_ids_from_an_archive_do_not_reach_the_terminal_as_they_are(tmp_path: Path) -> None:
    people = [
        Participant(
            participant_id=EVIL,
            segments=[Segment(packets=encode_opus(noise(1)), base_filename="d1")],
        ),
        Participant(
            participant_id=f"{EVIL}2",
            segments=[
                Segment(packets=encode_opus(noise(1)), base_filename="d\x1b2", with_dump=False)
            ],
        ),
    ]
    archive = tmp_path / f"evil{EVIL.replace(chr(0), '')}.tar"
    archive.write_bytes(make_call_archive(people, kind="tar", call_id=EVIL, call_session_id=EVIL))
    outputs = [
        callpress("inspect", archive),
        callpress("inspect", "--json", archive),
        callpress("inspect", "--clock", "--clock-output", tmp_path / "drawn", archive),
        callpress("inspect", "--clock", "--json", archive),
        callpress("run", "--input", tmp_path / "*.tar", "--output", tmp_path / "out", "--dry_run"),
        callpress("run", "--input", tmp_path / "*.tar", "--output", tmp_path / "out"),
        callpress("verify", "--catalog", tmp_path / "out" / "catalog"),
        callpress(
            "run",
            "--input",
            f"{tmp_path}/none{EVIL.replace(chr(0), '')}",
            "--output",
            tmp_path / "out",
        ),
    ]

    assert len(query(tmp_path / "out" / "catalog", "failures")) == 1
    for done in outputs:
        assert done.out + done.err
        assert not _UNSEEN.search(done.out + done.err), done.out + done.err
    assert "eve\\x1b[2J" in outputs[0].out


def test_rows_keep_ids_as_they_are_and_the_summary_does_not(
    capsys: pytest.CaptureFixture[str],
) -> None:
    counts = {
        "listed": 1,
        "skipped": 0,
        "ok": 0,
        "partial": 1,
        "failed": 0,
        "empty": 0,
        "waiting": 0,
    }
    failure = {
        "archive_uri": None,
        "call_cid": f"default:{EVIL}",
        "error_type": "RtpError",
        "message": f"member {EVIL}",
    }
    summary = {
        "run_id": "r", "bytes_written": 0, "media_seconds": 0, "cpu_seconds": 0,
        "claimed_seconds": 0, "missing_seconds": 0, "notices": None,
        "failures": [failure],
        "first_time": counts,
        "counts": {"archives": counts, "calls": counts, "recordings": 0, "failures": 1},
    }  # fmt: skip
    run_summary.print_summary(summary, 1.0, f"/out{EVIL}", f"/catalog{EVIL}")
    assert not _UNSEEN.search(capsys.readouterr().out)


# --- nothing deleted that is not ours -------------------------------------------------------------


def test_media_outside_the_output_is_never_deleted(context: JobRun, tmp_path: Path) -> None:
    for name in (
        "out/recordings/a/b/c/x.mkv",
        "out/recordings-of-others/x.mkv",
        "out/catalog/x",
        "elsewhere/x.mkv",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    delete = _DeleteFn(context.changed(output_uri=str(tmp_path / "out")).job)

    gone = [
        list(delete.process(DroppedFile(uri=str(path)), context.run, ()))
        for path in sorted(tmp_path.rglob("x*"))
    ]

    assert [path for paths in gone for path in paths] == [
        str(tmp_path / "out/recordings/a/b/c/x.mkv")
    ]
    assert len(list(tmp_path.rglob("x*"))) == 3


# --- no open ports --------------------------------------------------------------------------------

LISTENS = "0A"


def listening(pids: list[int]) -> set[str]:
    """Returns the addresses that processes listen on, in hexadecimal as in /proc/net/tcp."""
    inodes = set()
    for pid in pids:
        try:
            for name in os.listdir(f"/proc/{pid}/fd"):
                found = re.match(r"socket:\[(\d+)\]", os.readlink(f"/proc/{pid}/fd/{name}"))
                inodes |= {found[1]} if found else set()
        except OSError:
            continue
    addresses = set()
    for table in ("tcp", "tcp6"):
        for line in Path("/proc/net", table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == LISTENS and fields[9] in inodes:
                addresses.add(fields[1])
    return addresses


@pytest.mark.slow
def test_local_run_listens_nowhere(tmp_path: Path) -> None:
    with socket.create_server(("0.0.0.0", 0)) as open_port:
        port = open_port.getsockname()[1]
        assert listening([os.getpid()]) >= {f"00000000:{port:04X}"}  # so would it be seen
    command = [
        sys.executable,
        "-m",
        "pipelines.cli",
        "run",
        "--input",
        str(SAMPLE),
        "--output",
        str(tmp_path / "out"),
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    seen: set[str] = set()
    most = looks = 0
    while process.poll() is None:
        tree = [process.pid, *children_of(process.pid)]
        seen |= listening(tree)
        most, looks = max(most, len(tree)), looks + 1
        time.sleep(0.05)

    assert process.returncode == 0
    assert most >= 2  # codec processes were at work
    assert looks >= 10
    assert seen == set()


# --- the page itself ------------------------------------------------------------------------------


def test_every_test_that_the_security_page_names_is_there() -> None:
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", text)
    assert len(named) >= 12
    for module, name in named:
        assert re.search(
            rf"^def {name}\(", (ROOT / module).read_text(encoding="utf-8"), re.MULTILINE
        ), (module, name)

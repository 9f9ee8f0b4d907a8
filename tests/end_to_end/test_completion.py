"""Shell completion, asked of a real shell as it is while somebody types."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.command import callpress

_ASK = """
source {script}
COMP_WORDS=({words})
COMP_CWORD=$(( ${{#COMP_WORDS[@]}} - 1 ))
COMP_LINE="${{COMP_WORDS[*]}}"
COMP_POINT=${{#COMP_LINE}}
complete_it=$(complete -p callpress | sed 's/.* -F \\([^ ]*\\).*/\\1/')
$complete_it callpress "${{COMP_WORDS[COMP_CWORD]}}" ""
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    done = callpress("completion", "bash")
    assert (done.status, done.err) == (0, "")
    path = tmp_path_factory.mktemp("completion") / "callpress.bash"
    path.write_text(done.out, encoding="utf-8")
    return path


def _completed(script: Path, *words: str) -> set[str]:
    asked = _ASK.format(script=script, words=" ".join(f"'{word}'" for word in words))
    done = subprocess.run(
        ["bash", "--norc", "-c", asked],
        cwd=script.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    return set(done.stdout.split())


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash on this machine")
@pytest.mark.parametrize(
    ("words", "found"),
    [
        (("callpress", "r"), {"run", "runs", "reconcile", "recordings"}),
        (("callpress", "reconcile", "--ma"), {"--manifest"}),
        (("callpress", "completion", ""), {"bash", "zsh"}),
        (("callpress", "run", "--flags"), {"--flags-file"}),
        (("callpress", "run", "--log-format", "j"), {"json"}),
        (("callpress", "run", "--input", "x", "--worker_m"), {"--worker_machine_type"}),
        (("callpress", "run", "--flexrs_goal", "C"), {"COST_OPTIMIZED"}),
        (("callpress", "run", "--dry"), {"--dry-run"}),
        (("callpress", "run", "--output", "fol"), {"folder"}),
        (("callpress", "run", "--flags-file", "ni"), {"night.flags"}),
        (("callpress", "verify", "--re"), {"--repair"}),
        (("callpress", "extract-audio", "--input-file", "ni"), {"night.flags"}),
        (("callpress", "mix-audio", "--output", "fol"), {"folder"}),
        (("callpress", "list-tracks", "--format", "j"), {"json"}),
    ],
)
def test_bash_completes(words: tuple[str, ...], found: set[str], script: Path) -> None:
    (script.parent / "folder").mkdir(exist_ok=True)
    (script.parent / "night.flags").touch()
    assert _completed(script, *words) == found


def test_zsh_has_a_script_too() -> None:
    done = callpress("completion", "zsh")
    assert done.status == 0
    assert done.out.startswith("#compdef callpress")
    assert "--worker_machine_type" in done.out


def test_another_shell_is_one_clear_line() -> None:
    done = callpress("completion", "fish")
    assert (done.status, done.err.count("\n")) == (2, 1)
    assert "choose from 'bash', 'zsh'" in done.err

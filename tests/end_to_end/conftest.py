"""What the tests of the command share: one pressed output and one storage emulator."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.command import CAPTURES, SAMPLE, press
from tests.support.storage_servers import running_emulator


@pytest.fixture(scope="session")
def pressed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of one run over the three captures; not to be changed."""
    output = tmp_path_factory.mktemp("pressed")
    press(output, SAMPLE, CAPTURES / "*.tar.gz")
    return output


@pytest.fixture(scope="session")
def gcs() -> Iterator[dict[str, str]]:
    """A Cloud Storage emulator in a process of its own; gives the environment that points to it."""
    with running_emulator(bucket="calls") as url:
        yield {"STORAGE_EMULATOR_HOST": url}

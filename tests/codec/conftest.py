"""A codec process and a pool of them, ended after the test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.codec import MEMORY_BYTES
from transforms.codec.pool import CodecPool
from transforms.codec.process import CodecProcess


@pytest.fixture
def codec() -> Iterator[CodecProcess]:
    process = CodecProcess(MEMORY_BYTES)
    yield process
    process.close()


@pytest.fixture
def pool() -> Iterator[CodecPool]:
    found = CodecPool()
    yield found
    found.stop()

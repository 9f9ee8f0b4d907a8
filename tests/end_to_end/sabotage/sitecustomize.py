"""Put first on PYTHONPATH by a test: libopus or LAME crash for real over one recording, in the
codec process only.

`CALLPRESS_TEST_CRASH=decode:N` hands libopus a decoder state at address 8 once it is given a packet
of N bytes; `encode:N` reads at address 0 as LAME is given a block of a mix with N channels.
`CALLPRESS_TEST_CRASH_ONCE=FILE` does it only until that file is there, and makes it. Nothing of
this is known to the program itself.
"""

from __future__ import annotations

import ctypes
import importlib.abc
import importlib.machinery
import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any


def _may_crash() -> bool:
    once = os.environ.get("CALLPRESS_TEST_CRASH_ONCE")
    if once is None:
        return True
    try:
        Path(once).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def _sabotage_decoder(module: Any, size: int) -> None:
    load = module.load_libopus

    class Library:
        def __init__(self, real: Any) -> None:
            self._real = real

        def __getattr__(self, name: str) -> Any:
            return getattr(self._real, name)

        def opus_decode_float(self, state: Any, data: Any, length: int, *rest: Any) -> Any:
            if length == size and _may_crash():
                state = ctypes.c_void_p(8)
            return self._real.opus_decode_float(state, data, length, *rest)

    module.load_libopus = lambda: Library(load())


def _sabotage_encoder(module: Any, channels: int) -> None:
    real = module.Encoder

    class Encoder:
        def __init__(self) -> None:
            self._real = real()
            self._channels = 2

        def __getattr__(self, name: str) -> Any:
            return getattr(self._real, name)

        def set_channels(self, count: int) -> None:
            self._channels = count
            self._real.set_channels(count)

        def encode(self, *arguments: Any) -> Any:
            if self._channels == channels and _may_crash():
                ctypes.string_at(0)
            return self._real.encode(*arguments)

    module.Encoder = Encoder


class _Finder(importlib.abc.MetaPathFinder):
    """Lets a module be imported as ever, then changes it."""

    def __init__(self, name: str, change: Any, number: int) -> None:
        self._name, self._change, self._number = name, change, number

    def find_spec(
        self, fullname: str, path: Any, target: Any = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != self._name:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        assert spec is not None
        loader: Any = spec.loader
        execute = loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            self._change(module, self._number)

        loader.exec_module = exec_module
        return spec


_told = os.environ.get("CALLPRESS_TEST_CRASH")
if _told and "transforms.codec.child" in sys.orig_argv:
    _what, _, _number = _told.partition(":")
    if _what == "decode":
        sys.meta_path.insert(
            0, _Finder("transforms.media.opus.libopus", _sabotage_decoder, int(_number))
        )
    else:
        sys.meta_path.insert(0, _Finder("lameenc", _sabotage_encoder, int(_number)))

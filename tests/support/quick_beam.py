"""Lets Beam make hundreds of small pipelines in one process: for each it looks at the same classes,
reads the same source, packs the same bytes and parses the same flags hundreds of times, which is
a third of a small run. What it finds is what it found before. Commands in processes of their own
run Beam as it is.
"""

from __future__ import annotations

import bz2
import functools
import inspect
from argparse import Namespace
from collections.abc import Callable
from typing import Any

import pytest
from apache_beam.internal import cloudpickle_pickler, pickler
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.transforms import core, ptransform, userstate

_PACKED_BYTES = 1 << 16
"""What is larger is packed anew each time."""

_flags_found: dict[Any, Namespace] = {}
_defaults_found: dict[Any, tuple[list[str], list[Any]]] = {}


def remember(patch: pytest.MonkeyPatch) -> None:
    """Has Beam remember, in this process, what it finds of functions and flags."""
    of_function = _remembering_functions(core.get_function_args_defaults)
    patch.setattr(core, "get_function_args_defaults", of_function)
    by_code = _remembering_by_code(core._check_fn_use_yield_and_return)
    patch.setattr(core, "_check_fn_use_yield_and_return", by_code)
    patch.setattr(userstate, "get_dofn_specs", _remembering_specs(userstate.get_dofn_specs))
    patch.setattr(ptransform, "pickler", _PickledOnce())
    patch.setattr(cloudpickle_pickler, "bz2", _PackedOnce())
    patch.setattr(PipelineOptions, "view_as", _remembering_flags(PipelineOptions.view_as))


def _remembering_functions(find: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def found(function: Any) -> Any:
        # The first argument of a method is left out, whichever object it is bound to.
        key = (getattr(function, "__func__", function), hasattr(function, "__self__"))
        if key not in _defaults_found:
            _defaults_found[key] = find(function)
        names, defaults = _defaults_found[key]
        return list(names), list(defaults)

    return found


def _remembering_by_code(find: Callable[[Any], Any]) -> Callable[[Any], Any]:
    codes: dict[Any, Any] = {}

    def found(function: Any) -> Any:
        code = getattr(inspect.unwrap(function), "__code__", None)
        if code is None:
            return find(function)
        if code not in codes:
            codes[code] = find(function)
        return codes[code]

    return found


def _remembering_specs(find: Callable[[Any], Any]) -> Callable[[Any], Any]:
    specs: dict[Any, Any] = {}

    def found(fn: Any) -> Any:
        # One that wraps a method has that as its own.
        key = (type(fn), getattr(vars(fn).get("process"), "__func__", None))
        if key not in specs:
            specs[key] = find(fn)
        states, timers = specs[key]
        return set(states), set(timers)

    return found


class _PickledOnce:
    """Beam's pickler without the trial of each function when it is applied: what cannot be pickled
    fails a moment later, when the job is translated.
    """

    def roundtrip(self, value: Any) -> Any:
        is_arguments = isinstance(value, (tuple, dict))
        return pickler.roundtrip(value) if is_arguments and value else value

    def __getattr__(self, name: str) -> Any:
        return getattr(pickler, name)


class _PackedOnce:
    """The standard library's bz2, which sets up megabytes for the least packet."""

    def compress(self, data: bytes, compresslevel: int = 9) -> bytes:
        pack = _pack if len(data) <= _PACKED_BYTES else bz2.compress
        return pack(data, compresslevel)

    def decompress(self, data: bytes) -> bytes:
        return _unpack(data) if len(data) <= _PACKED_BYTES else bz2.decompress(data)


_pack = functools.lru_cache(maxsize=2_000)(bz2.compress)
_unpack = functools.lru_cache(maxsize=2_000)(bz2.decompress)


def _remembering_flags(find: Callable[..., Any]) -> Callable[..., Any]:
    def found(options: Any, kind: Any) -> Any:
        key = (kind, None if options._flags is None else tuple(options._flags))
        if key not in _flags_found:
            view = find(options, kind)
            _flags_found[key] = _copy(view._visible_options)
            return view
        view = kind.__new__(kind)
        state = {"_flags": options._flags, "_visible_options": _copy(_flags_found[key])}
        for name, value in vars(state["_visible_options"]).items():
            options._all_options.setdefault(name, value)
        vars(view).update(state, _all_options=options._all_options)
        return view

    return found


def _copy(found: Namespace) -> Namespace:
    """Returns flags that do not change with those: lists are added to."""
    return Namespace(
        **{
            name: value.copy() if isinstance(value, (list, dict)) else value
            for name, value in vars(found).items()
        }
    )

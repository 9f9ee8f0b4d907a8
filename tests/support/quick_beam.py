"""Lets Beam make hundreds of small pipelines in one process: for each it looks at the same classes
and parses the same flags hundreds of times, which is a quarter of a small run. What it finds is
what it found before. Commands in processes of their own run Beam as it is.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from typing import Any

import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.transforms import core

_flags_found: dict[Any, Namespace] = {}
_defaults_found: dict[Any, tuple[list[str], list[Any]]] = {}


def remember(patch: pytest.MonkeyPatch) -> None:
    """Has Beam remember, in this process, what it finds of functions and flags."""
    of_function = _remembering_functions(core.get_function_args_defaults)
    patch.setattr(core, "get_function_args_defaults", of_function)
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

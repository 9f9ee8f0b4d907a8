"""The whole graph: it is built without a look at anything, and its types fit, which a local run
takes for granted.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
from apache_beam.options.pipeline_options import PipelineOptions, TypeOptions

from pipelines import press
from pipelines.runners.local import make_local_pipeline
from tests.support.beam import make_pipeline
from tests.support.job_run import JobRun
from tests.support.translation import steps_behind
from transforms.composites.find_prior_rows import FindPriorRows
from transforms.context import JobSettings
from transforms.filters import Filters
from transforms.targets import Notify, Target, TargetKind


@pytest.mark.parametrize("filters", [Filters(), Filters(calls=("default:standup",))])
def test_types_of_the_graph_fit_where_beam_checks_them(
    context: JobRun, store: ModuleType, filters: Filters
) -> None:
    context = context.changed(filters=filters)
    pipeline = make_pipeline()
    assert pipeline.options.view_as(TypeOptions).pipeline_type_check

    press.build(pipeline, ["fake://bucket/raw/*"], context.job)

    assert store.CALLS["match"] == 0


def test_local_run_does_not_check_them_again() -> None:
    options = PipelineOptions([])

    make_local_pipeline(options)

    assert not options.view_as(TypeOptions).pipeline_type_check


def test_catalog_is_listed_once_all_that_dead_runs_had_is_in_it(context: JobRun) -> None:
    """An engine does at once what waits for nothing, wherever it stands in the graph: rows that are
    taken up would not be found, and earlier archives of their calls not be read.
    """
    pipeline = make_pipeline()
    press.build(pipeline, ["/raw/*"], context.job)
    proto = pipeline.to_runner_api()
    steps = proto.components.transforms.values()
    lists = {step.unique_name for step in steps if step.unique_name.endswith("/ListFiles")}
    of_take_up = {name for name in lists if name.startswith("TakeUpCompleted/")}

    assert len(of_take_up) == len(lists - of_take_up) == 2
    assert of_take_up <= steps_behind(proto, "BeginRun/TakeLock")
    assert lists - of_take_up <= steps_behind(proto, "LookBack/LookBack")


def test_what_files_are_is_read_only_where_somebody_is_told(
    context: JobRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[set[str]] = []

    class Asking(FindPriorRows):
        def __init__(self, job: JobSettings, columns: Any, keys: Any) -> None:
            super().__init__(job, columns, keys)
            asked.extend(set(names) for table, names in columns.items() if table == "recordings")

    monkeypatch.setattr(press, "FindPriorRows", Asking)
    target = Target(name="crm", kind=TargetKind.HTTPS, place="https://crm.test/hook")
    for notify in (Notify(), Notify(targets=(target,))):
        press.build(make_pipeline(), ["/raw/*"], context.changed(notify=notify).job)

    told_nobody, told_somebody = asked
    assert told_somebody - told_nobody == {"part", "filename", "sha256"}
    assert told_nobody < told_somebody

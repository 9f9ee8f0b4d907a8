"""The whole graph: it is built without a look at anything, and its types fit, which a local run
takes for granted.
"""

from __future__ import annotations

from types import ModuleType

import pytest
from apache_beam.options.pipeline_options import PipelineOptions, TypeOptions

from pipelines import press
from pipelines.runners.local import make_local_pipeline
from tests.support.beam import make_pipeline
from tests.support.job_run import JobRun
from transforms.filters import Filters


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

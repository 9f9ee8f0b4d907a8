"""`callpress` on Beam's local engine with several worker processes, as other engines have them:

    python -m benchmarks.many_workers 8 run --input 'raw/*' --output ./pressed

For measuring only: of such workers Beam starts each with the same share of the elements, whatever
they cost, and loses a job with one that dies.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import apache_beam as beam
from apache_beam.metrics import MetricsFilter
from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions
from apache_beam.runners.portability.fn_api_runner import FnApiRunner

from pipelines import cli
from pipelines.runners import local
from transforms.begin_run import RUNS


def main(argv: Sequence[str]) -> int:
    """Runs a command line; returns its exit status. Args: argv: how many workers, then as of
    `callpress`.
    """

    def make_pipeline(options: PipelineOptions) -> beam.Pipeline:
        direct = options.view_as(DirectOptions)
        direct.direct_running_mode = "multi_processing"
        direct.direct_num_workers = int(argv[0])
        return beam.Pipeline(runner=FnApiRunner(), options=options)

    def run(self: local.LocalEngine, build: Callable[[beam.Pipeline], Any]) -> None:
        pipeline = make_pipeline(self._options)
        build(pipeline)
        result = pipeline.run()
        result.wait_until_finish()
        wanted = MetricsFilter().with_namespace(RUNS)
        (counter,) = result.metrics().query(wanted)["counters"]
        self.run_id = counter.key.metric.name

    local.LocalEngine.run = run  # type: ignore[method-assign]
    local.LocalEngine.is_one_process = False
    return cli.main(argv[1:])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

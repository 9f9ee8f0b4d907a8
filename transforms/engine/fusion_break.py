"""Where an engine is not to make one piece of what comes before and what comes behind."""

from __future__ import annotations

from typing import Any

import apache_beam as beam

from transforms.context import JobSettings


def break_fusion(
    elements: beam.PCollection[Any], label: str, job: JobSettings
) -> beam.PCollection[Any]:
    """Returns the same elements, spread over workers, and kept where a step behind is done again.

    Where all of a run lives in one process nothing is spread nor done again, and each break would
    be some hundredths of a second of a small run.
    """
    return elements if job.is_one_process else elements | label >> beam.Reshuffle()

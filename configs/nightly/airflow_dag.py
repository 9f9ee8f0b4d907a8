"""Starts the flex template each night and waits for the job, as a DAG of Airflow.

Needs apache-airflow-providers-google. Not run by us: a test compiles it, and no more. `launch.json`
is read beside this file: put both, with your names in them, into the folder of DAGs.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

from airflow import DAG
from airflow.providers.google.cloud.operators.dataflow import DataflowStartFlexTemplateOperator

with DAG(
    dag_id="callpress_nightly",
    schedule="0 2 * * *",
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,  # a night that was missed is in the next one: --since 4d, and what waits
    max_active_runs=1,  # a second one would be refused by the catalog's lock
    dagrun_timeout=timedelta(hours=20),  # with FlexRS it may begin six hours late
) as dag:
    DataflowStartFlexTemplateOperator(
        task_id="press",
        project_id="PROJECT",
        location="REGION",
        body=json.loads(Path(__file__).with_name("launch.json").read_text(encoding="utf-8")),
        append_job_name=True,  # a name that no other job has
        wait_until_finished=True,
        retries=0,  # to a second run what failed before is no news: it would end well
    )

-- One row where no run has begun for 26 hours, none where all is well. For DuckDB; CATALOG is the
-- catalog's folder. docs/dataflow.md has the same for BigQuery.
SELECT max(started_at) AS last_started_at, now() - max(started_at) AS age
FROM read_parquet('CATALOG/runs/*/*.parquet', hive_partitioning = true, union_by_name = true)
HAVING max(started_at) IS NULL OR max(started_at) < now() - INTERVAL 26 HOUR;

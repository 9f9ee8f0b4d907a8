-- One row where a night is missing, none where all is well. For DuckDB. CATALOG is a folder: of a
-- catalog in a bucket a copy of `runs` (docs/dataflow.md).
-- A run has its row when it has ended, so this waits as long as a night may take: 24 hours, 5 for the
-- night, 3 to spare; 38 with FlexRS. `callpress runs` knows of a run at work, and so rings after 26.
SELECT max(started_at) AS last_started_at, now() - max(started_at) AS age
FROM read_parquet('CATALOG/runs/*/*.parquet', hive_partitioning = true, union_by_name = true)
HAVING max(started_at) IS NULL OR max(started_at) < now() - INTERVAL 32 HOUR;

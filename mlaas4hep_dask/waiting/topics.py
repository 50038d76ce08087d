"""Names under which workers and clients tell the scheduler something, as Dask events."""

# Of workers: {"stage": "specs" or "blocks", "sample": its name, "events": that are done}.
SAMPLES = "mlaas4hep_dask-samples"
# Of clients: {"run": id, or empty for what belongs to the cluster, "records": [facts, "time"]}.
RECORDS = "mlaas4hep_dask-records"

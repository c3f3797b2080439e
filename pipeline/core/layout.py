"""Names of the files that a job writes below `--output`; each output of a picture defines its own folder."""

SUMMARY_FILE = "summary.json"
SUMMARY_TABLE_FILE = "summary.csv"
FAILURES_FILE = "failures.jsonl"
REPORT_FILE = "report.html"
TABLES_FOLDER = "images"

PROGRESS_FOLDER = "_progress"
MARKER_FILE = f"{PROGRESS_FOLDER}/output.json"
"""Marks the folder as an output of maskbeam, complete or not."""
LEASE_FILE = f"{PROGRESS_FOLDER}/lease.json"
"""Says which run may write to the output."""
JOURNAL_FOLDER = f"{PROGRESS_FOLDER}/journal"
SPOOL_FOLDER = f"{PROGRESS_FOLDER}/spool"
"""Members of compressed archives, unpacked while the job runs."""
SCRATCH_FOLDER = f"{PROGRESS_FOLDER}/tmp"
"""Incomplete files; the next run deletes those of a killed run."""
PACKED_FOLDER = f"{PROGRESS_FOLDER}/packed"
"""Where version 1 kept new tar files until the ones that they replaced had been read."""


def shard_name(shard: int, shards: int) -> str:
    """The name of a shard of the pictures' table, K of N."""
    return f"{TABLES_FOLDER}/part-{shard:05d}-of-{shards:05d}.parquet"


def picture_file(folder: str, image_id: str, suffix: str) -> str:
    """The name of an output's file for a picture."""
    return f"{folder}/{image_id}{suffix}"

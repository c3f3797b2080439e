"""The names of what a job writes below `--output`; the folders of the outputs of a picture name their own."""

SUMMARY_FILE = "summary.json"
SUMMARY_TABLE_FILE = "summary.csv"
FAILURES_FILE = "failures.jsonl"
REPORT_FILE = "report.html"
TABLES_FOLDER = "images"

PROGRESS_FOLDER = "_progress"
MARKER_FILE = f"{PROGRESS_FOLDER}/output.json"
"""Says that the folder is an output of maskbeam, whole or not."""
LEASE_FILE = f"{PROGRESS_FOLDER}/lease.json"
"""Says which run may write to the output."""
JOURNAL_FOLDER = f"{PROGRESS_FOLDER}/journal"
SPOOL_FOLDER = f"{PROGRESS_FOLDER}/spool"
"""Members of compressed archives, unpacked while the job runs."""
SCRATCH_FOLDER = f"{PROGRESS_FOLDER}/tmp"
"""Files that are not whole yet; what a killed run leaves there is deleted by the next."""
PACKED_FOLDER = f"{PROGRESS_FOLDER}/packed"
"""Tar files that wait until those that they replace have been read."""


def shard_name(shard: int, shards: int) -> str:
    """The name of a shard of the pictures' table, K of N."""
    return f"{TABLES_FOLDER}/part-{shard:05d}-of-{shards:05d}.parquet"


def picture_file(folder: str, image_id: str, suffix: str) -> str:
    """The name of the file that an output writes of a picture."""
    return f"{folder}/{image_id}{suffix}"

"""Paths that the workers of a job on other machines can't read are refused before the job."""

from pathlib import Path

import pytest

from pipeline.app.job_options import JobOptions, parse_options
from pipeline.app.runner import Runner, check_reachable
from pipeline.core.errors import OptionError
from pipeline.sources.archives.record_files import RecordFile
from pipeline.sources.folders import FolderSource
from pipeline.sources.record_source import RecordSource
from pipeline.sources.source import Source
from pipeline.sources.tfds import TfdsSource

BUCKET = "gs://bucket"


def on(name: str) -> Runner:
    return Runner(name, runner=None, is_local=False, is_waited_for=False, threads=1)


def options(output: str = f"{BUCKET}/out", model: str = "shapes") -> JobOptions:
    return parse_options(["--input", f"{BUCKET}/in", "--output", output, "--model", model])


def pets(folder: str) -> TfdsSource:
    return TfdsSource("tfds:oxford_iiit_pet/train", file=RecordFile(f"{folder}/pet-train.tfrecord-0-of-1", "train"))


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (FolderSource("/in"), "--input /in: a path of this machine"),
        (FolderSource("/masks", is_truth=True), "--ground_truth /masks: a path of this machine"),
        (
            RecordSource("/in/x.tfrecord*", file=RecordFile("/in/x.tfrecord-1", "x")),
            "--input /in/x.tfrecord*: its files",
        ),
        (pets("/home/me/data"), "--input tfds:oxford_iiit_pet/train: its files are in /home/me/data/pet-train"),
    ],
)
def test_a_path_of_this_machine_is_refused_for_other_machines(source: Source, said: str) -> None:
    with pytest.raises(OptionError) as caught:
        check_reachable(on("DataflowRunner"), options(), [FolderSource(f"{BUCKET}/in"), source])
    assert str(caught.value).startswith(said)
    check_reachable(on("DirectRunner"), options(), [source])


def test_outputs_and_models_of_this_machine_are_refused(tmp_path: Path) -> None:
    for given in (options(output=str(tmp_path)), options(model=str(tmp_path))):
        with pytest.raises(OptionError, match="of this machine"):
            check_reachable(on("DataflowRunner"), given, [])


def test_what_is_in_buckets_is_reachable() -> None:
    sources = [FolderSource(f"{BUCKET}/in"), pets(f"{BUCKET}/data"), FolderSource("s3://masks", is_truth=True)]
    check_reachable(on("DataflowRunner"), options(), sources)

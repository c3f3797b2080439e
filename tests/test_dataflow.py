"""A whole submission to Dataflow, up to its door: a store in memory, and an endpoint that records the job."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from small_archive import Archive, Finished, run_job

pytest.importorskip("google.cloud.storage", reason="a submission needs the extra gcp: pip install 'maskbeam[gcp]'")
pytest.importorskip("gcp_storage_emulator", reason="a submission is recorded with gcp-storage-emulator")

from apache_beam.portability.api import beam_runner_api_pb2
from apache_beam.runners.pipeline_context import PipelineContext
from cloud import BUCKET, Cloud, running_cloud

ROOT = Path(__file__).resolve().parent.parent
GPU = "type:nvidia-l4;count:1;install-nvidia-driver"
ACCELERATOR = "beam:resources:accelerator:v1"
MIN_RAM = "beam:resources:min_ram_bytes:v1"


class Submitted(NamedTuple):
    """One submission, and what was recorded of it."""

    finished: Finished
    cloud: Cloud
    job: dict[str, Any]
    pipeline: beam_runner_api_pb2.Pipeline

    @property
    def steps(self) -> dict[str, beam_runner_api_pb2.PTransform]:
        """All transforms by name."""
        return {transform.unique_name: transform for transform in self.pipeline.components.transforms.values()}


@pytest.fixture(scope="module")
def cloud(archive: Archive) -> Iterator[Cloud]:
    """A cloud with the archive's pictures and masks in its bucket."""
    with running_cloud() as running:
        for image_id in archive.image_ids[:3]:
            running.put(f"images/{image_id}", archive.images / image_id)
            running.put(str(Path("masks", image_id).with_suffix(".png")), archive.mask_path(image_id))
        yield running


def submit(cloud: Cloud, *more: str, model: str = "shapes", **replaced: str) -> Finished:
    """The command as a user gives it."""
    options = {"input": f"gs://{BUCKET}/images", "output": f"gs://{BUCKET}/out", **replaced}
    output = Path(options.pop("output"))
    arguments = [f"--{name}={value}" for name, value in options.items()]
    return run_job(str(output).replace("gs:/", "gs://", 1), *arguments, *cloud.options(*more), model=model)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def setup_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package's in a copy of the source, for the build writes beside it."""
    source = tmp_path_factory.mktemp("source")
    litter = shutil.ignore_patterns("__pycache__", "*.py[cod]", "*.egg-info", "model.keras")
    for folder in ("pipeline", "model"):
        shutil.copytree(ROOT / folder, source / folder, ignore=litter)
    for name in ("setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    return source / "setup.py"


@pytest.fixture(scope="module")
def submitted(cloud: Cloud, setup_file: Path) -> Submitted:
    """The plain path: the package is built by `--setup_file` and staged."""
    finished = submit(
        cloud,
        f"--setup_file={setup_file}",
        "--job_name=archive-2026-03-04",
        "--max_num_workers=7",
        "--machine_type=n2-standard-4",
        "--service_account_email=maskbeam-worker@a-project.iam.gserviceaccount.com",
        "--no_use_public_ips",
        f"--resource_hints=accelerator={GPU}",
        "--resource_hints=min_ram=2GB",
        ground_truth=f"gs://{BUCKET}/masks",
    )
    assert finished.status == 0, finished.err
    (job,) = cloud.jobs
    return Submitted(finished, cloud, job, cloud.pipeline())


def test_launcher_submits_once_and_does_not_wait(submitted: Submitted) -> None:
    assert submitted.cloud.requests == [("POST", submitted.cloud.requests[0][1])]
    assert "/v1b3/projects/a-project/locations/europe-west1/jobs" in submitted.cloud.requests[0][1]
    assert "submitted job-1" in submitted.finished.out
    assert not any(name.startswith("out/") for name in submitted.cloud.names())


def test_recorded_job_has_the_steps_of_the_graph(submitted: Submitted) -> None:
    components = submitted.pipeline.components
    (root,) = submitted.pipeline.root_transform_ids
    top = [components.transforms[step].unique_name for step in components.transforms[root].subtransforms]
    assert {"Locate", "Segment", "AllFailures", "WriteTables", "WriteFailures", "Summarise"} <= set(top)
    assert "Segment/Infer/ParDo(_SegmentDoFn)" in submitted.steps
    assert submitted.job["type"] == 1  # JOB_TYPE_BATCH
    assert submitted.job["name"] == "archive-2026-03-04"


def test_worker_options_fit_the_engine(submitted: Submitted) -> None:
    environment = submitted.job["environment"]
    (pool,) = environment["workerPools"]
    # A process a core with one engine thread each; two bundles at a time, for each may hold a shard's rows.
    assert "use_multiple_sdk_containers" in environment["experiments"]
    assert pool["numThreadsPerWorker"] == 2
    assert pool["machineType"] == "n2-standard-4"
    assert pool["autoscalingSettings"] == {"maxNumWorkers": 7}
    assert pool["ipConfiguration"] == 2  # WORKER_IP_PRIVATE
    options = environment["sdkPipelineOptions"]["options"]
    assert options["save_main_session"] is False
    staged = [package["name"] for package in pool["packages"]]
    assert "workflow.tar.gz" in staged
    assert not any("main_session" in name for name in staged)


def test_the_accelerator_is_asked_for_by_the_inference_step_alone(submitted: Submitted) -> None:
    environments = submitted.pipeline.components.environments
    asking = {
        name
        for name, step in submitted.steps.items()
        if not step.subtransforms
        and step.environment_id
        and ACCELERATOR in environments[step.environment_id].resource_hints
    }
    assert asking == {"Segment/Infer/ParDo(_SegmentDoFn)"}
    hints = environments[submitted.steps["Segment/Infer/ParDo(_SegmentDoFn)"].environment_id].resource_hints
    assert hints[ACCELERATOR] == GPU.encode()
    # Other hints stay the whole job's.
    assert all(MIN_RAM in environments[step.environment_id].resource_hints for step in _leaves(submitted.pipeline))


def _leaves(pipeline: beam_runner_api_pb2.Pipeline) -> list[beam_runner_api_pb2.PTransform]:
    transforms = pipeline.components.transforms.values()
    return [step for step in transforms if not step.subtransforms and step.environment_id]


# What each grouping that grows with the pictures takes in: ids and primitives, or records by our own coder. All
# other groupings take in a source, a sum or a number a bundle.
SHUFFLED = {
    "Locate/JoinByKey": "TupleCoder[StrUtf8Coder, FastPrimitivesCoder]",
    "WriteTables/GroupByShard": "TupleCoder[VarIntCoder, BytesCoder]",
    "RepackMasks/GroupByPart": "TupleCoder[TupleCoder[StrUtf8Coder, VarIntCoder], BytesCoder]",
}
OTHERS = re.compile(r"Sum|Count|SpreadSources|SpreadPaths")


def test_no_pixels_cross_a_shuffle(submitted: Submitted) -> None:
    """By the coders; test_shuffle.py holds the bytes that really cross against it."""
    components = submitted.pipeline.components
    context = PipelineContext(components)
    coders = {
        name: repr(context.coders.get_by_id(components.pcollections[next(iter(step.inputs.values()))].coder_id))
        for name, step in submitted.steps.items()
        if step.spec.urn == "beam:transform:group_by_key:v1"
    }
    for name, expected in SHUFFLED.items():
        assert expected in coders[name]
    assert {name for name in coders if name not in SHUFFLED and not OTHERS.search(name)} == set()
    # Elements that a runner moves between two kinds of machines also have our own coders.
    taken = submitted.steps["Segment/Infer/ParDo(_SegmentDoFn)"]
    (located,) = (components.pcollections[name].coder_id for name in taken.inputs.values())
    assert repr(context.coders.get_by_id(located)) == "LocatedCoder"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"model": "shappes"}, "--model shappes"),
        ({"input": f"gs://{BUCKET}/nothing"}, "--input"),
        ({"input": str(ROOT / "pipeline/docs")}, "a path of this machine"),
        ({"model": str(ROOT / "model/pretrained/shapes")}, "a folder of this machine"),
        ({"option": "--max_num_wokers=3"}, "unknown option --max_num_wokers"),
        ({"option": "--ignore_label=two"}, "--ignore_label: 'two'"),
        ({"option": "--region="}, "needs --region"),
    ],
)
def test_a_bad_option_or_model_fails_before_launch(cloud: Cloud, more: dict[str, str], said: str) -> None:
    before = len(cloud.requests)
    option = more.pop("option", "--job_name=never")
    finished = submit(cloud, option, **more)
    assert finished.status == 2, finished.err
    assert said in finished.err
    assert finished.err.count("\n") == 1
    assert len(cloud.requests) == before


def test_a_template_is_written_and_nothing_submitted(submitted: Submitted) -> None:
    """What Google's Flex launcher does: it names a place for the job's description, and starts the job from there."""
    before = len(submitted.cloud.requests)
    finished = submit(submitted.cloud, f"--template_location=gs://{BUCKET}/flex/job.json", "--job_name=flex")
    assert finished.status == 0, finished.err
    assert len(submitted.cloud.requests) == before
    assert b'"name": "flex"' in submitted.cloud.get("flex/job.json")


@pytest.mark.full
def test_staged_package_installs_into_an_empty_environment_and_starts_the_workers_imports(
    submitted: Submitted, tmp_path: Path
) -> None:
    package, graph = tmp_path / "workflow.tar.gz", tmp_path / "pipeline.pb"
    package.write_bytes(submitted.cloud.get("/workflow.tar.gz"))
    graph.write_bytes(submitted.pipeline.SerializeToString())
    python = tmp_path / "empty" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "empty"], check=True, timeout=120)
    install = [python, "-m", "pip", "install", "-q", "-c", ROOT / "constraints.txt", package]
    subprocess.run(install, check=True, timeout=900, cwd=tmp_path)
    # What a worker does before its first element: Beam's worker is imported, every DoFn of the job unpickled, the
    # engine loaded from the model that the package carries.
    script = """
import sys
from apache_beam.internal import pickler
from apache_beam.portability.api import beam_runner_api_pb2
from apache_beam.runners.worker import sdk_worker_main
graph = beam_runner_api_pb2.Pipeline.FromString(open(sys.argv[1], "rb").read())
loaded = 0
for step in graph.components.transforms.values():
    if step.spec.urn == "beam:transform:pardo:v1":
        payload = beam_runner_api_pb2.ParDoPayload.FromString(step.spec.payload)
        if not payload.do_fn.payload:
            continue  # one of Beam's own, known by its name
        do_fn = pickler.loads(payload.do_fn.payload)
        loaded += 1
        if "_SegmentDoFn" in step.unique_name:
            do_fn[0].setup()
assert "tensorflow" not in sys.modules
print("unpickled", loaded)
"""
    ran = subprocess.run(
        [python, "-c", script, graph], capture_output=True, text=True, timeout=300, cwd=tmp_path, env={"PATH": ""}
    )
    assert ran.returncode == 0, ran.stderr
    assert int(ran.stdout.split()[-1]) > 20

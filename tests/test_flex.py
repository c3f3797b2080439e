"""The Dataflow kit by its parts: parameters and launcher of the Flex Template, image, schedule."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from small_archive import TINY_MODEL, Archive, run_job

from pipeline.app.job_options import parse_options
from pipeline.app.parser import command_parser
from pipeline.dataflow import launch
from pipeline.dataflow.template import container_spec, metadata

ROOT = Path(__file__).resolve().parent.parent
KIT = ROOT / "pipeline" / "dataflow"
TODAY = date(2026, 3, 4)
REQUIRED = ["--input=gs://a/b", "--model=shapes", "--output=gs://a/runs/{date}"]


def parameters() -> dict[str, dict[str, Any]]:
    return {parameter["name"]: parameter for parameter in metadata()["parameters"]}


def test_every_option_is_a_parameter_and_fits_googles_rules() -> None:
    options = {action.dest for action in command_parser()._actions} - {"help"}
    plan = {name for name in options if name.startswith("plan")}
    assert set(parameters()) == options - plan | {"resource_hints"}
    for name, parameter in parameters().items():
        assert re.fullmatch(r"[a-zA-Z][a-zA-Z0-9_]*", name)
        assert parameter["label"]
        assert "%(" not in parameter["helpText"]
        assert parameter["paramType"] == "TEXT"
        for regex in parameter["regexes"]:
            re.compile(regex)
    assert {name for name, parameter in parameters().items() if not parameter["isOptional"]} == {
        *("input", "model", "output"),
    }


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("backend", "litert", "torch"),
        ("batch_size", "8", "eight"),
        ("ignore_label", "255", "-"),
        ("ignore_label", "-1", "1.5"),
        ("ignore_label", "#ff00Ff", "#ff00f"),
        ("mode", "resize", "stretch"),
        ("max_failure_ratio", "0.25", "few"),
        ("retry_failed", "true", "yes"),
        ("input", "gs://a/b c", ""),
        ("resource_hints", "accelerator=type:nvidia-l4;count:1;install-nvidia-driver", "min_ram=2GB"),
    ],
)
def test_parameters_are_checked_before_a_machine_starts(name: str, good: str, bad: str) -> None:
    (regex,) = parameters()[name]["regexes"]
    assert re.search(regex, good)
    assert not re.search(regex, bad)


def test_defaults_pass_their_own_check() -> None:
    for action in command_parser()._actions:
        if action.dest in parameters() and action.default not in (None, False):
            assert re.search(parameters()[action.dest]["regexes"][0], str(action.default)), action.dest


def test_the_template_file_names_one_image_for_launcher_and_workers() -> None:
    spec = container_spec("europe-docker.pkg.dev/p/r/maskbeam:1", "worker@p.iam.gserviceaccount.com")
    assert spec["image"] == spec["defaultEnvironment"]["sdkContainerImage"]
    assert spec["sdkInfo"] == {"language": "PYTHON"}
    command = [sys.executable, "-m", "pipeline.dataflow.template", "--image", "an/image:1"]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60).stdout
    assert json.loads(printed) == container_spec("an/image:1")


def test_parameters_become_options() -> None:
    translated = launch.translate(
        [*REQUIRED, "--input=gs://a/b | gs://c/d", "--retry_failed=true", "--label_map=", "--max_num_workers=3"], TODAY
    )
    assert translated == [
        *("--input=gs://a/b", "--model=shapes", "--output=gs://a/runs/2026-03-04"),
        *("--input=gs://a/b", "--input=gs://c/d", "--retry_failed", "--max_num_workers=3", "--runner=DataflowRunner"),
    ]
    options = parse_options(translated)
    assert options.retry_failed
    assert options.input == ("gs://a/b", "gs://a/b", "gs://c/d")


def test_a_flag_may_be_false_and_nothing_else() -> None:
    assert "--retry_failed" not in launch.translate([*REQUIRED, "--retry_failed=False"], TODAY)
    with pytest.raises(ValueError, match="neither true nor false"):
        launch.translate([*REQUIRED, "--retry_failed=1"], TODAY)
    assert launch.main([*REQUIRED, "--retry_failed=1"]) == 2


def test_workers_get_the_launchers_image_unless_another_is_named() -> None:
    assert "--sdk_container_image=an/image:1" in launch.translate(REQUIRED, TODAY, "an/image:1")
    named = launch.translate([*REQUIRED, "--sdk_container_image=other"], TODAY, "an/image:1")
    assert [option for option in named if "image" in option] == ["--sdk_container_image=other"]


def test_a_trigger_that_comes_twice_changes_nothing(archive: Archive, tmp_path: Path) -> None:
    """The same day gives the same output, where the second job finds the first one's results."""
    arguments = [f"--input={archive.images}", f"--model={TINY_MODEL}", f"--output={tmp_path}/{{date}}"]
    local = "--runner=DirectRunner"
    seen = []
    for _ in range(2):
        translated = launch.translate([*arguments, local], TODAY)
        given = [option for option in translated if not option.startswith(("--model", "--output"))]
        finished = run_job(tmp_path / "2026-03-04", *given)
        assert finished.status == 0, finished.err
        masks = {path: path.stat().st_mtime_ns for path in finished.output.glob("masks/**/*.png")}
        seen.append((finished.contents(), masks, finished.summary["run"]["resumed"]))
    assert f"--output={tmp_path}/2026-03-04" in translated
    assert seen[0][:2] == seen[1][:2]
    assert (seen[0][2], seen[1][2]) == (0, len(archive.image_ids))
    assert f"--output={tmp_path}/2026-03-05" in launch.translate(arguments, date(2026, 3, 5))


# The image. It can't be built without a container engine, so it is read, and its lines are run one by one.


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions, continued lines joined, comments left out."""
    text = (KIT / "Dockerfile").read_text("utf-8")
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in joined.splitlines() if line.strip()]


def stage(name: str) -> list[tuple[str, str]]:
    """The instructions of one build stage."""
    found: list[tuple[str, str]] = []
    inside = False
    for instruction, rest in instructions():
        if instruction == "FROM":
            inside = rest.endswith(f" AS {name}")
        elif inside:
            found.append((instruction, rest))
    return found


def test_image_is_built_from_named_versions() -> None:
    bases = [rest.split()[0] for instruction, rest in instructions() if instruction == "FROM"]
    assert bases[-1] == "base"  # what is built by default is the CPU image
    assert not any(base.endswith(":latest") for base in bases)
    arguments = dict(rest.split("=", 1) for instruction, rest in instructions() if instruction == "ARG")
    pins = dict(re.findall(r"^([\w-]+)==([\w.]+)", (ROOT / "constraints.txt").read_text("utf-8"), re.MULTILINE))
    assert arguments["BEAM_VERSION"] == pins["apache-beam"]
    assert f"python{arguments['PYTHON_VERSION'].replace('.', '')}-template-launcher" in " ".join(bases)


def test_image_copies_what_is_there_and_not_ignored() -> None:
    ignored = [line for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if line[:1] not in ("", "#")]
    for instruction, rest in instructions():
        if instruction != "COPY" or rest.startswith("--from"):
            continue
        for source in rest.split()[:-1]:
            assert source in ignored or (ROOT / source).exists(), source
            assert source not in ignored


def test_cpu_image_has_no_tensorflow_and_gpu_image_has() -> None:
    assert "tensorflow" not in repr(stage("base") + stage("cpu"))
    assert "tensorflow[and-cuda]" in repr(stage("gpu"))
    for instruction, rest in instructions():
        if instruction == "RUN" and "pip install" in rest:
            for line in rest.split("&&"):
                assert "pip install" not in line or ("--no-cache-dir" in line and "-c " in line)


def test_image_starts_workers_and_templates() -> None:
    base = dict(stage("base"))
    assert json.loads(base["ENTRYPOINT"]) == ["/opt/apache/beam/boot"]
    environment = dict(pair.split("=", 1) for pair in shlex.split(base["ENV"]))
    assert environment["FLEX_TEMPLATE_PYTHON_PY_FILE"] == "/opt/launch/launch.py"
    assert environment[launch.IMAGE_VARIABLE] == "${IMAGE}"
    assert any("cp pipeline/dataflow/launch.py /opt/launch/launch.py" in rest for _, rest in stage("base"))


@pytest.mark.full
def test_the_images_own_pip_line_makes_a_launcher(tmp_path: Path) -> None:
    """The copied files alone, in an empty environment, installed by the Dockerfile's own line."""
    context = tmp_path / "context"
    for instruction, rest in stage("base"):
        if instruction == "COPY" and not rest.startswith("--from"):
            *sources, target = rest.split()
            (context / target).mkdir(parents=True, exist_ok=True)
            for source in map(Path, sources):
                if (ROOT / source).is_dir():
                    shutil.copytree(ROOT / source, context / target, dirs_exist_ok=True)
                else:
                    shutil.copy(ROOT / source, context / target)
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True, timeout=120)
    environment = {**os.environ, "PATH": f"{tmp_path}/venv/bin:{os.environ['PATH']}"}
    (line,) = [rest for instruction, rest in stage("base") if instruction == "RUN" and "pip install" in rest]
    subprocess.run(["bash", "-ec", line], cwd=context, env=environment, check=True, timeout=900)
    (tmp_path / "launch").mkdir()
    shutil.copy(KIT / "launch.py", tmp_path / "launch")
    # As Google's launcher starts it. A model that isn't there is said in one line, and nothing is submitted.
    command = [
        "python",
        str(tmp_path / "launch" / "launch.py"),
        "--input=gs://a/b",
        "--model=nothing",
        "--output=gs://a/c",
    ]
    ran = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 2
    assert ran.stderr.startswith("maskbeam: --model nothing: neither a folder nor one of the carried models (")
    assert "shapes" in ran.stderr
    check = ["python", "-c", "import importlib.util as u; print(u.find_spec('tensorflow'))"]
    assert subprocess.run(check, env=environment, capture_output=True, text=True, timeout=60).stdout == "None\n"


# The script and the schedule.


def test_deploy_says_what_it_needs() -> None:
    for command, said in (("build", "set IMAGE"), ("launch", "set TEMPLATE"), ("", "deploy.sh build")):
        ran = subprocess.run(
            ["bash", KIT / "deploy.sh", *command.split()],
            env={"PATH": os.environ["PATH"]},
            capture_output=True,
            text=True,
        )
        assert ran.returncode == 2
        assert said in ran.stderr


def test_deploy_stages_the_template_and_launches_with_any_value(tmp_path: Path) -> None:
    """With programs in place of gcloud and docker that write down how they were called."""
    for name in ("gcloud", "docker"):
        fake = tmp_path / name
        fake.write_text(f'#!/bin/sh\nfor a; do printf "%s\\n" "$a"; done >>{tmp_path}/called\ncat >>{tmp_path}/input\n')
        fake.chmod(0o755)
    environment = {
        **os.environ,
        **{"PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHON": sys.executable, "IMAGE": "r/p/maskbeam:1"},
        **{"TEMPLATE": "gs://a/t.json", "PROJECT": "p", "REGION": "europe-west1"},
    }
    for arguments in (["build"], ["stage"], ["launch", "input=gs://a/b,c", "output=gs://a/{date}"]):
        subprocess.run(
            ["bash", KIT / "deploy.sh", *arguments], env=environment, check=True, timeout=60, stdin=subprocess.DEVNULL
        )
    called = (tmp_path / "called").read_text().splitlines()
    assert "IMAGE=r/p/maskbeam:1" in called
    assert called[called.index("--target") + 1] == "cpu"
    assert "^~^input=gs://a/b,c~output=gs://a/{date}" in called
    assert json.loads((tmp_path / "input").read_text())["image"] == "r/p/maskbeam:1"


def test_schedule_launches_the_template_with_parameters_it_has() -> None:
    text = (KIT / "schedule.tf").read_text("utf-8")
    assert "flexTemplates:launch" in text
    block = re.search(r"parameters = \{(.*?)\n        \}", text, re.DOTALL)
    assert block is not None
    given = dict(re.findall(r"(\w+)\s*=\s*(\S+)", block[1]))
    assert set(given) <= set(parameters())
    assert {name for name, parameter in parameters().items() if not parameter["isOptional"]} <= set(given)
    assert launch.DATE_PLACE in given["output"]


def test_schedule_gives_no_more_than_the_least_roles() -> None:
    text = (KIT / "schedule.tf").read_text("utf-8")
    assert set(re.findall(r'"(roles/[\w.]+)"', text)) == {
        *("roles/dataflow.worker", "roles/dataflow.developer", "roles/iam.serviceAccountUser"),
        *("roles/storage.objectUser", "roles/storage.objectViewer", "roles/storage.legacyBucketReader"),
        "roles/artifactregistry.reader",
    }
    # Over the project as a whole: only what Dataflow itself asks for.
    project = re.findall(r'resource "google_project_iam_member".*?\n}', text, re.DOTALL)
    assert not any("storage" in block for block in project)


@pytest.mark.skipif(shutil.which("terraform") is None, reason="terraform is not installed, so schedule.tf is only read")
def test_schedule_is_well_formed() -> None:
    command = ["terraform", "fmt", "-check", "-diff", str(KIT / "schedule.tf")]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stdout + ran.stderr

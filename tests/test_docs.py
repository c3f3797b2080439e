"""README and docs: their links lead somewhere, their tables are complete, and their commands work as printed."""

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from packing import tar_of
from PIL import Image
from small_archive import TINY_MODEL, Archive

from model.cli import build_parser as model_parser
from pipeline.app.job_options import parse_options
from pipeline.app.parser import command_parser
from pipeline.core.errors import OptionError

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "pipeline/docs").glob("*.md"))]
PYTHON = ".venv/bin/python"


@dataclass(frozen=True)
class Command:
    """One command of a page.

    Args:
        page: its file name.
        words: as a shell splits them, variables before the command left out.
    """

    page: str
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.page}: {' '.join(self.words)}"

    @property
    def job(self) -> list[str] | None:
        """The job's arguments, None where it is another command."""
        for start in (("./run_local.sh",), (PYTHON, "-m", "pipeline"), (".venv/bin/maskbeam", "run")):
            if self.words[: len(start)] == start:
                return list(self.words[len(start) :])
        return None

    @property
    def model(self) -> list[str] | None:
        """The arguments of `python -m model`, None where it is another command."""
        if self.words[:3] == (PYTHON, "-m", "model"):
            return list(self.words[3:])
        if self.words[0] == ".venv/bin/maskbeam" and self.words[1] in ("train", "export", "predict", "sample"):
            return list(self.words[1:])
        return None


def commands() -> Iterator[Command]:
    for page in PAGES:
        for block in re.findall(r"^```sh\n(.*?)^```", page.read_text("utf-8"), re.S | re.M):
            for line in block.replace("\\\n", " ").splitlines():
                words = shlex.split(line, comments=True)
                while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
                    words.pop(0)
                for part in " ".join(map(shlex.quote, words)).split(" '&&' "):
                    split = shlex.split(part)
                    if split and split[0] != "export":
                        yield Command(page.name, tuple(split))


COMMANDS = list(commands())


def test_there_are_commands() -> None:
    assert len(COMMANDS) > 30
    assert sum(command.job is not None for command in COMMANDS) > 15


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text("utf-8")
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        target, _, anchor = link.partition("#")
        if "://" in link:
            continue
        linked = page.parent / target if target else page
        assert linked.exists(), link
        if anchor:
            headings = re.findall(r"^#+ (.+)$", linked.read_text("utf-8"), re.M)
            slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor in slugs, link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_name_no_path_of_a_developers_machine(page: Path) -> None:
    text = page.read_text("utf-8")
    assert not re.search(r"\.\./shared|/home/|/tmp/|/root/", text)


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.job is not None and "|" not in str(c)], ids=str)
def test_the_jobs_commands_have_options_that_exist(command: Command) -> None:
    arguments = command.job or []
    if not arguments or "..." in arguments:
        return
    options = parse_options([argument for argument in arguments if argument != "--help"] or ["--help"])
    assert options.input


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.model is not None], ids=str)
def test_the_models_commands_have_options_that_exist(command: Command) -> None:
    try:
        model_parser().parse_args(command.model)
    except OptionError as error:
        pytest.fail(f"{command}: {error}")


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.job is None and c.model is None], ids=str)
def test_other_commands_name_files_and_modules_that_exist(command: Command) -> None:
    for word in command.words:
        if re.fullmatch(r"(tests|pipeline|model)/[\w./-]+", word.rstrip("/")):
            assert (ROOT / word).exists(), word
    if command.words[:2] == (PYTHON, "-m"):
        module = command.words[2].replace(".", "/")
        known = command.words[2] in ("pip", "pytest", "maskbeam")
        assert known or any((ROOT / name).exists() for name in (f"{module}.py", f"{module}/__main__.py")), module
    scripts = [word for word in command.words if word.startswith("tests/benchmarks/")]
    if scripts:
        text = (ROOT / scripts[0]).read_text("utf-8")
        for option in (word for word in command.words if word.startswith("--")):
            assert f'"{option.partition("=")[0]}"' in text, option


def test_every_option_of_the_job_is_in_the_reference_and_no_other() -> None:
    page = (ROOT / "pipeline/docs/options.md").read_text("utf-8")
    rows = set(re.findall(r"^\| `(--\w+)", page, re.M))
    declared = {
        option for action in command_parser()._actions for option in action.option_strings if option[:2] == "--"
    }
    assert rows == declared - {"--help"}


def test_every_option_of_training_is_in_the_reference() -> None:
    page = (ROOT / "pipeline/docs/training.md").read_text("utf-8")
    (commands_of,) = (action for action in model_parser()._actions if hasattr(action, "_name_parser_map"))
    for name, parser in commands_of._name_parser_map.items():
        for action in parser._actions:
            for option in action.option_strings:
                if option.startswith("--") and option != "--help":
                    assert f"`{option}" in page or f"{option}" in page, f"{name} {option}"


@pytest.fixture(scope="module")
def newcomer(archive: Archive, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that the README's recipes name, made of a small archive and the tests' tiny model."""
    folder = tmp_path_factory.mktemp("newcomer")
    shutil.copytree(TINY_MODEL, folder / "my_model")
    masks: dict[str, bytes] = {}
    pictures: dict[str, bytes] = {}
    for image_id in archive.image_ids[:6]:
        pictures[image_id] = (archive.images / image_id).read_bytes()
        mask = folder / "photos/masks" / Path(image_id).with_suffix(".png")
        mask.parent.mkdir(parents=True, exist_ok=True)
        # The recipe's label map: 1=0,2=1,3=2.
        Image.fromarray((archive.truth(image_id) + 1).astype(np.uint8)).save(mask)
        masks[image_id] = mask.read_bytes()
    for place in ("photos/images", "Pictures", "archive"):
        for image_id, data in pictures.items():
            (folder / place / image_id).parent.mkdir(parents=True, exist_ok=True)
            (folder / place / image_id).write_bytes(data)
    (folder / "holiday.tar").write_bytes(tar_of(pictures))
    rows = [f"photos/images/{image_id},{'north' if n % 2 else 'south'}" for n, image_id in enumerate(pictures)]
    (folder / "fields.csv").write_text("image,site\n" + "\n".join(rows) + "\n")
    return folder


def _runs_here(command: Command) -> bool:
    return (
        command.job is not None and bool(command.job) and not re.search(r"tfds:|gs://|s3://|az://|Runner", str(command))
    )


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.page == "README.md" and _runs_here(c)], ids=str)
def test_the_readmes_recipes_run_as_printed(command: Command, newcomer: Path) -> None:
    words = [word.replace("~", str(newcomer)) for word in command.job or []]
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", *words],
        cwd=newcomer,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "PYTHONSAFEPATH": "1", "HOME": str(newcomer)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "6 pictures" in done.stdout
    if "--plan" not in words:
        assert (newcomer / words[words.index("--output") + 1] / "summary.json").is_file()


def test_the_readmes_python_runs_as_printed(newcomer: Path) -> None:
    picture = next((newcomer / "Pictures").rglob("*.png"))
    shutil.copy(picture, newcomer / "cat.jpg")
    (program,) = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text("utf-8"), re.S | re.M)
    # The package is installed under this name; a checkout has it here.
    program = program.replace("from maskbeam", "from pipeline.maskbeam")
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=newcomer, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("{'pet': ")

"""Shared fixtures: a model small enough to be computed by hand, and an archive for it."""

import shutil
import signal
from pathlib import Path

import hypothesis
import pytest
from small_archive import TINY_MODEL, Archive, Finished, make_archive, run_job

from pipeline.core.process import prepare_process
from pipeline.core.spec import ModelSpec
from pipeline.engines.model_folder import open_model

# For mutation tests: a failure is enough, so examples are not shrunk.
hypothesis.settings.register_profile(
    "mutation", phases=(hypothesis.Phase.explicit, hypothesis.Phase.generate), database=None, derandomize=True
)

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Started in a shell's background: processes that tests interrupt would inherit the ignored signal.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True, scope="session")
def _prepared_process() -> None:
    """As every worker and command does before its first picture."""
    prepare_process()


@pytest.fixture(scope="session")
def tiny_model() -> Path:
    """A real model folder of 1.4 kB: 32×32 px, three classes, the brightest channel wins."""
    return TINY_MODEL


@pytest.fixture(scope="session")
def tiny_model_spec() -> ModelSpec:
    """The metadata of the tiny model."""
    return open_model(str(TINY_MODEL)).spec


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    """Twenty small pictures with masks; to be read only."""
    return make_archive(tmp_path_factory.mktemp("archive"))


@pytest.fixture(scope="session")
def scored_job(archive: Archive, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """One complete run on the archive with ground truth and default options; to be read only."""
    output = tmp_path_factory.mktemp("scored") / "out"
    return run_job(output, "--input", archive.images, "--ground_truth", archive.masks)


@pytest.fixture
def some(archive: Archive, tmp_path: Path) -> Archive:
    """Four pictures and their masks, to be changed at will."""
    names = ("a_png_in_truth.jpg", "palette.gif", "north/picture_01.jpg", "sideways.jpg")
    for name in names:
        for folder, source in (("images", archive.images / name), ("masks", archive.mask_path(name))):
            target = tmp_path / folder / Path(name).parent
            target.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)
    return Archive(tmp_path / "images", tmp_path / "masks", tuple(sorted(names)))

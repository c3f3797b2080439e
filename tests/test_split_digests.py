"""The split file: which pictures a model was trained on, recognised by their content."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from small_archive import TINY_MODEL, Archive, run_job

from pipeline.core.errors import ModelError
from pipeline.core.spec import ModelSpec
from pipeline.core.split_digests import PARTS, SPLIT_FILE, SplitDigests, picture_digest
from pipeline.engines.model_folder import carried_names, folder_of


def _split() -> SplitDigests:
    return SplitDigests.of({"train": [7, 2**64 - 1, 7, 3], "validation": [5], "test": [9, 3]})


def test_the_digest_is_the_start_of_the_sha256() -> None:
    assert f"{picture_digest(b'picture'):016x}" == hashlib.sha256(b"picture").hexdigest()[:16]


def test_a_picture_is_found_in_its_part() -> None:
    split = _split()
    found = {digest: split.part_of(digest) for digest in (0, 3, 5, 6, 7, 9, 2**64 - 1)}
    assert found == {0: None, 3: "train", 5: "validation", 6: None, 7: "train", 9: "test", 2**64 - 1: "train"}
    assert split.shared("train", "test") == 1
    assert split.shared("train", "validation") == 0


def test_the_file_reads_back_as_it_was_written() -> None:
    split = _split()
    again = SplitDigests.from_json(split.to_json())
    for part in PARTS:
        np.testing.assert_array_equal(again.digests[part], split.digests[part])
    document = json.loads(split.to_json())
    assert document == {
        **{"schema_version": 1, "digest": "the first 8 bytes of the SHA-256 of a picture's file"},
        **{"train": document["train"], "validation": "AAAAAAAAAAU=", "test": document["test"]},
    }
    assert len(split.to_json().splitlines()) == 7  # a line a key
    assert SplitDigests.from_json(SplitDigests.of({}).to_json()).part_of(0) is None


def test_a_hundred_thousand_pictures_take_little() -> None:
    rng = np.random.default_rng(0)
    split = SplitDigests.of({"train": rng.integers(0, 2**64, 100_000, np.uint64).tolist()})
    assert len(split.to_json()) < 1_100_000


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"schema_version": 2, "train": "", "validation": "", "test": ""}',
        '{"schema_version": 0, "train": "", "validation": "", "test": ""}',
        '{"schema_version": 1, "train": "", "validation": ""}',
        '{"schema_version": 1, "train": "AAAA", "validation": "", "test": ""}',
        '{"schema_version": 1, "train": "no base64!", "validation": "", "test": ""}',
        '{"schema_version": 1, "train": "AAAA!AAAA?AAU=", "validation": "", "test": ""}',
        '{"schema_version": 1, "train": 5, "validation": "", "test": ""}',
    ],
)
def test_what_is_no_split_is_refused(text: str) -> None:
    with pytest.raises(ModelError, match=r"split\.json"):
        SplitDigests.from_json(text)


@pytest.mark.parametrize("name", carried_names())
def test_the_carried_models_say_what_they_were_trained_on(name: str) -> None:
    folder = Path(folder_of(name))
    spec = ModelSpec.from_json((folder / "metadata.json").read_text())
    text = (folder / SPLIT_FILE).read_bytes()
    assert spec.files[SPLIT_FILE] == {"sha256": hashlib.sha256(text).hexdigest(), "bytes": len(text)}
    split = SplitDigests.from_json(text.decode())
    sizes = {part: split.digests[part].size for part in PARTS}
    training = spec.training
    assert sizes == {
        "train": training["pictures"],
        "validation": training["validation_pictures"],
        "test": spec.scores["pictures"],
    }
    assert split.shared("train", "test") == split.shared("train", "validation") == 0


@pytest.fixture
def model(archive: Archive, tmp_path: Path) -> Path:
    """The tiny model as if it had been trained on six of the archive's pictures, the epoch chosen on three more."""
    folder = Path(shutil.copytree(TINY_MODEL, tmp_path / "model"))
    digests = [picture_digest((archive.images / image_id).read_bytes()) for image_id in archive.image_ids]
    _write_split(folder, SplitDigests.of({"train": digests[:6], "validation": digests[6:9], "test": digests[9:11]}))
    return folder


def _write_split(folder: Path, split: SplitDigests) -> None:
    text = split.to_json().encode()
    (folder / SPLIT_FILE).write_bytes(text)
    metadata = json.loads((folder / "metadata.json").read_text("utf-8"))
    metadata["files"][SPLIT_FILE] = {"sha256": hashlib.sha256(text).hexdigest(), "bytes": len(text)}
    (folder / "metadata.json").write_text(json.dumps(metadata), "utf-8")


def _renamed(archive: Archive, folder: Path) -> tuple[Path, Path]:
    """The archive's pictures and masks under other names."""
    for image_id in archive.image_ids:
        name = image_id.replace("/", "_")
        for source, kind, ending in (
            (archive.images / image_id, "images", Path(image_id).suffix),
            (archive.mask_path(image_id), "masks", ".png"),
        ):
            target = folder / kind / f"other_{Path(name).stem}{ending}"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)
    return folder / "images", folder / "masks"


def test_a_job_counts_the_pictures_that_were_trained_on_under_any_name(
    archive: Archive, model: Path, tmp_path: Path
) -> None:
    images, masks = _renamed(archive, tmp_path / "renamed")
    done = run_job(tmp_path / "out", "--input", images, "--ground_truth", masks, model=model)
    assert (done.status, done.summary["images"]["segmented"]) == (0, len(archive.image_ids))
    assert (done.summary["images"]["trained_on"], done.summary["images"]["validated_on"]) == (6, 3)
    said = f"6 of {len(archive.image_ids)} pictures were trained on, 3 more chose the model's best epoch"
    assert said in done.out.replace("\n", " ")
    # In an archive, resumed, and with more pictures: what was known of the others is kept.
    shutil.copy(archive.images / archive.image_ids[0], images / f"again{Path(archive.image_ids[0]).suffix}")
    again = run_job(tmp_path / "out", "--input", images, "--ground_truth", masks, model=model)
    assert again.summary["run"]["resumed"] == len(archive.image_ids)
    assert (again.summary["images"]["trained_on"], again.summary["images"]["validated_on"]) == (7, 3)
    packed = shutil.make_archive(str(tmp_path / "packed"), "zip", images)
    zipped = run_job(tmp_path / "zipped", "--input", packed, model=model)
    assert (zipped.summary["images"]["trained_on"], zipped.summary["images"]["validated_on"]) == (7, 3)


def test_a_model_of_other_pictures_was_trained_on_none_of_these(archive: Archive, model: Path, tmp_path: Path) -> None:
    _write_split(model, SplitDigests.of({"train": [1, 2, 3]}))
    done = run_job(tmp_path / "out", "--input", archive.images, model=model)
    assert (done.summary["images"]["trained_on"], done.summary["images"]["validated_on"]) == (0, 0)
    assert "trained on" not in done.out


def test_a_model_without_its_split_file_does_not_say(archive: Archive, model: Path, tmp_path: Path) -> None:
    (model / SPLIT_FILE).unlink()
    done = run_job(tmp_path / "out", "--input", archive.images, model=model)
    assert (done.summary["images"]["trained_on"], done.summary["images"]["validated_on"]) == (None, None)


@pytest.mark.parametrize("content", ["", "{}", '{"schema_version": 1, "train": "", "validation": "", "test": ""}'])
def test_a_changed_split_file_is_refused_before_any_work(
    archive: Archive, model: Path, tmp_path: Path, content: str
) -> None:
    (model / SPLIT_FILE).write_text(content)
    done = run_job(tmp_path / "out", "--input", archive.images, model=model)
    assert done.status == 2
    assert "split.json has another digest than in metadata.json" in done.err
    assert not (tmp_path / "out").exists()

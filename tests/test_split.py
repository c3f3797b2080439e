"""The split file: which pictures a model was trained on, recognised by their content."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from pipeline.core.errors import ModelError
from pipeline.core.spec import ModelSpec
from pipeline.core.split import PARTS, SPLIT_FILE, SplitDigests, picture_digest
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
    assert document["validation"] == "AAAAAAAAAAU="
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
        '{"schema_version": 1, "train": "", "validation": ""}',
        '{"schema_version": 1, "train": "AAAA", "validation": "", "test": ""}',
        '{"schema_version": 1, "train": "no base64!", "validation": "", "test": ""}',
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

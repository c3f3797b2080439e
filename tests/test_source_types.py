"""Adding a kind of source: one class, and one more entry of the registry."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from small_archive import Archive, Finished, run_job

from pipeline.core.records import Failure, FileRef
from pipeline.sources import sources
from pipeline.sources.ignored import Ignored
from pipeline.sources.source import Address, Listed, Source
from pipeline.storage import filesystem


@dataclass(frozen=True, slots=True)
class ListSource(Source):
    """The files that a text names, `list:FOLDER:NAME,NAME…`, all below one folder."""

    @classmethod
    def recognise(cls, address: Address) -> Sequence[Source] | None:
        return [cls(address.text)] if address.text.startswith("list:") else None

    @property
    def base_name(self) -> str:
        return "list"

    def items(self) -> Iterator[Listed | Ignored | Failure]:
        _, folder, names = self.uri.split(":")
        for name in names.split(","):
            stored = filesystem.stat_file(filesystem.join(folder, name))
            yield self.listed(name, FileRef(stored.uri, stored.size_bytes, stored.version))


def test_a_kind_of_source_is_one_class_and_one_entry(
    archive: Archive, scored_job: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "SOURCE_TYPES", (ListSource, *sources.SOURCE_TYPES))
    masks = [archive.mask_path(image_id).relative_to(archive.masks).as_posix() for image_id in archive.image_ids]
    job = run_job(
        tmp_path / "out",
        *("--input", f"list:{archive.images}:{','.join(archive.image_ids)}"),
        *("--ground_truth", f"list:{archive.masks}:{','.join(masks)}"),
    )
    assert job.status == 0, job.err
    for part in ("classes", "metrics", "confusion_matrix"):
        assert job.summary[part] == scored_job.summary[part]

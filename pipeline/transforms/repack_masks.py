"""Converts masks of earlier runs and retried bundles to the job's mask format."""

from collections.abc import Collection, Iterable, Iterator
from typing import Any, NamedTuple

import apache_beam as beam
from apache_beam.pvalue import AsDict, AsIter, PCollection, TaggedOutput

from pipeline.core.records import PictureRecord
from pipeline.output.mask_output import MASK
from pipeline.output.outputs import Destination
from pipeline.output.registry import file_name
from pipeline.output.repacking import delete_other_parts, has_other_members, part_and_size, rewritten, unpacked
from pipeline.output.tables import shard_of
from pipeline.transforms import coders

_CODER = coders.PictureRecordCoder()
# Separate mask files are packed in this number of groups, which are distributed to workers.
_GROUPS = 64
_Key = tuple[str, int]


class Repacked(NamedTuple):
    """The outputs of `RepackMasks`.

    Args:
        records: `PictureRecord`, of all pictures, with the final locations of their masks.
        stale: str, names of files whose masks have been packed.
    """

    records: PCollection[PictureRecord]
    stale: PCollection[str]


class RepackMasks(beam.PTransform[Any, Any]):
    """Takes records of earlier runs and converts their masks to the job's mask format.

    Args:
        destination: the job's.
        made: the records of this run, whose tar files may have masks that were made twice.
    """

    def __init__(self, destination: Destination, made: PCollection[PictureRecord]) -> None:
        super().__init__()
        self._made = made
        self._root = destination.root
        self._packs = destination.packs_masks

    def expand(self, earlier: PCollection[PictureRecord]) -> Repacked:
        root, packs = self._root, self._packs
        dirty: list[Any] = []
        records = earlier
        if packs:
            records = (earlier, self._made) | "AllRecords" >> beam.Flatten()
            sizes = records | "Parts" >> beam.FlatMap(part_and_size).with_output_types(tuple[str, int])
            dirty = [
                AsDict(
                    sizes
                    | "SumSizes" >> beam.CombinePerKey(sum)
                    | "OtherMembers" >> beam.Filter(lambda item: has_other_members(root, *item))
                )
            ]
        sorted_out = records | "SortOut" >> beam.FlatMap(_sort_out, packs, *dirty).with_output_types(
            tuple[_Key, bytes], final=PictureRecord
        ).with_outputs("final", main="to_repack")
        repacked = (
            sorted_out.to_repack
            | "GroupByPart" >> beam.GroupByKey()
            | "Repack"
            >> beam.FlatMap(_repack, root, packs)
            .with_output_types(PictureRecord, stale=str)
            .with_outputs("stale", main="records")
        )
        # Masks of this run are separate files unless masks are packed.
        others = () if packs else (self._made,)
        everything = (sorted_out.final, repacked.records, *others) | "FinalRecords" >> beam.Flatten()
        return Repacked(everything, repacked.stale)


class DeleteOtherParts(beam.PTransform[Any, Any]):
    """Takes final records and deletes the tar files of masks that none of them names; emits how many.

    Args:
        destination: the job's.
        after: results that must be written before.
    """

    def __init__(self, destination: Destination, after: PCollection[Any]) -> None:
        super().__init__()
        self._root = destination.root
        self._packs = destination.packs_masks
        self._after = after

    def expand(self, records: PCollection[PictureRecord]) -> PCollection[int]:
        root = self._root

        def delete(_: None, __: Any, named: Iterable[str] = ()) -> int:
            return delete_other_parts(root, named)

        named: list[Any] = []
        if self._packs:
            parts = records | "NamedParts" >> beam.FlatMap(lambda record: (part for part, _ in part_and_size(record)))
            named = [AsIter(parts | "Distinct" >> beam.Distinct())]
        deleted: PCollection[int] = (
            records.pipeline
            | "Once" >> beam.Create([None])
            | "DeleteParts" >> beam.Map(delete, AsIter(self._after), *named).with_output_types(int)
        )
        return deleted


def _sort_out(record: PictureRecord, packs: bool, dirty: Collection[str] = ()) -> Iterator[Any]:
    """A record with the tag `final` if its mask has the job's format, else keyed by the task that repacks it."""
    mask = record.file(MASK)
    if mask is None or (mask.part not in dirty if packs and mask.part else not packs and not mask.part):
        yield TaggedOutput("final", record)
    else:
        yield (mask.part, 0 if mask.part else shard_of(record.image_id, _GROUPS)), _CODER.encode(record)


def _repack(keyed: tuple[_Key, Iterable[bytes]], root: str, packs: bool) -> Iterator[Any]:
    (part, _), encoded = keyed
    records = [_CODER.decode(one) for one in encoded]
    yield from rewritten(root, part, records) if packs else unpacked(root, part, records)
    if packs and not part:
        for record in records:
            yield TaggedOutput("stale", file_name(MASK, record.image_id))

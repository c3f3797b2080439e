"""Masks in the form that the job asks for: what earlier runs and repeated bundles left, put in order."""

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
# Masks in files of their own are packed in so many groups, which workers share.
_GROUPS = 64
_Key = tuple[str, int]


class Settled(NamedTuple):
    """What settling gives.

    Args:
        records: `PictureRecord`, all, with the masks' final places.
        stale: str, names of files whose masks have been packed.
    """

    records: PCollection[PictureRecord]
    stale: PCollection[str]


class RepackMasks(beam.PTransform[Any, Any]):
    """Takes records of earlier runs and brings their masks into the form that the job asks for.

    Args:
        destination: the job's.
        made: the records of this run, whose tar files may hold masks that were made twice.
    """

    def __init__(self, destination: Destination, made: PCollection[PictureRecord]) -> None:
        super().__init__()
        self._made = made
        self._root = destination.root
        self._packs = destination.packs_masks

    def expand(self, earlier: PCollection[PictureRecord]) -> Settled:
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
            tuple[_Key, bytes], settled=PictureRecord
        ).with_outputs("settled", main="unsettled")
        settled = (
            sorted_out.unsettled
            | "GroupByPart" >> beam.GroupByKey()
            | "Settle"
            >> beam.FlatMap(_settle, root, packs)
            .with_output_types(PictureRecord, stale=str)
            .with_outputs("stale", main="records")
        )
        # A record of this run names a file of its own unless masks are packed.
        others = () if packs else (self._made,)
        everything = (sorted_out.settled, settled.records, *others) | "SettledRecords" >> beam.Flatten()
        return Settled(everything, settled.stale)


class DeleteOtherParts(beam.PTransform[Any, Any]):
    """Takes settled records and deletes the tar files of masks that none of them names; emits how many.

    Args:
        destination: the job's.
        after: what has to be written before.
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
    """A record as it is where its mask is as it should be, else under the key of the task that settles it."""
    mask = record.file(MASK)
    if mask is None or (mask.part not in dirty if packs and mask.part else not packs and not mask.part):
        yield TaggedOutput("settled", record)
    else:
        yield (mask.part, 0 if mask.part else shard_of(record.image_id, _GROUPS)), _CODER.encode(record)


def _settle(keyed: tuple[_Key, Iterable[bytes]], root: str, packs: bool) -> Iterator[Any]:
    (part, _), encoded = keyed
    records = [_CODER.decode(one) for one in encoded]
    yield from rewritten(root, part, records) if packs else unpacked(root, part, records)
    if packs and not part:
        for record in records:
            yield TaggedOutput("stale", file_name(MASK, record.image_id))

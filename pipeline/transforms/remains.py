"""Taking up what an earlier run left: its journal and its masks, keyed as the pictures are."""

from collections.abc import Iterator
from dataclasses import astuple
from typing import Any

import apache_beam as beam
from apache_beam.pvalue import AsIter, PBegin, PCollection

from pipeline.output.earlier_run import FoundFile, Recorded, Remains, begin, read_remains
from pipeline.sources.source import pairing_key
from pipeline.storage import storage

RECORDED, FOUND_FILE = "recorded", "file"

# What is kept of an earlier run, as primitives: its kind, then the fields of `Recorded` or `FoundFile`.
Keyed = tuple[str, tuple[Any, ...]]


def _keyed(remains: Remains) -> Iterator[Keyed]:
    for found in read_remains(remains):
        if isinstance(found, Recorded):
            yield pairing_key(found.image_id), (RECORDED, found.image_id, found.line, found.written_ns)
        else:
            yield pairing_key(found.image_id), (FOUND_FILE, *astuple(found))


class BeginRun(beam.PTransform[Any, Any]):
    """Readies the output, before anything else happens in it; emits what an earlier run left.

    Args:
        output: absolute folder or bucket prefix.
        existing: `resume` or `overwrite`.
    """

    def __init__(self, output: str, existing: str) -> None:
        super().__init__()
        self._output = output
        self._existing = existing

    def expand(self, pbegin: PBegin) -> PCollection[Remains]:
        output, existing = self._output, self._existing
        remains: PCollection[Remains] = (
            pbegin
            | "Once" >> beam.Create([None])
            | "Begin" >> beam.FlatMap(lambda _: begin(output, existing)).with_output_types(Remains)
        )
        return remains


class ReadRemains(beam.PTransform[Any, Any]):
    """Reads what an earlier run recorded and lists what it wrote; emits them under their pictures' pairing keys."""

    def expand(self, remains: PCollection[Remains]) -> PCollection[Keyed]:
        keyed: PCollection[Keyed] = (
            remains
            | "SpreadRemains" >> beam.Reshuffle()
            | "ReadRemains" >> beam.FlatMap(_keyed).with_output_types(tuple[str, tuple[Any, ...]])
        )
        return keyed


class DeleteStale(beam.PTransform[Any, Any]):
    """Deletes files of pictures that no picture claims, once all else is written; emits how many.

    Args:
        output: absolute folder or bucket prefix.
        after: what has to be written before.
    """

    def __init__(self, output: str, after: PCollection[Any]) -> None:
        super().__init__()
        self._output = output
        self._after = after

    def expand(self, stale: PCollection[str]) -> PCollection[int]:
        output = self._output

        def delete(name: str, _: Any) -> int:
            storage.delete_with_empty_folders(storage.join(output, name), output)
            return 1

        deleted: PCollection[int] = (
            stale
            | "Delete" >> beam.Map(delete, AsIter(self._after)).with_output_types(int)
            | "CountDeleted" >> beam.CombineGlobally(sum)
        )
        return deleted


def unpack_remains(value: tuple[Any, ...]) -> Recorded | FoundFile:
    """What `ReadRemains` emitted under a key."""
    return Recorded(*value[1:]) if value[0] == RECORDED else FoundFile(*value[1:])

"""Begins a run and reads what earlier runs left in its output, keyed as the pictures are."""

from collections.abc import Iterator
from dataclasses import astuple
from typing import Any, NamedTuple

import apache_beam as beam
from apache_beam.pvalue import PBegin, PCollection, TaggedOutput

from pipeline.output.earlier_run import EarlierPath, FoundFile, FoundTar, JournalEntry, begin, read_earlier
from pipeline.output.outputs import Destination
from pipeline.sources.source import pairing_key

JOURNAL_ENTRY, FOUND_FILE = "entry", "file"

# A journal entry or a file of an earlier run as primitives: its kind, then the fields of `JournalEntry` or `FoundFile`.
Packed = tuple[str, tuple[Any, ...]]


class EarlierRun(NamedTuple):
    """What earlier runs left.

    Args:
        keyed: journal entries and files under their pictures' pairing keys.
        tars: name, size and modification time of each tar file of masks.
    """

    keyed: PCollection[Packed]
    tars: PCollection[tuple[str, tuple[int, int]]]


class BeginRun(beam.PTransform[Any, Any]):
    """Acquires the output before any other step uses it; emits the paths that earlier runs left.

    Args:
        destination: the job's.
        existing: `resume` or `overwrite`.
    """

    def __init__(self, destination: Destination, existing: str) -> None:
        super().__init__()
        self._output, self._holder = destination.root, destination.holder
        self._existing = existing

    def expand(self, pbegin: PBegin) -> PCollection[EarlierPath]:
        output, existing, holder = self._output, self._existing, self._holder
        paths: PCollection[EarlierPath] = (
            pbegin
            | "Once" >> beam.Create([None])
            | "Begin" >> beam.FlatMap(lambda _: begin(output, existing, holder)).with_output_types(EarlierPath)
        )
        return paths


class ReadEarlierRun(beam.PTransform[Any, Any]):
    """Reads the journal of earlier runs and lists the files that they wrote."""

    def expand(self, paths: PCollection[EarlierPath]) -> EarlierRun:
        read = (
            paths
            | "SpreadPaths" >> beam.Reshuffle()
            | "ReadPath"
            >> beam.FlatMap(_pack)
            .with_output_types(tuple[str, tuple[Any, ...]], tars=tuple[str, tuple[int, int]])
            .with_outputs("tars", main="keyed")
        )
        return EarlierRun(read.keyed, read.tars)


def _pack(path: EarlierPath) -> Iterator[Any]:
    for found in read_earlier(path):
        if isinstance(found, FoundTar):
            yield TaggedOutput("tars", (found.name, (found.size_bytes, found.modified_ns)))
        elif isinstance(found, JournalEntry):
            yield pairing_key(found.image_id), (JOURNAL_ENTRY, *astuple(found))
        else:
            yield pairing_key(found.image_id), (FOUND_FILE, *astuple(found))


def unpack(packed: tuple[Any, ...]) -> JournalEntry | FoundFile:
    """A journal entry or file that `ReadEarlierRun` emitted."""
    return JournalEntry(*packed[1:]) if packed[0] == JOURNAL_ENTRY else FoundFile(*packed[1:])

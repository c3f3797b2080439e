"""The records that cross a shuffle: where a picture is stored and what was measured in it, never its pixels."""

from dataclasses import dataclass

from pipeline.core.addresses import public_address
from pipeline.core.errors import TRUTH_STAGE

Value = tuple[int, ...]
"""What a measure found in a picture (`pipeline.core.measures.measure`): integers, which add up exactly in any order."""


@dataclass(frozen=True, slots=True)
class ZipMember:
    """How a zip stores a member; the local header may omit this.

    Args:
        method: the compression method's number: 0 stored, 8 deflate.
        packed_bytes: length of the compressed data.
        crc32: checksum of the uncompressed data.
    """

    method: int
    packed_bytes: int
    crc32: int


@dataclass(frozen=True, slots=True)
class Spooled:
    """Where the job's spool keeps a copy of bytes that can't be read from their archive by range.

    Args:
        stream: which spool, by its name below the spool's folder.
        offset_bytes: where the copy begins in its parts put together.
        packed_bytes: length of the copy.
        is_deflated: whether the copy is compressed, as raw deflate data.
    """

    stream: str
    offset_bytes: int
    packed_bytes: int
    is_deflated: bool


Packing = ZipMember | Spooled


@dataclass(frozen=True, slots=True)
class FileRef:
    """Where one file's bytes are, and which version of them was listed.

    Args:
        uri: path or URI of the file (of the archive, for a member).
        size_bytes: length of the picture's file; -1 if the source doesn't report it.
        version: what changes when the content changes (modification time in ns, generation, etag); may be "".
        offset_bytes: where the bytes begin within `uri`, unpacked where that is compressed as a whole; -1 when the
            whole file is meant.
        member: name within an archive, "" for a plain file.
        packing: how the bytes are stored if they are not a plain range of `uri`; None if they are.
    """

    uri: str
    size_bytes: int = -1
    version: str = ""
    offset_bytes: int = -1
    member: str = ""
    packing: Packing | None = None

    @property
    def display_uri(self) -> str:
        """The address for people and tables: `archive!member` for a member, else the URI; without secrets."""
        address = public_address(self.uri)
        return f"{address}!{self.member}" if self.member else address


@dataclass(frozen=True, slots=True)
class OutputFile:
    """A file that was written for a picture: a mask or another output.

    Args:
        output: the output's name.
        digest: of what determines it besides the inference: `Output.digest`.
        size_bytes: its length; -1 where an early version of the journal has none.
        crc32: of its content; -1 likewise.
        part: the tar file that holds it, by its name below `--output`; "" for a separate file.
        offset_bytes: where it begins in the part; 0 for a separate file.
    """

    output: str
    digest: str
    size_bytes: int = -1
    crc32: int = -1
    part: str = ""
    offset_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Located:
    """One picture to segment: its id, its file, and its ground truth's file where there is one.

    Args:
        image_id: path below the source, or the manifest's id; unique in a job.
        image: the picture's file.
        truth: the ground truth's file, None where there is none.
        group: the value of `--group_by`, "" without the option.
        overlay: whether it is one of those whose mask is also drawn over the picture.
        kept_files: files of an earlier run that need not be written again.
    """

    image_id: str
    image: FileRef
    truth: FileRef | None = None
    group: str = ""
    overlay: bool = False
    kept_files: tuple[OutputFile, ...] = ()


@dataclass(frozen=True, slots=True)
class PictureRecord:
    """What one segmented picture adds to the tables and to the totals.

    Args:
        image_id: unique in a job.
        source_uri: where the picture came from.
        group: the value of `--group_by`, "" without the option.
        width: upright width, px.
        height: upright height, px.
        source_bytes: size of the picture's file.
        fingerprint: of the inference, by `Fingerprints.of_image`.
        values: name and value of each measure that has one, in the order of `pipeline.core.measures.measures`.
        measured: fingerprint of what else determines the values, by `Fingerprints.of_measures`.
        files: the files that were written for it.
        pixel_area_m2: area of one pixel; None where it isn't known.
        truth_error_type: why its ground truth could not be used, a value of `ErrorType`; "" where nothing failed.
        truth_message: the same as one sentence for a person.
        unused: parts of the picture's file that are not used, values of `pipeline.core.file_formats.Unused`.
        split: the part of the model's training data that has this picture, of `pipeline.core.split_digests.PARTS`; ""
            for none of them, None if unknown.
    """

    image_id: str
    source_uri: str
    group: str
    width: int
    height: int
    source_bytes: int
    fingerprint: str
    values: tuple[tuple[str, Value], ...]
    measured: str = ""
    files: tuple[OutputFile, ...] = ()
    pixel_area_m2: float | None = None
    truth_error_type: str = ""
    truth_message: str = ""
    unused: tuple[str, ...] = ()
    split: str | None = None

    def value(self, measure: str) -> Value | None:
        """A measure's value by its name; None where the picture has none."""
        return next((value for name, value in self.values if name == measure), None)

    def file(self, output: str) -> OutputFile | None:
        """The file of an output by its name; None where none was written."""
        return next((file for file in self.files if file.output == output), None)

    @property
    def truth_failure(self) -> "Failure | None":
        """The line of `failures.jsonl` for a truth that could not be used; None where nothing failed."""
        if not self.truth_error_type:
            return None
        # Without a fingerprint: the journal keeps the record, from which a resume makes the line again.
        return Failure(self.image_id, self.source_uri, TRUTH_STAGE, self.truth_error_type, self.truth_message)


@dataclass(frozen=True, slots=True)
class Failure:
    """A picture that could not be segmented, or a ground truth that could not be used: a line of `failures.jsonl`.

    Args:
        image_id: the picture's id; "" if the error has no picture (a broken archive).
        source_uri: where the picture came from.
        stage: one of `pipeline.core.errors.STAGES`.
        error_type: what is wrong, a value of `pipeline.core.errors.ErrorType`.
        message: one sentence for a person.
        fingerprint: by `Fingerprints.of_failure`; "" if the error occurred before a version was known.
    """

    image_id: str
    source_uri: str
    stage: str
    error_type: str
    message: str
    fingerprint: str = ""


@dataclass(frozen=True, slots=True)
class Update:
    """A picture whose inference of an earlier run is still valid, and of which something is missing or unverified.

    Args:
        picture: where it is now.
        record: the earlier run's; its `files` exist and are kept.
        mask: the mask that the earlier run wrote, in any colours; None where there is none.
        make: names of the outputs to make from the picture and the mask.
        verify: names of the outputs whose files must be compared with their checksums first.
        measure: whether its values must be computed again.
    """

    picture: Located
    record: PictureRecord
    mask: OutputFile | None = None
    make: tuple[str, ...] = ()
    verify: tuple[str, ...] = ()
    measure: bool = False

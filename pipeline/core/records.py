"""What crosses a shuffle: where a picture lies, and what was found in it. Never pixels."""

from dataclasses import dataclass

from pipeline.core.errors import TRUTH_STAGE

Value = tuple[int, ...]
"""What a measure found in a picture (`pipeline.core.measures.measure`): integers, which add up exactly in any order."""


@dataclass(frozen=True, slots=True)
class ZipMember:
    """How a zip stores a member; its local header need not know.

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
        size_bytes: length of the picture file's own bytes; -1 where the source doesn't tell.
        version: what changes when the content changes (modification time in ns, generation, etag); may be "".
        offset_bytes: where the bytes begin within `uri`, unpacked where that is compressed as a whole; -1 when the
            whole file is meant.
        member: name within an archive, "" for a plain file.
        packing: how the bytes are had where a range of `uri` doesn't give them; None where it does.
    """

    uri: str
    size_bytes: int = -1
    version: str = ""
    offset_bytes: int = -1
    member: str = ""
    packing: Packing | None = None

    @property
    def display_uri(self) -> str:
        """The address for people and tables: `archive!member` for a member, else the URI."""
        return f"{self.uri}!{self.member}" if self.member else self.uri


@dataclass(frozen=True, slots=True)
class Located:
    """One picture to do: its id, its file, and its mask's file where there is one.

    Args:
        image_id: path below the source, or what the manifest says; unique in a job.
        image: the picture's file.
        truth: the ground truth's file, None where there is none.
        group: the value of `--group_by`, "" where none was asked for.
        overlay: whether it is one of those whose mask is also drawn over the picture.
    """

    image_id: str
    image: FileRef
    truth: FileRef | None = None
    group: str = ""
    overlay: bool = False


@dataclass(frozen=True, slots=True)
class PictureRecord:
    """What one segmented picture adds to the tables and to the totals.

    Args:
        image_id: unique in a job.
        source_uri: where the picture came from.
        group: the value of `--group_by`, "" where none was asked for.
        width: upright width, px.
        height: upright height, px.
        mask_uri: where the mask was written, "" for `--mask_format none`.
        source_bytes: size of the picture's file.
        fingerprint: digest of the picture's and truth's versions, the model and the options that change results.
        values: name and value of each measure that has one, in the order of `pipeline.core.measures.measures`.
        pixel_area_m2: area of one pixel; None where it isn't known.
        mask_bytes: size of the mask's file; 0 where none was written.
        truth_error_type: why its ground truth could not be used, a type of `PictureError`; "" where nothing failed.
        truth_message: the same as one sentence for a person.
        unused: what of the picture's file is not used, values of `pipeline.core.file_formats.Unused`.
    """

    image_id: str
    source_uri: str
    group: str
    width: int
    height: int
    mask_uri: str
    source_bytes: int
    fingerprint: str
    values: tuple[tuple[str, Value], ...]
    pixel_area_m2: float | None = None
    mask_bytes: int = 0
    truth_error_type: str = ""
    truth_message: str = ""
    unused: tuple[str, ...] = ()

    def value(self, measure: str) -> Value | None:
        """A measure's value by its name; None where the picture has none."""
        return next((value for name, value in self.values if name == measure), None)

    @property
    def truth_failure(self) -> "Failure | None":
        """The line of `failures.jsonl` for a truth that could not be used; None where nothing failed."""
        if not self.truth_error_type:
            return None
        # Without a fingerprint: the journal keeps the record, from which the line is made again on a resume.
        return Failure(self.image_id, self.source_uri, TRUTH_STAGE, self.truth_error_type, self.truth_message)


@dataclass(frozen=True, slots=True)
class Failure:
    """A picture that could not be segmented, or a ground truth that could not be used: a line of `failures.jsonl`.

    Args:
        image_id: the picture's id; "" where the fault has no picture (a broken archive).
        source_uri: where the picture came from.
        stage: one of `pipeline.core.errors.STAGES`.
        error_type: a short stable name of the fault.
        message: one sentence for a person.
        fingerprint: as in `PictureRecord`; "" where the fault came before a version was known.
    """

    image_id: str
    source_uri: str
    stage: str
    error_type: str
    message: str
    fingerprint: str = ""

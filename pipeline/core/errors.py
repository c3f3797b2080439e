"""The errors that maskbeam raises; any other exception is a bug and ends the job."""

from enum import StrEnum


class MaskbeamError(Exception):
    """Base class of all errors that maskbeam raises on purpose."""


class OptionError(MaskbeamError):
    """An option, or what it names, can't be used; reported in one line before any work, exit status 2."""


class ModelError(OptionError):
    """A model folder is missing, incomplete or inconsistent."""


class EngineError(MaskbeamError):
    """The inference engine fails independently of the pictures, so the job stops."""


class StorageError(MaskbeamError):
    """The output can't be written (disk full, no permission, folder removed); the job stops without partial files."""


class OutputInUseError(StorageError):
    """Another run writes to the output."""


class ErrorType(StrEnum):
    """What is wrong with a picture, a ground truth or a source: the `error_type` of a line of `failures.jsonl`.

    Attributes:
        meaning: one sentence that says what is wrong.
        remedy: one sentence that says what a user can do.
    """

    meaning: str
    remedy: str

    def __new__(cls, name: str, meaning: str, remedy: str) -> "ErrorType":
        """A member by its name in files, with its two sentences."""
        member = str.__new__(cls, name)
        member._value_ = name
        member.meaning = meaning
        member.remedy = remedy
        return member

    UNSAFE_NAME = (
        "UnsafeName",
        "The name can't be that of a file below the output: control characters, a backslash, `..`, not UTF-8.",
        "Rename the file, or give it an `image_id` in a manifest.",
    )
    DUPLICATE_ID = (
        "DuplicateId",
        "Another picture has the same id; the one whose address comes first is segmented.",
        "Give the pictures different ids in a manifest's column `image_id`.",
    )
    NO_IMAGE = (
        "NoImage",
        "A row of a manifest or an Example of a TFRecord file names no picture.",
        "Complete the row, or name the feature `image/encoded` or `image`.",
    )
    NOT_A_FILE = (
        "NotAFile",
        "The archive's member is a link or a device, is encrypted, or is compressed in a way that is not supported.",
        "Pack the archive again, its members stored or deflated.",
    )
    BROKEN_ARCHIVE = (
        "BrokenArchive",
        "An archive or a TFRecord file can't be read beyond some byte; what comes before is used.",
        "Fetch or pack the file again.",
    )
    TRUNCATED = (
        "Truncated",
        "The file or archive ends before its content does; of an archive what comes before is used.",
        "Fetch the file again.",
    )
    MISSING = ("Missing", "There is no such file.", "Restore it, or remove it from the manifest.")
    UNREADABLE = (
        "Unreadable",
        "The file, or a folder below a source, can't be read; the message has the reason.",
        "Correct the cause.",
    )
    STORE_FAULT = (
        "StoreFault",
        "The store failed in all attempts.",
        "Run the same command again when the store is available.",
    )
    FILE_TOO_LARGE = (
        "FileTooLarge",
        "The file is larger than any picture of `--max_pixels` can be, and was not read.",
        "Raise `--max_pixels`, if it is a picture.",
    )
    EMPTY = ("Empty", "The file has no bytes.", "Fetch the file again.")
    NOT_A_PICTURE = (
        "NotAPicture",
        "The content is not a picture; the message names what it is, if known.",
        "Replace the file: it is often an error page or a Git LFS pointer.",
    )
    UNSUPPORTED_FORMAT = (
        "UnsupportedFormat",
        "The content is a picture in a format, or with bands or numbers, that is not supported.",
        "Convert it, for example to TIFF, PNG or JPEG.",
    )
    BROKEN = ("Broken", "The decoder can't read the content.", "Fetch or export the picture again.")
    TOO_LARGE = (
        "TooLarge",
        "The picture has more pixels than `--max_pixels`, or an archive's member unpacks to too many bytes.",
        "Raise `--max_pixels`; take a member of over 1 GiB out of its archive.",
    )
    NO_PIXELS = ("NoPixels", "The picture has no width or no height.", "Export the picture again.")
    TOO_MANY_SCANS = (
        "TooManyScans",
        "A progressive JPEG has so many scans that decoding would take minutes, as in an attack.",
        "Save the picture again, if it is yours.",
    )
    METADATA_TOO_LARGE = (
        "MetadataTooLarge",
        "The metadata is larger than allowed, as in an attack.",
        "Save the picture again without its metadata.",
    )
    WRONG_BANDS = (
        "WrongBands",
        "The picture has another number of bands than the model takes.",
        "Use a model that was trained on such pictures, or convert them.",
    )
    OUT_OF_MEMORY = (
        "OutOfMemory",
        "Decoding or inference needs more memory than is available.",
        "Run the same command again with a smaller `--batch_size` or fewer `--threads`.",
    )
    ENGINE_FAILED = (
        "EngineFailed",
        "The inference engine fails on this picture and not on others.",
        "Report it with the picture; `--backend` chooses another engine.",
    )
    NOT_FINITE = (
        "NotFinite",
        "The model's output for this picture has infinite or NaN values.",
        "Check the model: its training may have diverged.",
    )
    SIZE_MISMATCH = (
        "SizeMismatch",
        "The mask and its picture differ in size.",
        "Replace the mask: it is never resized.",
    )
    UNKNOWN_LABELS = (
        "UnknownLabels",
        "The mask has values that are not in the label map; the message lists them.",
        "Add them to `--label_map`, or give the value to ignore by `--ignore_label`.",
    )
    NOT_A_MASK = (
        "NotAMask",
        "The file is a picture whose pixels can't be labels, such as floats or CMYK.",
        "Save the mask as grey, indexed or RGB.",
    )
    AMBIGUOUS_TRUTH = (
        "AmbiguousTruth",
        "Several masks have the path of the picture.",
        "Remove all but one, or name the right one in a manifest.",
    )
    UNWRITABLE_NAME = (
        "UnwritableName",
        "The output's file system can't hold a file of this name: it is too long, or a folder has the same name.",
        "Shorten the name, or give it an `image_id` in a manifest.",
    )


class PictureError(MaskbeamError):
    """One picture can't be segmented or scored; other pictures are not affected.

    Args:
        stage: the step that failed, one of `STAGES`.
        error_type: what is wrong.
        message: one sentence for a person.
    """

    def __init__(self, stage: str, error_type: ErrorType, message: str) -> None:
        super().__init__(message)
        self.stage = stage
        self.error_type = error_type
        self.message = message

    def __reduce__(self) -> tuple[type["PictureError"], tuple[str, ErrorType, str]]:
        """Keeps the three arguments when the error crosses a process."""
        return (PictureError, (self.stage, self.error_type, self.message))


TRUTH_STAGE = "truth"
"""The stage of errors in ground truth: the picture is segmented, but not scored."""

STAGES = ("locate", "read", "decode", "segment", TRUTH_STAGE, "write")

"""The faults that maskbeam expects; everything else is a defect and fails loudly."""


class MaskbeamError(Exception):
    """The base of every fault that maskbeam raises on purpose."""


class OptionError(MaskbeamError):
    """An option, or what it names, can't be used: one line before any work, exit status 2."""


class ModelError(OptionError):
    """A model folder that isn't one, or whose files don't fit each other."""


class EngineError(MaskbeamError):
    """The inference engine itself is broken; no picture can be blamed, so the job stops."""


class StorageError(MaskbeamError):
    """The output can't be written (full, forbidden, gone); the job stops, nothing half-written remains."""


class OutputInUseError(StorageError):
    """Another run writes to the output."""


class PictureError(MaskbeamError):
    """One picture can't be segmented or scored; it costs that picture alone.

    Args:
        stage: where on the picture's way it happened, one of `STAGES`.
        error_type: a short stable name of the fault, such as `Truncated`.
        message: one sentence for a person.
    """

    def __init__(self, stage: str, error_type: str, message: str) -> None:
        super().__init__(message)
        self.stage = stage
        self.error_type = error_type
        self.message = message

    def __reduce__(self) -> tuple[type["PictureError"], tuple[str, str, str]]:
        """Keeps the three arguments when the error crosses a process."""
        return (PictureError, (self.stage, self.error_type, self.message))


TRUTH_STAGE = "truth"
"""The stage of a ground truth's faults: they cost the score, and the picture is segmented all the same."""

STAGES = ("locate", "read", "decode", "segment", TRUTH_STAGE, "write")

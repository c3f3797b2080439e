"""The interface of outputs: files that a job writes for each picture, encoded from the picture's finished strips.

To add an output, define its class in a module and add it to `registry.OUTPUTS`. Resuming, deleting stale files and
removing the files of failed pictures iterate over that registry.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from pipeline.core.layout import picture_file
from pipeline.core.recipe import Recipe
from pipeline.core.records import Located
from pipeline.core.strips import Strip
from pipeline.output.holder import Holder


class StripWriter(Protocol):
    """Encodes the file of one picture."""

    def add(self, strip: Strip) -> None:
        """Adds the next strip of the picture."""
        ...

    def finish(self) -> bytes:
        """Returns the file's content; called once, after the last strip."""
        ...


class Output(ABC):
    """One kind of file that is written for each picture; small, because it is sent to the workers.

    Args:
        recipe: determines what the file shows: class names, colours.

    Attributes:
        name: short and stable, for the journal.
        folder: the folder of the files below the job's output.
        suffix: the part of a file's name after the image id.
        option: the job's option that requests it.
        needs_pixels: whether its strips need the picture's pixels.
        needs_inference: whether it needs logits, so that it can't be made from the picture and an existing mask.
    """

    name: ClassVar[str]
    folder: ClassVar[str]
    suffix: ClassVar[str]
    option: ClassVar[str]
    needs_pixels: ClassVar[bool] = False
    needs_inference: ClassVar[bool] = False

    @abstractmethod
    def __init__(self, recipe: Recipe) -> None: ...

    @staticmethod
    def is_requested(value: object) -> bool:
        """Whether a value of its option requests this output."""
        return bool(value)

    @abstractmethod
    def digest(self) -> str:
        """A digest of everything that changes the file, except what determines the inference."""

    def wants(self, picture: Located) -> bool:
        """Whether the file is written for this picture."""
        return True

    @abstractmethod
    def begin(self, height: int, width: int) -> StripWriter:
        """Returns a writer for the file of a picture of this size, px."""


@dataclass(frozen=True, slots=True)
class EncodedFile:
    """The encoded file of a picture.

    Args:
        output: the output's name.
        digest: the output's digest.
        name: its path below the job's output.
        data: its content.
    """

    output: str
    digest: str
    name: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Destination:
    """Where a job writes and what it writes for each picture.

    Args:
        root: absolute folder or bucket prefix.
        outputs: written for each picture, in this order; the mask is last.
        packs_masks: whether masks are written to tar files.
        holder: the run that writes there; None without a lease.
    """

    root: str
    outputs: tuple[Output, ...]
    packs_masks: bool = False
    holder: Holder | None = None

    def wanted(self, picture: Located) -> tuple[Output, ...]:
        """The outputs of one picture, in the order of writing."""
        return tuple(output for output in self.outputs if output.wants(picture))

    def missing(self, picture: Located) -> tuple[Output, ...]:
        """The outputs of one picture that have no file to keep of an earlier run, in the order of writing."""
        kept = {file.output for file in picture.kept_files}
        return tuple(output for output in self.wanted(picture) if output.name not in kept)


class PictureWriter:
    """Encodes all files of one picture.

    Args:
        outputs: as `Destination.missing` returns them.
        image_id: the picture's.
        height: the picture's height, px.
        width: the picture's width, px.
    """

    def __init__(self, outputs: Iterable[Output], image_id: str, height: int, width: int) -> None:
        self._image_id = image_id
        self._writers = [(output, output.begin(height, width)) for output in outputs]

    def add(self, strip: Strip) -> None:
        """Adds the next strip of the picture; strips come from top to bottom, without gaps."""
        for _, writer in self._writers:
            writer.add(strip)

    def finish(self) -> list[EncodedFile]:
        """Returns the files in the order of writing."""
        return [
            EncodedFile(
                output.name,
                output.digest(),
                picture_file(output.folder, self._image_id, output.suffix),
                writer.finish(),
            )
            for output, writer in self._writers
        ]


class Rows:
    """Assembles an array from the rows of strips; a single strip of the whole picture is not copied.

    Args:
        height: the picture's height, px.
        axis: the axis of the rows.
    """

    def __init__(self, height: int, axis: int = 0) -> None:
        self._height = height
        self._axis = axis
        self._whole: npt.NDArray[Any] | None = None

    def put(self, top: int, rows: npt.NDArray[Any]) -> None:
        """Adds rows.

        Args:
            top: the index of the first one in the picture.
            rows: an array whose `axis` runs over the rows.
        """
        count = rows.shape[self._axis]
        if count == self._height:
            self._whole = rows
            return
        if self._whole is None:
            shape = list(rows.shape)
            shape[self._axis] = self._height
            self._whole = np.empty(shape, rows.dtype)
        index = [slice(None)] * rows.ndim
        index[self._axis] = slice(top, top + count)
        self._whole[tuple(index)] = rows

    def whole(self) -> npt.NDArray[Any]:
        """The array of all rows."""
        assert self._whole is not None, "a picture without strips"
        return self._whole

"""What an output is: a file that a job writes of each picture, made from the picture's finished strips.

An output is added by a module that defines it and a line in `registry.OUTPUTS`. Resuming, the deletion of what is no
longer wanted and the removal of a failed picture's files iterate over the registry.
"""

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
    """Makes the file of one picture."""

    def add(self, strip: Strip) -> None:
        """Takes the next strip of the picture."""
        ...

    def finish(self) -> bytes:
        """Returns the file's content; to be called once, after the last strip."""
        ...


class Output(Protocol):
    """One kind of file that is written of each picture; small, so that it travels to the workers.

    Args:
        recipe: decides what the file shows: class names, colours.

    Attributes:
        name: short and stable, for the journal.
        folder: the folder below the job's output where the files are.
        suffix: what a file's name has behind the image id.
        option: the job's option that asks for it.
        needs_pixels: whether its strips need the picture's own pixels.
        needs_inference: whether it can't be made from the picture and a mask that is there.
    """

    name: ClassVar[str]
    folder: ClassVar[str]
    suffix: ClassVar[str]
    option: ClassVar[str]
    needs_pixels: ClassVar[bool]
    needs_inference: ClassVar[bool]

    def __init__(self, recipe: Recipe) -> None: ...

    @staticmethod
    def is_requested(value: object) -> bool:
        """Whether a value of its option asks for this output."""
        ...

    def digest(self) -> str:
        """A digest of everything that changes the file besides what decides the inference."""
        ...

    def wants(self, picture: Located) -> bool:
        """Whether the file is written of this picture."""
        ...

    def begin(self, height: int, width: int) -> StripWriter:
        """Begins the file of a picture of this size, px."""
        ...


@dataclass(frozen=True, slots=True)
class EncodedFile:
    """A file that is ready to be written.

    Args:
        output: the output's name.
        digest: the output's.
        name: its name below the job's output.
        data: its content.
    """

    output: str
    digest: str
    name: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Destination:
    """Where a job writes and what it writes of each picture.

    Args:
        root: absolute folder or bucket prefix.
        outputs: what is written of each picture, in the order of writing: the mask is the last.
        packs_masks: whether masks are packed in tar files.
        holder: the run that writes there; None where nobody else could.
    """

    root: str
    outputs: tuple[Output, ...]
    packs_masks: bool = False
    holder: Holder | None = None

    def wanted(self, picture: Located) -> tuple[Output, ...]:
        """The outputs of one picture, in the order of writing."""
        return tuple(output for output in self.outputs if output.wants(picture))

    def missing(self, picture: Located) -> tuple[Output, ...]:
        """The outputs of one picture of which an earlier run left nothing to keep, in the order of writing."""
        kept = {file.output for file in picture.kept_files}
        return tuple(output for output in self.wanted(picture) if output.name not in kept)


class PictureWriter:
    """Makes all files of one picture.

    Args:
        outputs: as `Destination.missing` gives them.
        image_id: the picture's.
        height: the picture's height, px.
        width: the picture's width, px.
    """

    def __init__(self, outputs: Iterable[Output], image_id: str, height: int, width: int) -> None:
        self._image_id = image_id
        self._begun = [(output, output.begin(height, width)) for output in outputs]

    def add(self, strip: Strip) -> None:
        """Takes the next strip of the picture; strips come from top to bottom, without gaps."""
        for _, writer in self._begun:
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
            for output, writer in self._begun
        ]


class Rows:
    """Puts an array together from the rows of strips; one strip of the whole picture is not copied.

    Args:
        height: the picture's height, px.
        axis: the axis of the rows.
    """

    def __init__(self, height: int, axis: int = 0) -> None:
        self._height = height
        self._axis = axis
        self._whole: npt.NDArray[Any] | None = None

    def put(self, top: int, rows: npt.NDArray[Any]) -> None:
        """Takes some rows.

        Args:
            top: the first one's place in the picture.
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
        place = [slice(None)] * rows.ndim
        place[self._axis] = slice(top, top + count)
        self._whole[tuple(place)] = rows

    def whole(self) -> npt.NDArray[Any]:
        """The array of all rows."""
        assert self._whole is not None, "a picture without strips"
        return self._whole

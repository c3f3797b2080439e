"""Shared by the tests of segmenting: an engine, a budget that is counted, and input and output files."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from pipeline.core.records import FileRef
from pipeline.engines.base import Batch, Logits
from pipeline.output.outputs import Destination
from pipeline.segmenting.byte_budget import ByteBudget
from pipeline.storage import filesystem


class PassingEngine:
    """Returns the picture as logits, as the tiny model does, and records its batches."""

    def __init__(self) -> None:
        self.batch_sizes: list[int] = []
        self.seen: list[npt.NDArray[np.uint8] | npt.NDArray[np.float32]] = []

    def logits(self, batch: Batch) -> Logits:
        self.batch_sizes.append(len(batch))
        self.seen += list(batch)
        return (batch / np.float32(255)).astype(np.float32)


class CountedBudget(ByteBudget):
    """A budget that records its holders' shares, (holders, bytes) for each change."""

    def __init__(self) -> None:
        super().__init__()
        self.shares: list[tuple[int, int]] = []

    def _change(self, holders: int, size_bytes: int) -> None:
        self.shares.append((holders, size_bytes))
        super()._change(holders, size_bytes)


def file_ref(path: Path) -> FileRef:
    """A file as a source lists it."""
    stored = filesystem.stat_file(str(path))
    return FileRef(stored.uri, stored.size_bytes, stored.version)


def written_mask(destination: Destination, image_id: str) -> npt.NDArray[np.uint8]:
    """A mask that was written, (H, W) class ids."""
    return np.asarray(Image.open(Path(destination.root) / "masks" / f"{image_id}.png"))

"""Sums over pictures kept per block, so that a score can be computed with any one block left out.

A picture's block depends on its id alone, so blocks add up exactly in any order and grouping.
"""

import hashlib

import numpy as np
import numpy.typing as npt

JOB_BLOCKS = 256
"""Number of blocks of a whole job."""


def block_of(image_id: str, blocks: int) -> int:
    """The block of a picture, 0 to blocks - 1; an id has the same block on every machine."""
    digest = hashlib.blake2b(image_id.encode("utf-8", "surrogateescape"), digest_size=8).digest()
    return int.from_bytes(digest, "little") % blocks


class BlockSums:
    """Sums over the pictures of each block.

    Args:
        blocks: how many blocks.
        columns: how many sums each block has.
    """

    __slots__ = ("sums",)

    def __init__(self, blocks: int, columns: int) -> None:
        self.sums: npt.NDArray[np.int64] = np.zeros((blocks, columns), np.int64)

    def __eq__(self, other: object) -> bool:
        """Whether every sum is the same."""
        return isinstance(other, BlockSums) and np.array_equal(self.sums, other.sums)

    __hash__ = None  # type: ignore[assignment]  # mutable

    def add(self, image_id: str, terms: npt.NDArray[np.int64]) -> None:
        """Adds a picture's terms to its block.

        Args:
            image_id: the picture's id.
            terms: (columns,) int64.
        """
        self.sums[block_of(image_id, len(self.sums))] += terms

    def merge(self, other: "BlockSums") -> None:
        """Adds the sums of other pictures; `other` is not changed."""
        self.sums += other.sums

    def left_out(self) -> npt.NDArray[np.int64]:
        """(blocks, columns) sums over all pictures except those of the row's block."""
        rest: npt.NDArray[np.int64] = self.sums.sum(axis=0) - self.sums
        return rest

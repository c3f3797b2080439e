"""The three parts of a picture's way in a worker: its files are fetched, it is computed, its results are written."""

from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from pipeline.core.errors import PictureError
from pipeline.core.limits import max_file_bytes
from pipeline.core.recipe import Fingerprints, Recipe
from pipeline.core.records import Failure, FileRef, Located, PictureRecord
from pipeline.core.split_digests import SplitDigests
from pipeline.core.usage import TILE
from pipeline.engines.base import Engine
from pipeline.output.delivery import Delivery
from pipeline.output.outputs import Destination
from pipeline.segmenting.byte_budget import ByteBudget, Held
from pipeline.segmenting.computing import Computed, Computing
from pipeline.segmenting.fetcher import Fetched, Fetcher, expected_bytes
from pipeline.segmenting.finishing import Segmented
from pipeline.segmenting.memory import usable_memory_bytes
from pipeline.segmenting.stage_clock import Seconds, timed
from pipeline.sources.reading import FileReader

Outcome = PictureRecord | Failure


class PictureBatch:
    """Pictures in progress and their share of the budget; used by one thread at a time.

    Args:
        pictures: the located pictures.
        held: their share of the budget.
    """

    def __init__(self, pictures: Sequence[Located], held: Held) -> None:
        self.pictures = pictures
        self.held = held
        self.seconds: Seconds = defaultdict(float)
        self.fetched: deque[Fetched | PictureError] = deque()
        self.computed: list[Computed] = []


class Segmenter:
    """Segments batches of located pictures; thread-safe, one per process.

    It has three steps for different threads: `fetch` and `deliver` wait for storage, `compute` needs a core.

    Args:
        recipe: what determines the results.
        destination: where and what to write.
        engine: the loaded model.
        read: reads a file by its reference; by default a `FileReader`.
        budget: limits the bytes of files that are read and not computed, or encoded and not written.
        decoding: limits the decoded bytes of all pictures; by default to half of the memory.
        engine_batch: maximum number of views per batch of the engine; None for no limit.
        split: which pictures the model was trained on; None if unknown.
    """

    def __init__(
        self,
        recipe: Recipe,
        destination: Destination,
        engine: Engine,
        read: Callable[[FileRef], bytes] | None = None,
        *,
        budget: ByteBudget | None = None,
        decoding: ByteBudget | None = None,
        engine_batch: int | None = None,
        split: SplitDigests | None = None,
    ) -> None:
        self._fingerprints = Fingerprints(recipe)
        reader = FileReader(destination.root, max_file_bytes(recipe.max_pixels))
        open_ranged = reader.open_ranged if recipe.mode == TILE and read is None else None
        self._fetcher = Fetcher(read or reader, recipe.max_pixels, open_ranged)
        self.delivery = Delivery(destination.root, packs_masks=destination.packs_masks)
        self._budget = budget or ByteBudget()
        decoding = decoding or ByteBudget(usable_memory_bytes() // 2)
        self._computing = Computing(recipe, destination, engine, decoding, engine_batch, split)

    def segment(self, pictures: Sequence[Located]) -> tuple[list[Outcome], Seconds]:
        """Applies `fetch`, `compute` and `deliver` to a batch."""
        return self.deliver(self.compute(self.fetch(pictures)))

    def fetch(self, pictures: Sequence[Located]) -> PictureBatch:
        """Reads the files of a batch when the budget has room for them.

        Args:
            pictures: the located pictures.

        Returns:
            The batch, for `compute`.
        """
        batch = PictureBatch(pictures, self._budget.hold(sum(map(expected_bytes, pictures))))
        with _released_on_error(batch.held):
            batch.fetched.extend(self._fetched(picture, batch.seconds) for picture in pictures)
            batch.held.resize(sum(each.size_bytes for each in batch.fetched if isinstance(each, Fetched)))
        return batch

    def compute(self, batch: PictureBatch) -> PictureBatch:
        """Decodes, infers and encodes; to be called by one thread per core.

        Args:
            batch: from `fetch`.

        Returns:
            The batch, for `deliver`.

        Raises:
            EngineError: the engine fails independently of the pictures.
        """
        with _released_on_error(batch.held):
            batch.computed = self._computing.run(batch.pictures, batch.fetched, batch.seconds)
            batch.held.resize(sum(each.size_bytes for each in batch.computed if isinstance(each, Segmented)))
        return batch

    def deliver(self, batch: PictureBatch) -> tuple[list[Outcome], Seconds]:
        """Writes the files of a batch.

        Args:
            batch: from `compute`.

        Returns:
            One outcome per picture in the same order, and the seconds of each stage.

        Raises:
            StorageError: the output can't be written.
        """
        try:
            outcomes = [
                self._delivered(picture, computed, batch.seconds)
                for picture, computed in zip(batch.pictures, batch.computed, strict=True)
            ]
        finally:
            batch.held.release()
        return outcomes, batch.seconds

    def _fetched(self, picture: Located, seconds: Seconds) -> Fetched | PictureError:
        try:
            return self._fetcher.fetch(picture, seconds)
        except PictureError as error:
            return error

    def _delivered(self, picture: Located, computed: Computed, seconds: Seconds) -> Outcome:
        """Writes the files of a picture, its mask last."""
        try:
            if isinstance(computed, PictureError):
                raise computed
            with timed("write", seconds):
                written = self.delivery.write(picture.image_id, computed.files)
        except PictureError as error:
            return self._failure(picture, error)
        return replace(computed.record, files=(*picture.kept_files, *written))

    def _failure(self, picture: Located, error: PictureError) -> Failure:
        """Makes a failure, after deleting files that an earlier run or attempt wrote for the picture."""
        self.delivery.remove(picture.image_id)
        return Failure(
            picture.image_id,
            picture.image.display_uri,
            error.stage,
            error.error_type.value,
            error.message,
            self._fingerprints.of_failure(picture),
        )


@contextmanager
def _released_on_error(held: Held) -> Iterator[None]:
    """Releases a share of the budget if its batch fails."""
    try:
        yield
    except BaseException:
        held.release()
        raise

"""The CPU-bound part of segmenting: from the files of a batch to masks, measured values and encoded files."""

from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

import numpy as np

from pipeline.core.errors import PictureError
from pipeline.core.measures.measures import measures_for
from pipeline.core.model_input import ModelInput
from pipeline.core.raster import Raster
from pipeline.core.recipe import Fingerprints, Recipe
from pipeline.core.records import Located
from pipeline.core.split_digests import SplitDigests
from pipeline.engines.base import Engine, Logits
from pipeline.output.outputs import Destination
from pipeline.segmenting.byte_budget import ByteBudget, Held
from pipeline.segmenting.fetcher import Fetched
from pipeline.segmenting.finishing import PictureFinisher, Segmented
from pipeline.segmenting.inferring import Inference
from pipeline.segmenting.mode import View
from pipeline.segmenting.modes import make_mode
from pipeline.segmenting.preparing import model_inputs, open_picture, picture_info, read_truth, split_of
from pipeline.segmenting.stage_clock import Seconds

Computed = Segmented | PictureError


@dataclass(slots=True)
class _Work:
    """A picture in progress, and its share of the budget."""

    raster: Raster
    held: Held | None
    source_bytes: int
    split: str | None
    result: Computed | None = None

    def end(self, result: Computed) -> None:
        self.result = result
        self.close()

    def close(self) -> None:
        self.raster.close()
        if self.held is not None:
            self.held.release()
            self.held = None


@dataclass(frozen=True, slots=True)
class _Item:
    """A view that is queued for the engine."""

    work: _Work
    finisher: PictureFinisher
    view: View
    taken: ModelInput


@dataclass(slots=True)
class _Run:
    """One batch on one thread."""

    seconds: Seconds
    works: list[_Work] = field(default_factory=list)
    items: list[_Item] = field(default_factory=list)


class Computing:
    """Decodes, infers and encodes the pictures of a batch; thread-safe.

    The engine's batches are filled with views of any pictures. A picture is decoded when the budget has room for its
    pixels, whose size is in its header. A thread waits for room only while it holds none, after it has finished all its
    pictures, so that threads can't deadlock.

    Args:
        recipe: what determines the results.
        destination: what to write.
        engine: the loaded model.
        decoding: limits the decoded bytes of all pictures.
        max_items: maximum number of views per batch of the engine; None for no limit.
        split: which pictures the model was trained on; None if unknown.
    """

    def __init__(
        self,
        recipe: Recipe,
        destination: Destination,
        engine: Engine,
        decoding: ByteBudget,
        max_items: int | None,
        split: SplitDigests | None = None,
    ) -> None:
        self._split = split
        self._recipe = recipe
        self._destination = destination
        self._fingerprints = Fingerprints(recipe)
        self._mode = make_mode(recipe.mode, recipe.spec, tile_overlap=recipe.tile_overlap, tta=recipe.tta)
        self._measures = measures_for(recipe.spec.num_classes)
        self._inference = Inference(engine, max_items)
        self._decoding = decoding

    def run(
        self, pictures: Sequence[Located], fetched: deque[Fetched | PictureError], seconds: Seconds
    ) -> list[Computed]:
        """Computes one batch.

        Args:
            pictures: the located pictures.
            fetched: their files, or why they can't be read; removed one by one, so that each can be freed.
            seconds: receives the time of each stage.

        Returns:
            For each picture its record and files, or the error.

        Raises:
            EngineError: the engine fails independently of the pictures.
        """
        run = _Run(seconds)
        computed: list[_Work | PictureError] = []
        with ExitStack() as stack:
            for picture in pictures:
                files = fetched.popleft()
                try:
                    if isinstance(files, PictureError):
                        raise files
                    raster = open_picture(files.image, self._recipe, seconds)
                except PictureError as error:
                    computed.append(error)
                    continue
                split = split_of(files.image, self._split)
                work = _Work(raster, self._room(raster.decoded_bytes, run), files.image_bytes, split)
                stack.callback(work.close)
                run.works.append(work)
                computed.append(work)
                try:
                    self._queue(picture, files.truth, work, run)
                except PictureError as error:
                    work.end(error)
            self._finish_all(run)
        return [_result_of(each) for each in computed]

    def _room(self, size_bytes: int, run: _Run) -> Held:
        held = self._decoding.try_hold(size_bytes)
        if held is None:
            self._finish_all(run)
            held = self._decoding.hold(size_bytes)
        return held

    def _queue(self, picture: Located, truth_data: bytes | PictureError | None, work: _Work, run: _Run) -> None:
        """Queues the views of a picture, and runs the engine whenever a batch is full.

        Raises:
            PictureError: the picture can't be decoded or doesn't fit the model.
        """
        info = picture_info(work.raster, run.seconds)
        truth = read_truth(truth_data, info, self._recipe, run.seconds)
        finisher = PictureFinisher(
            picture,
            work.raster,
            truth,
            assembler=self._mode.assembler(info, self._recipe.spec),
            measures=self._measures,
            outputs=self._destination.missing(picture),
        )
        keep = finisher.needs_pixels
        assembler_bytes = self._mode.assembler_bytes(info, self._recipe.spec)
        if work.held is not None and assembler_bytes:
            work.held.resize(work.raster.decoded_bytes + assembler_bytes)
        for view, taken in model_inputs(work.raster, self._mode, self._recipe.spec, run.seconds, keep=keep):
            run.items.append(_Item(work, finisher, view, taken))
            self._infer(run, self._inference.max_items)
            if work.result is not None:
                return
        if work.held is not None and not keep:
            # The pixels are freed; the truth, the mask and the assembler's buffer remain.
            truth_bytes = truth.nbytes if isinstance(truth, np.ndarray) else 0
            work.held.resize(info.height * info.width + truth_bytes + assembler_bytes)

    def _finish_all(self, run: _Run) -> None:
        self._infer(run, 1)
        for work in run.works:
            _result_of(work)
        run.works.clear()

    def _infer(self, run: _Run, min_items: int | None) -> None:
        """Runs the engine while at least `min_items` views are queued; does nothing with None."""
        while min_items is not None and len(run.items) >= min_items:
            size = self._inference.max_items or len(run.items)
            items = [item for item in run.items[:size] if item.work.result is None]
            del run.items[:size]
            results = self._inference.logits([item.taken for item in items], run.seconds) if items else []
            for item, result in zip(items, results, strict=True):
                if item.work.result is None:
                    self._finish(item, result, run.seconds)

    def _finish(self, item: _Item, result: Logits | PictureError, seconds: Seconds) -> None:
        work = item.work
        try:
            if isinstance(result, PictureError):
                raise result
            item.finisher.add(item.view, result, seconds)
            if item.finisher.is_complete:
                work.end(item.finisher.segmented(work.source_bytes, work.split, self._fingerprints, seconds))
        except PictureError as error:
            work.end(error)


def _result_of(computed: _Work | PictureError) -> Computed:
    if isinstance(computed, PictureError):
        return computed
    if computed.result is None:
        raise AssertionError("the mode's assembler has not finished all rows of a picture")
    return computed.result

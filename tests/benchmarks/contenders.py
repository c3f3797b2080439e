"""The other ways to segment a folder: `contenders.py NAME IMAGES MODEL OUTPUT` prints its seconds, for throughput.py.

Each is what a careful person would write with that tool: the whole picture resized to the model's size, the same
network, logits (or probabilities) back to the picture's size, argmax, an indexed PNG.
"""

import os
import sys
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import cv2
import numpy as np
from PIL import Image, ImageOps

SIZE = 128
BATCH = 32


def picture_paths(images: str) -> list[Path]:
    """All files, in order."""
    return [path for path in sorted(Path(images).rglob("*")) if path.is_file()]


def load(path: Path) -> tuple[np.ndarray[Any, Any], tuple[int, int]]:
    """The picture at the model's size, and its own (width, height)."""
    with Image.open(path) as opened:
        picture = ImageOps.exif_transpose(opened).convert("RGB")
    return np.asarray(picture.resize((SIZE, SIZE), Image.Resampling.BILINEAR)), picture.size


def save(scores: np.ndarray[Any, Any], size: tuple[int, int], path: Path, images: str, output: str) -> None:
    """Argmax at the picture's own size, as an indexed PNG."""
    planes = [
        cv2.resize(np.ascontiguousarray(scores[..., k]), size, interpolation=cv2.INTER_LINEAR)
        for k in range(scores.shape[-1])
    ]
    best, labels = planes[0], np.zeros(planes[0].shape, np.uint8)
    for k, plane in enumerate(planes[1:], 1):
        labels = np.maximum(labels, (plane > best).view(np.uint8) * np.uint8(k))
        best = np.maximum(best, plane)
    mask = Image.fromarray(labels)
    mask.putpalette([0, 0, 0, 255, 128, 0, 0, 128, 255])
    target = Path(output) / "masks" / f"{path.relative_to(images)}.png"
    target.parent.mkdir(parents=True, exist_ok=True)
    mask.save(target, compress_level=1)


def batches(paths: list[Path]) -> Iterable[list[Path]]:
    """Runs of BATCH."""
    return (paths[start : start + BATCH] for start in range(0, len(paths), BATCH))


def bare(images: str, model: str, output: str) -> float:
    """The engine alone: one thread a core, pictures decoded before the clock starts."""
    # The pictures are links to fewer files: each file is decoded once.
    files = [path.resolve() for path in picture_paths(images)]
    decoded = {file: load(file)[0] for file in set(files)}
    take = taker([decoded[file] for file in files])

    def work() -> None:
        infer = interpreter(model)
        while (pixels := take()) is not None:
            infer(pixels)

    return seconds_of(work)


def by_hand(images: str, model: str, output: str) -> float:
    """The whole way in as few library calls as it takes, a thread a core; no failures, no tables, no resuming."""
    take = taker(picture_paths(images))
    cv2.setNumThreads(1)

    def work() -> None:
        infer = interpreter(model)
        while (path := take()) is not None:
            pixels, size = load(path)
            save(infer(pixels), size, path, images, output)

    return seconds_of(work)


def taker(items: list[Any]) -> Callable[[], Any]:
    """What gives each item to one thread of many, and None when all are given."""
    cursor, lock = iter(items), threading.Lock()

    def take() -> Any:
        with lock:
            return next(cursor, None)

    return take


def interpreter(model: str) -> Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]:
    """A one-thread LiteRT interpreter, a picture at a time."""
    from ai_edge_litert.interpreter import Interpreter

    loaded = Interpreter(model_path=f"{model}/model.tflite", num_threads=1)
    taken, given = loaded.get_input_details()[0]["index"], loaded.get_output_details()[0]["index"]
    loaded.allocate_tensors()

    def infer(pixels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        loaded.set_tensor(taken, pixels[None])
        loaded.invoke()
        return np.asarray(loaded.get_tensor(given)[0])

    return infer


def seconds_of(work: Callable[[], None]) -> float:
    """The time that a thread a core takes for `work`."""
    threads = [threading.Thread(target=work) for _ in range(len(os.sched_getaffinity(0)))]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - start


def keras_script(images: str, model: str, output: str) -> float:
    """Load a batch, model.predict, save a batch."""
    import keras

    network = keras.models.load_model(f"{model}/model.keras", compile=False)
    network.predict(np.zeros((BATCH, SIZE, SIZE, 3), np.uint8), verbose=0)
    start = time.perf_counter()
    for batch in batches(picture_paths(images)):
        pixels, sizes = zip(*map(load, batch), strict=True)
        for scores, size, path in zip(
            network.predict(np.stack(pixels), batch_size=BATCH, verbose=0), sizes, batch, strict=True
        ):
            save(scores, size, path, images, output)
    return time.perf_counter() - start


def runinference(images: str, model: str, output: str) -> float:
    """Beam's own RunInference with its TensorFlow handler, batches of BATCH, FnApiRunner."""
    import apache_beam as beam
    import keras
    import tensorflow as tf
    from apache_beam.ml.inference.base import KeyedModelHandler, RunInference
    from apache_beam.ml.inference.tensorflow_inference import TFModelHandlerTensor
    from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner

    def loaded(path: Path) -> tuple[tuple[Path, tuple[int, int]], Any]:
        pixels, size = load(path)
        return (path, size), tf.constant(pixels)

    network = keras.models.load_model(f"{model}/model.keras", compile=False)
    saved = f"{output}/saved.keras"
    network.save(saved)
    handler = KeyedModelHandler(TFModelHandlerTensor(saved, min_batch_size=BATCH, max_batch_size=BATCH))

    def write(element: Any) -> None:
        (path, size), result = element
        save(np.asarray(result.inference), size, path, images, output)

    start = time.perf_counter()
    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        _ = (
            pipeline
            | beam.Create(picture_paths(images))
            | beam.Reshuffle()
            | beam.Map(loaded)
            | RunInference(handler)
            | beam.Map(write)
        )
    return time.perf_counter() - start


def ray_data(images: str, model: str, output: str) -> float:
    """Ray Data: read and resize in tasks, a Keras actor for each batch of BATCH."""
    import ray

    class Predict:
        def __init__(self) -> None:
            import keras

            self.network = keras.models.load_model(f"{model}/model.keras", compile=False)

        def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
            batch["scores"] = self.network.predict(np.stack(batch["pixels"]), verbose=0)
            return batch

    def loaded(row: dict[str, Any]) -> dict[str, Any]:
        pixels, size = load(Path(row["item"]))
        return {"path": row["item"], "pixels": pixels, "width": size[0], "height": size[1]}

    def write(row: dict[str, Any]) -> dict[str, Any]:
        save(row["scores"], (int(row["width"]), int(row["height"])), Path(row["path"]), images, output)
        return {"path": row["path"]}

    ray.init(num_cpus=len(os.sched_getaffinity(0)), include_dashboard=False, log_to_driver=False)
    start = time.perf_counter()
    done = (
        ray.data.from_items([str(path) for path in picture_paths(images)])
        .map(loaded)
        .map_batches(Predict, batch_size=BATCH, concurrency=1)
        .map(write)
        .count()
    )
    seconds = time.perf_counter() - start
    assert done == len(picture_paths(images))
    return seconds


CONTENDERS: dict[str, Callable[[str, str, str], float]] = {
    "bare": bare,
    "by_hand": by_hand,
    "keras": keras_script,
    "runinference": runinference,
    "ray": ray_data,
}

if __name__ == "__main__":
    print(CONTENDERS[sys.argv[1]](*sys.argv[2:5]))

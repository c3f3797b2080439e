"""Engines: the same bits for any batch and any number of threads, and a self-test that stops a broken one."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from small_archive import Archive, expected_mask, run_job

from pipeline.core.errors import EngineError, ModelError, OptionError
from pipeline.core.model_input import model_input
from pipeline.core.spec import ModelSpec
from pipeline.engines import backends
from pipeline.engines.backends import Backend, check_backend
from pipeline.engines.base import Batch, Engine, Logits, input_batch, self_test
from pipeline.engines.litert import LiteRTEngine
from pipeline.engines.load import load_engine
from pipeline.engines.model_folder import ModelFolder, carried_names, open_model

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module", params=["tiny", "shapes"])
def model(request: pytest.FixtureRequest, tiny_model: Path) -> ModelFolder:
    if request.param == "tiny":
        return open_model(str(tiny_model))
    if request.param not in carried_names():
        pytest.skip(f"the model {request.param} is not carried")
    return open_model(request.param)


def noise(spec: ModelSpec, count: int) -> npt.NDArray[np.uint8]:
    shape = (count, spec.height, spec.width, spec.channels)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("batch_size", [2, 3, 8])
def test_the_same_bits_for_any_batch_size(model: ModelFolder, batch_size: int) -> None:
    engine, pictures = load_engine(model, 1), noise(model.spec, 9)
    alone = np.concatenate([engine.logits(pictures[k : k + 1]) for k in range(9)])
    together = np.concatenate([engine.logits(pictures[k : k + batch_size]) for k in range(0, 9, batch_size)])
    assert alone.dtype == np.float32
    assert alone.shape[0] == 9
    assert alone.shape[3] == model.spec.num_classes
    assert alone.tobytes() == together.tobytes()


def test_the_same_bits_from_many_threads_and_changing_batch_sizes(model: ModelFolder) -> None:
    engine, pictures = load_engine(model, 2), noise(model.spec, 12)
    expected = [engine.logits(pictures[k : k + 1])[0].tobytes() for k in range(12)]
    parts = [(first, first + size) for size in (1, 3, 4) for first in range(0, 12, size)]
    with ThreadPoolExecutor(4) as executor:
        for (first, last), logits in zip(
            parts, executor.map(lambda part: engine.logits(pictures[slice(*part)]), parts), strict=True
        ):
            assert [each.tobytes() for each in logits] == expected[first:last]


def test_a_later_run_leaves_earlier_logits_alone(model: ModelFolder) -> None:
    engine, pictures = load_engine(model, 1), noise(model.spec, 2)
    first = engine.logits(pictures[:1])
    kept = first.copy()
    engine.logits(pictures[1:])
    assert np.array_equal(first, kept)


def test_the_tiny_model_gives_back_its_input(tiny_model: Path) -> None:
    spec = open_model(str(tiny_model)).spec
    pictures = noise(spec, 2)
    logits = load_engine(open_model(str(tiny_model)), 1).logits(pictures)
    assert np.allclose(logits, pictures / 255.0, atol=1e-6)


def test_no_more_interpreters_than_threads(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.engines import litert

    made, at_work, most = [0], [0], [0]
    lock = threading.Lock()

    class Slow:
        def __init__(self, _: bytes) -> None:
            made[0] += 1

        def run(self, batch: Batch) -> Logits:
            with lock:
                at_work[0] += 1
                most[0] = max(most[0], at_work[0])
            threading.Event().wait(0.01)
            with lock:
                at_work[0] -= 1
            return batch.astype(np.float32)

    monkeypatch.setattr(litert, "_Runner", Slow)
    engine, batch = LiteRTEngine(b"", 2), np.zeros((1, 2, 2, 3), np.uint8)
    with ThreadPoolExecutor(6) as executor:
        list(executor.map(lambda _: engine.logits(batch), range(24)))
    assert (made[0], most[0]) == (2, 2)


def test_a_batch_that_breaks_leaves_the_engine_usable(tiny_model: Path) -> None:
    engine = load_engine(open_model(str(tiny_model)), 1)
    good = np.full((1, 32, 32, 3), 7, np.uint8)
    before = engine.logits(good)
    for bad in (np.zeros((1, 32, 32, 3), np.float32), np.zeros((1, 32, 32), np.uint8)):
        with pytest.raises((ValueError, RuntimeError)):
            engine.logits(bad)
    assert np.array_equal(engine.logits(good), before)


@pytest.mark.parametrize("content", [b"", b"garbage", b"\x1c\x00\x00\x00TFL3" + b"\0" * 64])
def test_a_file_that_is_no_model_is_an_engine_fault(tiny_model: Path, content: bytes) -> None:
    with pytest.raises(EngineError, match="can't load the model"):
        LiteRTEngine(content, 1).logits(np.zeros((1, 32, 32, 3), np.uint8))


def test_float_models_get_the_range_of_their_metadata(tiny_model: Path) -> None:
    spec = open_model(str(tiny_model)).spec
    pictures = [np.full((2, 2, 3), value, np.uint8) for value in (0, 51, 255)]
    assert input_batch([model_input(each, spec.input) for each in pictures]).dtype == np.uint8
    floats = replace(spec, dtype="float32", value_range=(-1.0, 1.0)).input
    batch = input_batch([model_input(each, floats) for each in pictures])
    assert batch.dtype == np.float32
    assert np.allclose(batch[:, 0, 0, 0], [-1.0, -0.6, 1.0])


class Fake:
    """An engine that returns a function of the batch."""

    def __init__(self, answer: Callable[[Batch], Logits]) -> None:
        self.logits = answer


def zeros(batch: Batch, classes: int = 3) -> Logits:
    return np.zeros((*batch.shape[:3], classes), np.float32)


def fails(_: Batch) -> Logits:
    raise RuntimeError("no such operation")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (fails, "fails on a plain picture: no such operation"),
        (lambda batch: zeros(batch, 2), "the metadata has 3 classes"),
        (lambda batch: zeros(batch)[0], "the metadata has 3 classes"),
        (lambda batch: zeros(batch).repeat(2, axis=0), "the metadata has 3 classes"),
        (lambda batch: zeros(batch) + np.float32("nan"), "not finite"),
        (lambda batch: zeros(batch) / (1 - batch.max() // 255), "not finite"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*encountered in divide:RuntimeWarning")
def test_the_self_test_stops_a_broken_engine(tiny_model: Path, answer: Callable[[Batch], Logits], said: str) -> None:
    engine: Engine = Fake(answer)
    with pytest.raises(EngineError, match=said):
        self_test(engine, open_model(str(tiny_model)).spec)


def test_the_self_test_passes_a_sound_engine(tiny_model: Path) -> None:
    self_test(Fake(zeros), open_model(str(tiny_model)).spec)


def test_a_model_of_other_size_than_its_metadata_is_stopped(tiny_model: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    metadata = json.loads((folder / "metadata.json").read_text("utf-8"))
    metadata["classes"].append({"class_id": 3, "name": "white", "color": "#ffffff"})
    (folder / "metadata.json").write_text(json.dumps(metadata), encoding="utf-8")
    with pytest.raises(EngineError, match="has 4 classes"):
        load_engine(open_model(str(folder)), 1)


def test_a_backend_without_its_package_or_precision_is_refused_before_work(monkeypatch: pytest.MonkeyPatch) -> None:
    check_backend("litert", "int8", is_here=True)
    monkeypatch.setattr(backends.importlib.util, "find_spec", lambda _: None)
    check_backend("tensorflow", "float32", is_here=False)
    with pytest.raises(OptionError, match=r"pip install 'maskbeam\[train\]'"):
        check_backend("tensorflow", "float32", is_here=True)
    with pytest.raises(OptionError, match=r"--precision int8: --backend tensorflow runs float32 only"):
        check_backend("tensorflow", "int8", is_here=False)


def test_a_backend_opens_the_file_that_it_runs_and_no_other(tiny_model: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    keras_file = (folder / "model.keras").read_bytes()
    (folder / "model.tflite").unlink()
    model = open_model(str(folder), backend="tensorflow")
    assert (model.backend, model.file, model.digest) == (
        "tensorflow",
        "model.keras",
        hashlib.sha256(keras_file).hexdigest(),
    )
    with pytest.raises(ModelError, match=r"model\.tflite can't be read"):
        open_model(str(folder))
    (folder / "model.keras").write_bytes(keras_file + b"\0")
    with pytest.raises(ModelError, match=r"model\.keras of model .* has changed since the job began"):
        load_engine(model, 1)
    with pytest.raises(ModelError, match=r"model\.keras has another digest than in metadata\.json"):
        open_model(str(folder), backend="tensorflow")
    (folder / "model.keras").unlink()
    with pytest.raises(ModelError, match=r"model\.keras can't be read"):
        open_model(str(folder), backend="tensorflow")


def test_a_new_backend_is_one_entry_of_the_table(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(spec: ModelSpec, content: bytes, threads: int) -> Engine:
        assert (content, threads) == (b"weights", 3)
        return Fake(lambda batch: zeros(batch, spec.num_classes))

    toy = Backend("toy", {"float32": "model.toy"}, "json", "", 4, load)
    monkeypatch.setattr(backends, "BACKENDS", (*backends.BACKENDS, toy))
    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    (folder / "model.toy").write_bytes(b"weights")
    engine = load_engine(open_model(str(folder), backend="toy"), 3)
    assert engine.logits(np.zeros((2, 32, 32, 3), np.uint8)).shape == (2, 32, 32, 3)
    assert backends.backend_named("auto") is backends.BACKENDS[0]


def test_litert_starts_without_output_and_without_tensorflow(tiny_model: Path) -> None:
    program = f"""
        import sys
        sys.modules["tensorflow"] = sys.modules["keras"] = None
        import numpy as np
        from pipeline.engines.load import load_engine
        from pipeline.engines.model_folder import open_model
        engine = load_engine(open_model({str(tiny_model)!r}), 2)
        print(engine.logits(np.zeros((2, 32, 32, 3), np.uint8)).shape, file=sys.stderr)
    """
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stderr == "(2, 32, 32, 3)\n"


def test_only_the_greeting_is_dropped_from_standard_error(capfd: pytest.CaptureFixture[str]) -> None:
    from pipeline.engines.quiet import quiet

    def speak_and_fail() -> None:
        with quiet(b"INFO: hello"):
            os.write(2, b"before\nINFO: hello, world\nafter\n")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        speak_and_fail()
    os.write(2, b"INFO: hello again\n")
    assert capfd.readouterr().err == "before\nafter\nINFO: hello again\n"


def test_what_a_library_prints_is_dropped_unless_it_fails(capfd: pytest.CaptureFixture[str]) -> None:
    from pipeline.engines.quiet import quiet

    def speak() -> None:
        os.write(2, b"from C++\n")
        print("from Python")

    def speak_and_fail() -> None:
        with quiet():
            speak()
            raise ZeroDivisionError

    with quiet():
        speak()
    assert capfd.readouterr() == ("", "")
    with pytest.raises(ZeroDivisionError):
        speak_and_fail()
    said = capfd.readouterr()
    assert said.out == ""
    assert sorted(said.err.splitlines()) == ["from C++", "from Python"]


def test_tensorflow_gives_the_same_masks(tiny_model: Path, archive: Archive, tmp_path: Path) -> None:
    pytest.importorskip("tensorflow")
    model = open_model(str(tiny_model))
    engine, pictures = load_engine(open_model(str(tiny_model), backend="tensorflow"), 1), noise(model.spec, 5)
    assert np.allclose(engine.logits(pictures), load_engine(model, 1).logits(pictures), atol=1e-6)
    # And in a whole job, here where TensorFlow is imported already.
    done = run_job(tmp_path / "out", "--input", archive.images, "--backend", "tensorflow", "--batch_size", 4)
    assert (done.status, done.failures) == (0, [])
    for image_id, mask in done.masks.items():
        expected, sure = expected_mask(archive.pixels(image_id))
        assert np.array_equal(mask[sure], expected[sure])


def test_a_keras_file_that_is_none_is_an_engine_fault(tiny_model: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorflow")
    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    without_digests(folder)
    (folder / "model.keras").write_bytes(b"garbage")
    with pytest.raises(EngineError, match=r"model\.keras can't be loaded"):
        load_engine(open_model(str(folder), backend="tensorflow"), 1)


def test_a_softmax_at_the_end_of_a_keras_model_is_removed(tiny_model: Path, tmp_path: Path) -> None:
    keras = pytest.importorskip("keras")
    pytest.importorskip("tensorflow")
    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    without_digests(folder)
    image = keras.Input((32, 32, 3), dtype="uint8")
    scaled = keras.layers.Rescaling(1 / 255.0)(image)
    convolved = keras.layers.Conv2D(3, 1, name="logits", bias_initializer="random_normal")(scaled)
    network = keras.Model(image, keras.layers.Softmax(name="probabilities")(convolved))
    network.save(folder / "model.keras")
    kernel, bias = (np.asarray(weight) for weight in network.get_layer("logits").get_weights())

    model = open_model(str(folder), backend="tensorflow")
    pictures = noise(model.spec, 2)
    expected = pictures.astype(np.float32) / 255.0 @ kernel[0, 0] + bias
    assert np.allclose(load_engine(model, 1).logits(pictures), expected, atol=1e-5)


def without_digests(folder: Path) -> None:
    metadata = json.loads((folder / "metadata.json").read_text("utf-8"))
    (folder / "metadata.json").write_text(json.dumps(metadata | {"files": {}}), encoding="utf-8")

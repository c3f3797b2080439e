"""One network in every engine: pictures a second, inference alone, beside the machine's matrix product rate.

    python tests/benchmarks/engines.py --model MODEL [MODEL …] [--rounds 5] [--json FILE]

MODEL is a model folder with `model.keras`, `model.tflite` (the rewritten network) and, optionally,
`model_int8.tflite`. Every engine uses all cores, each in the way that suits it; they take turns, round after round, and
medians are printed. `plain` is the Keras network converted unchanged, without the rewriting. The largest difference
of the logits to Keras' is printed for each. Engines that are not installed are left out and named:
pip install onnxruntime openvino tf2onnx
"""

import argparse
import importlib.util
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

CORES = len(os.sched_getaffinity(0))
PICTURES = 32
Batch = np.ndarray[Any, Any]
Run = Callable[[Batch], Batch]


def litert(content: bytes) -> Run:
    """One one-thread interpreter a core, a picture at a time: what the job does."""
    interpreters = [Interpreter(model_content=content, num_threads=1) for _ in range(CORES)]
    for interpreter in interpreters:
        interpreter.allocate_tensors()
    executor = ThreadPoolExecutor(CORES)

    def part(index: int, batch: Batch) -> list[Batch]:
        interpreter = interpreters[index]
        taken, given = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]
        logits = []
        for picture in batch[index::CORES]:
            interpreter.set_tensor(taken, picture[None])
            interpreter.invoke()
            logits.append(interpreter.get_tensor(given)[0])
        return logits

    def run(batch: Batch) -> Batch:
        parts = list(executor.map(lambda index: part(index, batch), range(CORES)))
        return np.stack([parts[index % CORES][index // CORES] for index in range(len(batch))])

    return run


def tensorflow(network: keras.Model, batch_size: int) -> Run:
    """The network as a compiled graph function."""
    function = tf.function(lambda batch: network(batch, training=False))

    def run(batch: Batch) -> Batch:
        parts = [function(tf.constant(batch[s : s + batch_size])).numpy() for s in range(0, len(batch), batch_size)]
        return np.concatenate(parts)

    return run


def onnxruntime(path: str) -> Run:
    """ONNX Runtime with its default thread pool, batches of 8."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda batch: np.concatenate(
        [session.run(None, {name: batch[s : s + 8]})[0] for s in range(0, len(batch), 8)]
    )


def openvino(path: str) -> Run:
    """OpenVINO in its latency mode, batches of 8."""
    import openvino

    # Where the cores have bfloat16 it would take that by default; here all compute in float32.
    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(path, "CPU", settings)
    return lambda batch: np.concatenate([compiled(batch[s : s + 8])[0] for s in range(0, len(batch), 8)])


def engines_of(folder: Path, scratch: Path) -> tuple[keras.Model, dict[str, Run]]:
    """The Keras network up to its logits, and every engine that can be had for it."""
    whole = keras.saving.load_model(folder / "model.keras", compile=False, safe_mode=True)
    network = keras.Model(whole.inputs, whole.get_layer("logits").output)
    runs = {f"TensorFlow graph, batch {size}": tensorflow(network, size) for size in (8, 32)}
    runs["LiteRT plain"] = litert(tf.lite.TFLiteConverter.from_keras_model(network).convert())
    runs["LiteRT rewritten"] = litert((folder / "model.tflite").read_bytes())
    if (folder / "model_int8.tflite").exists():
        runs["LiteRT rewritten, int8"] = litert((folder / "model_int8.tflite").read_bytes())
    if importlib.util.find_spec("tf2onnx"):
        onnx_path = str(scratch / f"{folder.name}.onnx")
        network.export(onnx_path, format="onnx", verbose=False)
        for name, package, load in (
            ("ONNX Runtime", "onnxruntime", onnxruntime),
            ("OpenVINO, latency mode", "openvino", openvino),
        ):
            if importlib.util.find_spec(package):
                runs[name] = load(onnx_path)
            else:
                print(f"left out, not installed: {name}")
    else:
        print("left out, tf2onnx is not installed: ONNX Runtime, OpenVINO")
    return network, runs


def sgemm_gflops() -> float:
    """The rate of a float32 matrix product, 10^9 multiplications and additions a second."""
    size = 2048
    a, b = np.random.default_rng(0).random((2, size, size), np.float32)
    start = time.perf_counter()
    _ = a @ b
    return 2 * size**3 / (time.perf_counter() - start) / 1e9


def main() -> None:
    """Runs all rounds of each model and prints a table a model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, nargs="+", required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    document: dict[str, Any] = {"cores": CORES}
    with tempfile.TemporaryDirectory() as scratch:
        for folder in arguments.model:
            network, runs = engines_of(folder, Path(scratch))
            shape = (PICTURES, *network.input_shape[1:])
            pictures = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
            expected = network.predict(pictures, verbose=0)
            differences = {name: float(np.abs(run(pictures) - expected).max()) for name, run in runs.items()}
            rates: dict[str, list[float]] = {name: [] for name in runs}
            products = []
            for _ in range(arguments.rounds):
                products.append(sgemm_gflops())
                for name, run in runs.items():
                    start = time.perf_counter()
                    run(pictures)
                    rates[name].append(PICTURES / (time.perf_counter() - start))
            product = statistics.median(products)
            print(f"\n{folder.name}: {shape[1]}x{shape[2]} px, {CORES} cores, sgemm {product:.0f} GFLOP/s")
            print(f"{'engine':26s} {'pictures/s':>10s} {'to TensorFlow':>13s} {'logits differ by':>16s}")
            base = rates["TensorFlow graph, batch 8"]
            for name, values in rates.items():
                ratio = statistics.median(a / b for a, b in zip(values, base, strict=True))
                print(f"{name:26s} {statistics.median(values):10.2f} {ratio:13.2f} {differences[name]:16.2e}")
            document[folder.name] = {"sgemm_gflops": products, "rates": rates, "logits_differ_by": differences}
    if arguments.json:
        arguments.json.write_text(json.dumps(document, indent=2))


if __name__ == "__main__":
    main()

"""Makes tests/data/tiny_model: the class of a pixel is its brightest channel. Run once; the result is committed.

The network is a single 1×1 convolution whose kernel is the identity, so that a test can compute every mask on its own.

    python tests/data/make_tiny_model.py
"""

import hashlib
import json
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

FOLDER = Path(__file__).resolve().parent / "tiny_model"
SIDE_PX = 32


def main() -> None:
    """Writes model.keras, model.tflite and metadata.json."""
    image = keras.Input((SIDE_PX, SIDE_PX, 3), dtype="uint8", name="image")
    scaled = keras.layers.Rescaling(1 / 255)(image)
    layer = keras.layers.Conv2D(3, 1, use_bias=False, name="logits")
    network = keras.Model(image, layer(scaled), name="brightest_channel")
    layer.set_weights([np.eye(3, dtype=np.float32).reshape(1, 1, 3, 3)])

    FOLDER.mkdir(exist_ok=True)
    network.save(FOLDER / "model.keras", include_optimizer=False)
    converter = tf.lite.TFLiteConverter.from_keras_model(network)
    (FOLDER / "model.tflite").write_bytes(converter.convert())

    files = {}
    for name in ("model.keras", "model.tflite"):
        content = (FOLDER / name).read_bytes()
        files[name] = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    colors = ("#c02020", "#20c020", "#2020c0")
    metadata = {
        "schema_version": 1,
        "name": "tiny",
        "input": {"height": SIDE_PX, "width": SIDE_PX, "channels": 3, "dtype": "uint8", "range": [0, 255]},
        "classes": [
            {"class_id": class_id, "name": name, "color": color}
            for class_id, (name, color) in enumerate(zip(("red", "green", "blue"), colors, strict=True))
        ],
        "label_map": {},
        "ignore_label": None,
        "training": {},
        "scores": {},
        "agreement": {},
        "files": files,
        "versions": {"keras": keras.__version__, "tensorflow": tf.__version__},
    }
    (FOLDER / "metadata.json").write_text(json.dumps(metadata, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""A model folder is data, never code, and what comes from outside stays text."""

import ast
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_archive import TINY_MODEL, run_job

ROOT = Path(__file__).resolve().parent.parent
# Functions that turn untrusted bytes into code.
UNSAFE_MODULES = {"pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "yaml"}
UNSAFE_CALLS = {"eval", "exec", "compile", "__import__"}
# It reads PyTorch files of a fixed digest, by an unpickler that resolves only ordered dicts, tensors and their types.
RESTRICTED_UNPICKLER = ROOT / "model" / "networks" / "torch_weights.py"


@pytest.mark.parametrize("top", ["pipeline", "model"])
def test_nothing_is_unpickled_or_evaluated(top: str) -> None:
    found = []
    for path in (ROOT / top).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name.split(".")[0] for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [(node.module or "").split(".")[0]]
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in UNSAFE_CALLS:
                found.append(f"{path}:{node.lineno}: {node.func.id}")
            unsafe = UNSAFE_MODULES - ({"pickle"} if path == RESTRICTED_UNPICKLER else set())
            found += [f"{path}:{node.lineno}: {name}" for name in names if name in unsafe]
            if isinstance(node, ast.keyword) and node.arg in ("allow_pickle", "safe_mode"):
                is_safe = isinstance(node.value, ast.Constant) and node.value.value is (node.arg == "safe_mode")
                found += [] if is_safe else [f"{path}: {node.arg}"]
    assert found == []


def test_pickles_are_read_by_the_restricted_unpickler_alone() -> None:
    tree = ast.parse(RESTRICTED_UNPICKLER.read_text("utf-8"))
    used = [ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    assert {name for name in used if name.startswith("pickle.")} == {"pickle.Unpickler", "pickle.UnpicklingError"}
    classes = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    (unpickler,) = (node for node in classes if [ast.unparse(base) for base in node.bases] == ["pickle.Unpickler"])
    methods = {node.name for node in unpickler.body if isinstance(node, ast.FunctionDef)}
    assert {"find_class", "persistent_load"} <= methods
    assert used.count("pickle.Unpickler") == 1


@pytest.mark.full
def test_a_keras_file_that_holds_code_is_refused(tmp_path: Path) -> None:
    keras = pytest.importorskip("keras")
    from pipeline.core.errors import EngineError
    from pipeline.engines.load import load_engine
    from pipeline.engines.model_folder import open_model

    folder = tmp_path / "model"
    shutil.copytree(TINY_MODEL, folder)
    traces = tmp_path / "code_ran"
    code = eval(f"lambda x: (open({str(traces)!r}, 'w').close(), x)[1]")
    image = keras.Input((32, 32, 3), dtype="uint8")
    keras.Model(image, keras.layers.Lambda(code, output_shape=(32, 32, 3))(image)).save(folder / "model.keras")
    traces.unlink(missing_ok=True)
    metadata = json.loads((folder / "metadata.json").read_text())
    metadata["files"].pop("model.keras", None)
    (folder / "metadata.json").write_text(json.dumps(metadata))
    with pytest.raises(EngineError, match=r"model\.keras can't be loaded"):
        load_engine(open_model(str(folder), backend="tensorflow"), 1)
    assert not traces.exists()


def test_special_characters_in_names_have_no_effect(tmp_path: Path) -> None:
    names = [
        "=1+1.png",
        "@SUM(A1).png",
        "<script>alert(1)<-script>.png",
        "a b&c;d$(e)`f`.png",
        "%2e%2e%2f.png",
        "-rf.png",
    ]
    for number, name in enumerate(names):
        Image.fromarray(np.full((20, 30, 3), 40 * number, np.uint8)).save(tmp_path / name)
    (tmp_path / "<img src=x onerror=alert(1)>.png").write_bytes(b"no picture")
    finished = run_job(tmp_path / "out" / "run", "--input", tmp_path / "*.png", "--max_failure_ratio", 1)
    assert sorted(finished.masks) == sorted(names)
    assert sorted(path.name for path in (tmp_path / "out/run/masks").iterdir()) == sorted(f"{n}.png" for n in names)
    report = (tmp_path / "out/run/report.html").read_text("utf-8")
    assert "<script>alert" not in report
    assert "<img src=x" not in report
    assert "&lt;img src=x onerror" in report

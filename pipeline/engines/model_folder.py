"""Finding a model by its folder or name, and reading what it holds. A model folder is data, never code."""

import hashlib
import os
from dataclasses import dataclass

from pipeline.core.errors import ModelError
from pipeline.core.spec import METADATA_FILE, TRAINING_FOLDER, ModelSpec
from pipeline.core.split_digests import SPLIT_FILE, SplitDigests
from pipeline.engines.backends import AUTO, FLOAT32, backend_named, check_backend
from pipeline.storage import filesystem
from pipeline.storage.os_errors import os_errors_as

_CARRIED = os.path.join(
    os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))), "model/pretrained"
)


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """A model that was found and checked; small enough to be sent to the workers.

    Args:
        spec: the content of `metadata.json`.
        location: the name of a carried model, or the absolute folder.
        backend: the name of the backend that runs it, never `auto`.
        precision: of the file.
        file: the name of the file that the backend runs.
        digest: SHA-256 of that file, hexadecimal.
    """

    spec: ModelSpec
    location: str
    backend: str
    precision: str
    file: str
    digest: str

    def read(self) -> bytes:
        """Reads the file that the engine runs.

        Returns:
            Its content.

        Raises:
            ModelError: it can't be read, or is no longer the file that was checked.
        """
        content = _read(filesystem.join(folder_of(self.location), self.file))
        if hashlib.sha256(content).hexdigest() != self.digest:
            raise ModelError(f"{self.file} of model {self.location} has changed since the job began")
        return content

    def split(self) -> SplitDigests | None:
        """Which pictures the model was trained on; None for a model that does not say.

        Raises:
            ModelError: its `split.json` can't be read, or is not the file that `metadata.json` names.
        """
        uri = filesystem.join(self.uri, SPLIT_FILE)
        if SPLIT_FILE not in self.spec.files or not filesystem.exists(uri):
            return None
        content = _read(uri)
        if hashlib.sha256(content).hexdigest() != self.spec.files[SPLIT_FILE].get("sha256"):
            raise ModelError(f"{SPLIT_FILE} has another digest than in {METADATA_FILE}")
        return SplitDigests.from_json(content.decode("utf-8", "replace"))

    @property
    def uri(self) -> str:
        """The model's folder on this machine."""
        return folder_of(self.location)


def carried_names() -> list[str]:
    """The names of the models that the package carries."""
    if not os.path.isdir(_CARRIED):
        return []
    return sorted(name for name in os.listdir(_CARRIED) if os.path.isfile(os.path.join(_CARRIED, name, METADATA_FILE)))


def folder_of(location: str) -> str:
    """The folder of a carried model's name, or the location itself."""
    return os.path.join(_CARRIED, location) if location in carried_names() else location


def open_model(name_or_folder: str, *, backend: str = AUTO, precision: str = FLOAT32) -> ModelFolder:
    """Finds and checks a model.

    A folder of that name takes precedence over a carried model.

    Args:
        name_or_folder: a carried model's name, or a folder or bucket prefix.
        backend: one of `backends.BACKEND_NAMES`.
        precision: one that the backend supports; together they decide which file is checked and run.

    Returns:
        The model, its digest computed from the file itself.

    Raises:
        OptionError: the backend doesn't support the precision.
        ModelError: no model is found, a file is missing or unreadable, or its digest isn't the metadata's.
    """
    folder = filesystem.absolute(name_or_folder)
    if filesystem.is_remote(name_or_folder) or os.path.isdir(folder):
        location = folder
    elif name_or_folder in carried_names():
        location, folder = name_or_folder, folder_of(name_or_folder)
    else:
        raise ModelError(
            f"--model {name_or_folder}: neither a folder nor one of the carried models ({', '.join(carried_names())})"
        )
    spec = read_spec(name_or_folder, folder)
    check_backend(backend, precision, is_here=False)
    used = backend_named(backend)
    file = used.files[precision]
    try:
        content = _read(filesystem.join(folder, file))
    except ModelError as error:
        raise ModelError(f"--model {name_or_folder}: {error}") from error
    digest = hashlib.sha256(content).hexdigest()
    expected = spec.files.get(file, {}).get("sha256")
    if expected is not None and expected != digest:
        raise ModelError(f"--model {name_or_folder}: {file} has another digest than in {METADATA_FILE}")
    model = ModelFolder(spec, location, used.name, precision, file, digest)
    try:
        model.split()
    except ModelError as error:
        raise ModelError(f"--model {name_or_folder}: {error}") from error
    return model


def read_spec(name_or_folder: str, folder: str) -> ModelSpec:
    """Reads a model folder's `metadata.json`.

    Args:
        name_or_folder: the value of `--model`, for messages.
        folder: the folder itself, absolute or a bucket prefix.

    Returns:
        Its content.

    Raises:
        ModelError: it is missing, because a training has not finished or the folder holds no model, or it is invalid.
    """
    uri = filesystem.join(folder, METADATA_FILE)
    try:
        if not filesystem.exists(uri) and filesystem.is_folder(filesystem.join(folder, TRAINING_FOLDER)):
            raise ModelError(
                f"no {METADATA_FILE}: its training has not finished; repeat the command"
                f" `python -m model train … --output {name_or_folder}` with --resume"
            )
        return ModelSpec.from_json(_read(uri).decode("utf-8"))
    except UnicodeDecodeError as error:
        raise ModelError(f"--model {name_or_folder}: {METADATA_FILE} is not UTF-8 text") from error
    except ModelError as error:
        raise ModelError(f"--model {name_or_folder}: {error}") from error
    except OSError as error:
        raise ModelError(f"--model {name_or_folder}: can't be read: {error.strerror or error}") from error


def _read(uri: str) -> bytes:
    with os_errors_as(ModelError, f"{filesystem.base_name(uri)} can't be read"):
        return filesystem.read_bytes(uri)

"""Reads weights that PyTorch saved in its format of 2020, without PyTorch and without running code from the file.

The file is a series of pickles, then the values. "Pickle" can call any function that the file names, so the reader here
knows four names, those of an ordered dict of tensors, and refuses any other.

The format: https://github.com/pytorch/pytorch/blob/v1.5.0/torch/serialization.py, `_legacy_save`.
"""

import collections
import io
import math
import pickle
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.core.errors import ModelError

_MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
_PROTOCOL_VERSION = 1001
_DTYPES = {"FloatStorage": np.dtype("<f4"), "LongStorage": np.dtype("<i8")}


@dataclass(slots=True)
class _Storage:
    """The values of one or more tensors, which come after the pickles."""

    dtype: np.dtype[Any]
    size: int
    values: npt.NDArray[Any] | None = None


@dataclass(frozen=True, slots=True)
class _Tensor:
    """A view of a storage; offset and strides in elements."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def array(self) -> npt.NDArray[Any]:
        """A copy of the values.

        Raises:
            ValueError: the view exceeds its storage, or the file has no values for it.
        """
        values = self.storage.values
        last = self.offset + sum((side - 1) * stride for side, stride in zip(self.shape, self.strides, strict=True))
        size = math.prod(self.shape)
        if values is None or min((self.offset, *self.shape, *self.strides)) < 0 or max(last, size - 1) >= len(values):
            raise ValueError("a tensor exceeds its storage")
        strides = tuple(stride * values.itemsize for stride in self.strides)
        return np.lib.stride_tricks.as_strided(values[self.offset :], self.shape, strides).copy()


class _Unpickler(pickle.Unpickler):
    """An unpickler of ordered dicts of tensors only."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        """The four names that such a file needs."""
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild_tensor
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        raise pickle.UnpicklingError(f"the file names {module}.{name}, which is neither a tensor nor an ordered dict")

    def persistent_load(self, pid: Any) -> _Storage:
        """A storage: ("storage", dtype, key, device, number of elements, None)."""
        kind, dtype, key, _, size, view = pid
        if kind != "storage" or view is not None:
            raise pickle.UnpicklingError(f"a {kind} is not a storage")
        return self.storages.setdefault(str(key), _Storage(dtype, int(size)))


def _rebuild_tensor(
    storage: _Storage, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: Any
) -> _Tensor:
    if not isinstance(storage, _Storage):
        raise pickle.UnpicklingError("a tensor without a storage")
    return _Tensor(storage, offset, shape, strides)


def read_state_dict(content: bytes) -> dict[str, npt.NDArray[Any]]:
    """Reads the content of a `.pth` file that holds a state dict.

    Args:
        content: of the file.

    Returns:
        Name → float32 or int64 array, in PyTorch's layout: a convolution's kernel is (out, in, height, width).

    Raises:
        ModelError: it is not such a file, is cut, or names anything but tensors and ordered dicts.
    """
    file = io.BytesIO(content)
    try:
        if (_load(file), _load(file)) != (_MAGIC_NUMBER, _PROTOCOL_VERSION):
            raise ValueError("not a file of PyTorch's format before 1.6")
        _load(file)  # the sizes of C types where it was written
        unpickler = _Unpickler(file)
        tensors = unpickler.load()
        for key in _load(file):
            _read_storage(file, unpickler.storages[key])
        if not isinstance(tensors, dict) or not all(isinstance(one, _Tensor) for one in tensors.values()):
            raise ValueError("not an ordered dict of tensors")
        return {str(name): tensor.array() for name, tensor in tensors.items()}
    except _UNREADABLE as error:
        raise ModelError(f"the weights can't be read: {error}") from error


_UNREADABLE: tuple[type[Exception], ...] = (
    pickle.UnpicklingError, ValueError, TypeError, KeyError, IndexError, EOFError, AttributeError, struct.error,
)  # fmt: skip


def _load(file: io.BytesIO) -> Any:
    return _Unpickler(file).load()


def _read_storage(file: io.BytesIO, storage: _Storage) -> None:
    """The number of elements, int64, and the elements."""
    (count,) = struct.unpack("<q", file.read(8))
    if count != storage.size:
        raise ValueError(f"a storage of {storage.size} elements has {count}")
    values = file.read(count * storage.dtype.itemsize)
    if len(values) != count * storage.dtype.itemsize:
        raise ValueError("the file is cut")
    storage.values = np.frombuffer(values, storage.dtype)

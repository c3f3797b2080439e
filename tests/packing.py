"""Folders as archives of every kind, for the tests of sources."""

import io
import struct
import tarfile
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path


def files_below(folder: Path) -> dict[str, bytes]:
    """The files below a folder, by their path with `/`, in order of their names."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def tar_of(files: Mapping[str, bytes], *, tar_format: int = tarfile.PAX_FORMAT, gzip: bool = False) -> bytes:
    """A tar of files."""
    buffer = io.BytesIO()
    # The file name would be in the gzip header; without it equal content gives equal bytes.
    with tarfile.open(fileobj=buffer, mode="w:gz" if gzip else "w", format=tar_format) as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def zip_of(files: Mapping[str, bytes], *, compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip of files."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def pack(folder: Path, archive: Path) -> Path:
    """Packs a folder into an archive, whose kind is given by its name, and returns the archive."""
    files = files_below(folder)
    if archive.name.endswith(".zip"):
        data = zip_of(files)
    else:
        data = tar_of(files, gzip=archive.name.endswith((".gz", ".tgz")))
    archive.parent.mkdir(parents=True, exist_ok=True)
    archive.write_bytes(data)
    return archive


def example_of(features: Mapping[str, bytes | int]) -> bytes:
    """A serialised tf.train.Example."""
    entries = b""
    for name, value in features.items():
        feature = _field(1, _field(1, value)) if isinstance(value, bytes) else _field(3, _field(1, varint(value)))
        entries += _field(1, _field(1, name.encode()) + _field(2, feature))
    return _field(1, entries)


def tfrecord_of(records: Iterable[bytes]) -> bytes:
    """The records in TFRecord's framing."""
    parts = []
    for record in records:
        length = struct.pack("<Q", len(record))
        parts += [length, _masked_crc(length), record, _masked_crc(record)]
    return b"".join(parts)


def _field(number: int, data: bytes) -> bytes:
    return bytes([number << 3 | 2]) + varint(len(data)) + data


def varint(value: int) -> bytes:
    """A number as protocol buffers encode it."""
    parts = bytearray()
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])


def _masked_crc(data: bytes) -> bytes:
    import google_crc32c

    crc = google_crc32c.value(data)
    return struct.pack("<L", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)

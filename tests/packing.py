"""Folders as archives of every kind, for the tests of sources."""

import io
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path


def files_below(folder: Path) -> dict[str, bytes]:
    """The files below a folder, by their path with `/`, in order of their names."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def tar_of(files: Mapping[str, bytes], *, tar_format: int = tarfile.PAX_FORMAT, gzip: bool = False) -> bytes:
    """A tar of files."""
    buffer = io.BytesIO()
    # The file name would stand in the gzip header; without it equal content gives equal bytes.
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
    """Packs a folder into an archive whose name says its kind, and returns the archive."""
    files = files_below(folder)
    if archive.name.endswith(".zip"):
        data = zip_of(files)
    else:
        data = tar_of(files, gzip=archive.name.endswith((".gz", ".tgz")))
    archive.parent.mkdir(parents=True, exist_ok=True)
    archive.write_bytes(data)
    return archive

"""Listing an archive's pictures: what its walk gives, held against what a picture may be."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pipeline.core.decode import has_picture_ending
from pipeline.core.records import FileRef, Packing
from pipeline.sources.archives.members import Fault, Member
from pipeline.sources.archives.parallel import walk_stored_tar
from pipeline.sources.archives.spool import Spool
from pipeline.sources.archives.streams import GunzippedBytes, StoredBytes
from pipeline.sources.archives.tar import BLOCK_BYTES, walk_tar
from pipeline.sources.archives.zip import walk_zip
from pipeline.storage import storage

ARCHIVE_ENDINGS = (".tar", ".tar.gz", ".tgz", ".zip")
LARGEST_MEMBER_BYTES = 1 << 30
"""A member of more bytes is refused: it would have to be held in memory whole."""
MAX_NAME_BYTES = 4_096
"""A member with a longer name is refused: no file system takes it, and names are kept in memory by the thousand."""
BOMB_BYTES, BOMB_RATIO = 64 << 20, 100
"""A member that unpacks to more than the first and to more than the second times its packed size is refused."""

_PIECE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Entry:
    """A picture of an archive.

    Args:
        name: its path inside the archive.
        file: where its bytes lie.
        truth: its mask, where the archive holds that in the same record.
    """

    name: str
    file: FileRef
    truth: FileRef | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """A picture that can't be had, or a fault of the archive itself.

    Args:
        name: the picture's path inside the archive, "" for the archive.
        error_type: a short stable name of the fault.
        message: one sentence for a person.
    """

    name: str
    error_type: str
    message: str


@dataclass(frozen=True, slots=True)
class NoPictures:
    """Members that are no pictures by their names.

    Args:
        members: how many.
    """

    members: int


def list_archive(uri: str, spool_root: str | None) -> Iterator[Entry | Refused | NoPictures]:
    """Lists an archive in one pass over its headers; the content decides its format.

    Args:
        uri: absolute path or URI of a tar, compressed or not, or zip.
        spool_root: where the pictures of a compressed tar are laid down; None to list their names alone.

    Yields:
        Its pictures, what is wrong with it, and at the end how many members are no pictures.

    Raises:
        OSError: the archive can't be read.
        StorageError: the spool can't be written.
    """
    archive = storage.stat_file(uri)
    start = storage.read_range(uri, 0, BLOCK_BYTES)
    if start.startswith(b"\x1f\x8b"):
        return _list_compressed_tar(archive, spool_root)
    # A zip may stand behind a program that unpacks it.
    if start.startswith(b"PK") or (uri.lower().endswith(".zip") and start[257:262] != b"ustar"):
        members = walk_zip(StoredBytes(uri, archive.size_bytes), archive.size_bytes)
    else:
        members = walk_stored_tar(uri, archive.size_bytes)

    def by_range(member: Member, name: str) -> FileRef | None:
        if member.offset_bytes + member.packed_bytes > archive.size_bytes:
            return None
        return _reference(archive, member, name, member.packing)

    return _list(members, by_range)


def _list_compressed_tar(archive: storage.StoredFile, spool_root: str | None) -> Iterator[Entry | Refused | NoPictures]:
    stream = GunzippedBytes(archive.uri)
    spool = Spool(spool_root, (archive.uri, archive.size_bytes, archive.version))

    def told() -> Iterator[Member | Fault]:
        for member in walk_tar(stream):
            if isinstance(member, Fault) and stream.fault:
                error_type = "Truncated" if "cut off" in stream.fault else member.error_type
                yield Fault(error_type, f"{stream.fault}; {member.message}")
            else:
                yield member

    def lay_down(member: Member, name: str) -> FileRef | Refused | None:
        data = _unpacked(stream, member)
        if data is None:
            return _bomb(name, member.size_bytes)
        if len(data) < member.size_bytes:
            return None
        return _reference(archive, member, name, spool.add([data]))

    yield from _list(told(), lay_down)
    spool.finish()


def _list(
    members: Iterator[Member | Fault], take: Callable[[Member, str], FileRef | Refused | None]
) -> Iterator[Entry | Refused | NoPictures]:
    """Holds members against what a picture may be.

    Args:
        members: a walk's.
        take: says where a picture's bytes lie, or why they can't be had; None where the archive ends before they do,
            for the walk finds the same end and says it once, for the archive.
    """
    others = 0
    for member in members:
        if isinstance(member, Fault):
            yield Refused("", member.error_type, member.message)
            continue
        name = _clean(member.name)
        if not has_picture_ending(name):
            others += 1
            continue
        taken = _refusal(member, name) or take(member, name)
        if isinstance(taken, Refused):
            yield taken
        elif taken is not None:
            yield Entry(name, taken)
    yield NoPictures(others)


def _unpacked(stream: GunzippedBytes, member: Member) -> bytes | None:
    """A member's data, as far as there is any; None for a bomb."""
    packed_before = stream.packed_bytes
    pieces: list[bytes] = []
    taken = 0
    while taken < member.size_bytes:
        piece = stream.read_at(member.offset_bytes + taken, min(_PIECE_BYTES, member.size_bytes - taken))
        if not piece:
            break
        pieces.append(piece)
        taken += len(piece)
        if taken >= BOMB_BYTES and taken > BOMB_RATIO * max(1, stream.packed_bytes - packed_before):
            return None
    return b"".join(pieces)


def _refusal(member: Member, name: str) -> Refused | None:
    name_bytes = len(name.encode("utf-8", "surrogateescape"))
    if name_bytes > MAX_NAME_BYTES:
        return Refused(
            f"{name[:80]}…", "UnsafeName", f"the name has {name_bytes:,} bytes, more than {MAX_NAME_BYTES:,}"
        )
    if member.odd_kind:
        return Refused(name, "NotAFile", f"the archive's member is {member.odd_kind}")
    if not member.size_bytes:
        return Refused(name, "Empty", "the archive's member is empty")
    if member.size_bytes > LARGEST_MEMBER_BYTES:
        return Refused(
            name,
            "TooLarge",
            f"the archive's member unpacks to {member.size_bytes:,} bytes, more than {LARGEST_MEMBER_BYTES:,}",
        )
    if member.size_bytes > BOMB_BYTES and member.size_bytes > BOMB_RATIO * member.packed_bytes:
        return _bomb(name, member.size_bytes)
    return None


def _bomb(name: str, size_bytes: int) -> Refused:
    return Refused(
        name, "TooLarge", f"the archive's member unpacks to {size_bytes:,} bytes, more than {BOMB_RATIO} times its size"
    )


def _reference(archive: storage.StoredFile, member: Member, name: str, packing: Packing | None) -> FileRef:
    return FileRef(archive.uri, member.size_bytes, archive.version, member.offset_bytes, name, packing)


def _clean(name: str) -> str:
    """The name without the `./` that `tar` writes where it was told to pack the current folder."""
    while name.startswith("./"):
        name = name[2:].lstrip("/")
    return name

"""Listing an archive's pictures: the members that its walk yields, without those that can be no picture."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pipeline.core.decode import has_picture_ending
from pipeline.core.errors import ErrorType
from pipeline.core.records import FileRef
from pipeline.sources.archives.members import Fault, Member
from pipeline.sources.archives.parallel import walk_stored_tar
from pipeline.sources.archives.streams import GZIP_MARK, StoredBytes
from pipeline.sources.archives.tar import BLOCK_BYTES, walk_tar
from pipeline.sources.archives.unpacking import MAX_MEMBER_BYTES, TooLargeError, Unpacker, check_size
from pipeline.sources.archives.zip import walk_zip
from pipeline.sources.ignored import Ignored, IgnoredFiles
from pipeline.storage import filesystem

ARCHIVE_ENDINGS = (".tar", ".tar.gz", ".tgz", ".zip")
MAX_NAME_BYTES = 4_096
"""A member with a longer name is refused: no file system takes it, and names are kept in memory by the thousand."""


@dataclass(frozen=True, slots=True)
class Refused:
    """A picture that can't be had, or a fault of the archive itself.

    Args:
        name: the picture's path inside the archive, "" for the archive.
        error_type: what is wrong.
        message: one sentence for a person.
    """

    name: str
    error_type: ErrorType
    message: str


@dataclass(frozen=True, slots=True)
class Entry:
    """A picture of an archive.

    Args:
        name: its path inside the archive.
        file: where its bytes are.
        truth: its mask, where the archive holds that in the same record, or why that can't be had.
    """

    name: str
    file: FileRef
    truth: FileRef | Refused | None = None


def list_archive(
    uri: str, spool_root: str | None, max_bytes: int = MAX_MEMBER_BYTES
) -> Iterator[Entry | Refused | Ignored]:
    """Lists an archive in one pass over its headers; the content decides its format.

    Args:
        uri: absolute path or URI of a tar, compressed or not, or zip.
        spool_root: where the pictures of a compressed tar are copied; None to list their names alone.
        max_bytes: longer pictures of a compressed tar are not copied.

    Yields:
        Its pictures, what is wrong with it, and at the end how many members are no pictures.

    Raises:
        OSError: the archive can't be read.
        StorageError: the spool can't be written.
    """
    archive = filesystem.stat_file(uri)
    start = filesystem.read_range(uri, 0, BLOCK_BYTES)
    if start.startswith(GZIP_MARK):
        return _list_compressed_tar(Unpacker(archive, spool_root, max_bytes))
    # A zip may follow a program that unpacks it.
    if start.startswith(b"PK") or (uri.lower().endswith(".zip") and start[257:262] != b"ustar"):
        members = walk_zip(StoredBytes(uri, archive.size_bytes), archive.size_bytes)
    else:
        members = walk_stored_tar(uri, archive.size_bytes)

    def by_range(member: Member, name: str) -> FileRef | None:
        if member.offset_bytes + member.packed_bytes > archive.size_bytes:
            return None
        return FileRef(uri, member.size_bytes, archive.version, member.offset_bytes, name, member.packing)

    return _list(members, by_range)


def _list_compressed_tar(unpacker: Unpacker) -> Iterator[Entry | Refused | Ignored]:
    def copied(member: Member, name: str) -> FileRef | None:
        try:
            return unpacker.copy(unpacker.stream, member.offset_bytes, member.size_bytes, name)
        except EOFError:
            return None

    yield from _list(unpacker.explained(walk_tar(unpacker.stream)), copied)
    unpacker.finish()


def _list(
    members: Iterator[Member | Fault], take: Callable[[Member, str], FileRef | None]
) -> Iterator[Entry | Refused | Ignored]:
    """Lists the members that can be pictures, and refuses or counts the others.

    Args:
        members: a walk's.
        take: returns a picture's place; None where the archive ends before its end, for the walk finds the same end
            and reports it once, for the archive. Raises TooLargeError.
    """
    others = IgnoredFiles()
    for member in members:
        if isinstance(member, Fault):
            yield Refused("", member.error_type, member.message)
            continue
        name = _clean(member.name)
        if not has_picture_ending(name):
            others.add(name)
            continue
        taken: FileRef | Refused | None
        try:
            taken = _check(member, name) or take(member, name)
        except TooLargeError as error:
            taken = Refused(name, ErrorType.TOO_LARGE, f"the archive's member is too large: {error}")
        if isinstance(taken, Refused):
            yield taken
        elif taken is not None:
            yield Entry(name, taken)
    yield others.total()


def _check(member: Member, name: str) -> Refused | None:
    """Refuses a member by what its header claims."""
    name_bytes = len(name.encode("utf-8", "surrogateescape"))
    if name_bytes > MAX_NAME_BYTES:
        message = f"the name has {name_bytes:,} bytes, more than {MAX_NAME_BYTES:,}"
        return Refused(f"{name[:80]}…", ErrorType.UNSAFE_NAME, message)
    if member.odd_kind:
        return Refused(name, ErrorType.NOT_A_FILE, f"the archive's member is {member.odd_kind}")
    if not member.size_bytes:
        return Refused(name, ErrorType.EMPTY, "the archive's member is empty")
    check_size(member.size_bytes, member.packed_bytes)
    return None


def _clean(name: str) -> str:
    """The name without the `./` that `tar` writes when it packs the current folder."""
    while name.startswith("./"):
        name = name[2:].lstrip("/")
    return name

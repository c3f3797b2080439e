"""Lists the pictures of an archive: its members whose names are those of pictures."""

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
"""A member with a longer name is rejected: no file system accepts it, and thousands of names are kept in memory."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """A picture that can't be read, or a fault of the archive itself.

    Args:
        name: the picture's path inside the archive; "" for the archive.
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
        file: its reference.
        truth: its mask, if it is in the same record, or why that can't be read.
    """

    name: str
    file: FileRef
    truth: FileRef | Rejected | None = None


def list_archive(
    uri: str, spool_root: str | None, max_bytes: int = MAX_MEMBER_BYTES
) -> Iterator[Entry | Rejected | Ignored]:
    """Lists an archive in one pass over its headers; the format is detected from the content.

    Args:
        uri: absolute path or URI of a tar file, compressed or not, or a zip file.
        spool_root: folder for copies of the pictures of a compressed tar file; None to list names only.
        max_bytes: larger pictures of a compressed tar file are not copied.

    Yields:
        Its pictures, its faults, and last the counts of other members.

    Raises:
        OSError: the archive can't be read.
        StorageError: the spool can't be written.
    """
    archive = filesystem.stat_file(uri)
    start = filesystem.read_range(uri, 0, BLOCK_BYTES)
    if start.startswith(GZIP_MARK):
        return _list_compressed_tar(Unpacker(archive, spool_root, max_bytes))
    # A self-extracting zip file starts with a program.
    if start.startswith(b"PK") or (uri.lower().endswith(".zip") and start[257:262] != b"ustar"):
        members = walk_zip(StoredBytes(uri, archive.size_bytes), archive.size_bytes)
    else:
        members = walk_stored_tar(uri, archive.size_bytes)

    def by_range(member: Member, name: str) -> FileRef | None:
        if member.offset_bytes + member.packed_bytes > archive.size_bytes:
            return None
        return FileRef(uri, member.size_bytes, archive.version, member.offset_bytes, name, member.packing)

    return _list(members, by_range)


def _list_compressed_tar(unpacker: Unpacker) -> Iterator[Entry | Rejected | Ignored]:
    def copied(member: Member, name: str) -> FileRef | None:
        try:
            return unpacker.copy(unpacker.stream, member.offset_bytes, member.size_bytes, name)
        except EOFError:
            return None

    yield from _list(unpacker.with_stream_faults(walk_tar(unpacker.stream)), copied)
    unpacker.finish()


def _list(
    members: Iterator[Member | Fault], locate: Callable[[Member, str], FileRef | None]
) -> Iterator[Entry | Rejected | Ignored]:
    """Lists the members that can be pictures, and rejects or counts the others.

    Args:
        members: from a walk.
        locate: returns the reference of a picture; None if the archive is truncated within it, which the walk reports
            once. May raise TooLargeError.
    """
    others = IgnoredFiles()
    for member in members:
        if isinstance(member, Fault):
            yield Rejected("", member.error_type, member.message)
            continue
        name = _clean(member.name)
        if not has_picture_ending(name):
            others.add(name)
            continue
        located: FileRef | Rejected | None
        try:
            located = _check(member, name) or locate(member, name)
        except TooLargeError as error:
            located = Rejected(name, ErrorType.TOO_LARGE, f"the archive's member is too large: {error}")
        if isinstance(located, Rejected):
            yield located
        elif located is not None:
            yield Entry(name, located)
    yield others.total()


def _check(member: Member, name: str) -> Rejected | None:
    """Rejects a member because of its header."""
    name_bytes = len(name.encode("utf-8", "surrogateescape"))
    if name_bytes > MAX_NAME_BYTES:
        message = f"the name has {name_bytes:,} bytes, more than {MAX_NAME_BYTES:,}"
        return Rejected(f"{name[:80]}…", ErrorType.UNSAFE_NAME, message)
    if member.not_plain:
        return Rejected(name, ErrorType.NOT_A_FILE, f"the archive's member is {member.not_plain}")
    if not member.size_bytes:
        return Rejected(name, ErrorType.EMPTY, "the archive's member is empty")
    check_size(member.size_bytes, member.packed_bytes)
    return None


def _clean(name: str) -> str:
    """The name without the prefix `./` that `tar` writes when it packs the current folder."""
    while name.startswith("./"):
        name = name[2:].lstrip("/")
    return name

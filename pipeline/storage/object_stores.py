"""Objects in Google Cloud Storage, S3, Azure and behind https://, by obstore; its errors become `OSError`.

obstore itself repeats requests that fail with 5xx, 408 or 429, lost connections and answers that break off, and an
object appears whole or not at all. Its stores are made once a process and shared by all threads.
"""

import errno
import mimetypes
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

import obstore
from obstore import exceptions
from obstore.store import GCSStore, HTTPStore

from pipeline.storage.retries import with_retries
from pipeline.storage.store_errors import (
    NOT_FOUND,
    http_status,
    is_behind_end,
    is_transient,
    is_wrong_region,
    os_error,
)
from pipeline.storage.store_pool import WEB_SCHEMES, Store, learn_region, parts_of, store_of
from pipeline.storage.stored_file import StoredFile

if TYPE_CHECKING:
    from obstore import GetOptions, ObjectMeta, PutMode

READ_ONLY = "https:// is for reading only"
NOT_LISTED = "folders can't be listed over https; name the files in a manifest, or pack them in an archive"
_T = TypeVar("_T")
_LIST_CHUNK = 1_000


def read(uri: str, max_bytes: int | None = None) -> bytes:
    """Reads an object, at most so many bytes of it.

    Raises:
        OSError: it can't be read.
    """

    def act(store: Store, key: str) -> bytes:
        result = obstore.get(store, key)
        size = int(result.meta["size"])
        if max_bytes is None or size <= max_bytes:
            return _checked(uri, result.bytes().to_bytes(), size)
        parts, missing = [], max_bytes
        for part in result.stream(min_chunk_size=min(max_bytes, 1 << 20)):
            parts.append(bytes(part)[:missing])
            missing -= len(parts[-1])
            if not missing:
                break
        return _checked(uri, b"".join(parts), max_bytes)

    return _with_store(uri, act)


def read_range(uri: str, offset: int, length: int) -> bytes:
    """Reads `length` bytes of an object from `offset` on; fewer where it ends.

    Raises:
        OSError: it can't be read, or the server reads no ranges.
    """

    def act(store: Store, key: str) -> bytes:
        options: GetOptions = {"range": (offset, offset + length)}
        try:
            result = obstore.get(store, key, options=options)
        except exceptions.BaseError as error:
            if is_behind_end(error):
                return b""
            raise
        wanted = min(length, int(result.meta["size"]) - offset)
        return _checked(uri, result.bytes().to_bytes(), wanted)

    return _with_store(uri, act) if length else b""


def _checked(uri: str, data: bytes, wanted: int) -> bytes:
    """Refuses an answer of fewer or more bytes than the store announced."""
    if len(data) != wanted:
        raise ConnectionError(f"{uri}: the answer has {len(data)} of {wanted} bytes")
    return data


def write(uri: str, data: bytes) -> None:
    """Makes or replaces an object by one request.

    Raises:
        OSError: it can't be written.
    """
    _with_store(uri, lambda store, key: _put(store, key, data, "overwrite"), writes=True)


def write_if(uri: str, data: bytes, version: str | None) -> bool:
    """Writes an object if it has this version, with None if there is none.

    Returns:
        Whether it was written.

    Raises:
        OSError: it can't be written.
    """

    def act(store: Store, key: str) -> bool:
        mode: PutMode = "create"
        if version is not None:
            mode = {"e_tag": version}
            if isinstance(store, GCSStore):
                # Google's condition is on the generation, which a listing doesn't show.
                found = obstore.head(store, key)
                if _version(found) != version:
                    return False
                mode = {"e_tag": version, "version": found["version"]}
        try:
            _put(store, key, data, mode)
        except (exceptions.AlreadyExistsError, exceptions.PreconditionError):
            return False
        return True

    try:
        return _with_store(uri, act, writes=True)
    except FileNotFoundError:
        if version is None:
            raise
        return False


def _put(store: Store, key: str, data: bytes, mode: "PutMode") -> None:
    # So that a browser shows the report and the masks.
    content_type = mimetypes.guess_type(key)[0] or "application/octet-stream"
    # In one request: the parts of an upload that is killed would remain, unseen and paid for.
    obstore.put(store, key, data, attributes={"Content-Type": content_type}, mode=mode, use_multipart=False)


def stat(uri: str) -> StoredFile:
    """Looks an object up.

    Raises:
        OSError: there is none.
    """

    def act(store: Store, key: str) -> StoredFile:
        try:
            return _stored(uri, obstore.head(store, key))
        except (exceptions.BaseError, FileNotFoundError) as error:
            if not isinstance(store, HTTPStore) or http_status(error) in (None, NOT_FOUND):
                raise
            # A server may answer GET alone; its body is not read.
            return _stored(uri, obstore.get(store, key).meta)

    return _with_store(uri, act)


def list_objects(folder: str) -> Iterator[StoredFile]:
    """All objects below a prefix, in the order of their keys, without those that only mark a folder.

    Args:
        folder: the URI, without a closing slash.

    Raises:
        OSError: it can't be listed.
    """
    if folder.startswith(WEB_SCHEMES):
        raise OSError(errno.EOPNOTSUPP, NOT_LISTED)

    before: StoredFile | None = None
    for stored in _listed(folder):
        # obstore shows the empty object `a/` as `a`; what is below `a/` follows at once.
        if before and (before.size_bytes or not stored.uri.startswith(f"{before.uri}/")) and before.uri != folder:
            yield before
        before = stored
    if before and before.uri != folder:
        yield before


def _listed(folder: str) -> Iterator[StoredFile]:
    """All that obstore shows below a prefix; a listing that breaks off is begun again behind the last object."""
    scheme, bucket, _ = parts_of(folder)
    pages: Iterator[Sequence[ObjectMeta]] | None = None
    last: str | None = None

    def page(store: Store, key: str) -> "Sequence[ObjectMeta] | None":
        nonlocal pages
        if pages is None:
            pages = iter(obstore.list(store, key or None, offset=last, chunk_size=_LIST_CHUNK))
        try:
            return next(pages, None)
        except Exception:
            pages = None
            raise

    while found := _with_store(folder, page, listing=True):
        for meta in found:
            last = meta["path"]
            yield _stored(f"{scheme}://{bucket}/{last}", meta)


def delete(uri: str) -> None:
    """Deletes an object; none there may be a `FileNotFoundError`.

    Raises:
        OSError: it can't be deleted.
    """
    _with_store(uri, obstore.delete, writes=True)


def _stored(uri: str, meta: "ObjectMeta") -> StoredFile:
    modified_ns = int(meta["last_modified"].timestamp() * 1e3) * 1_000_000
    return StoredFile(uri, int(meta["size"]), _version(meta) or str(modified_ns), modified_ns)


def _version(meta: "ObjectMeta") -> str:
    """The entity tag in quotes, as most stores give it; Azure's listings leave them out."""
    tag = meta["e_tag"] or ""
    return tag if not tag or tag.endswith('"') else f'"{tag}"'


def _with_store(uri: str, act: Callable[[Store, str], _T], *, writes: bool = False, listing: bool = False) -> _T:
    """Does something with an object's store and key, again where that may help, and turns faults into `OSError`."""

    def attempt() -> _T:
        if not listing and uri.count("/") < 3 and not uri.startswith(WEB_SCHEMES):
            raise FileNotFoundError(errno.ENOENT, f"no object is named in {uri}")
        if writes and uri.startswith(WEB_SCHEMES):
            raise OSError(errno.EROFS, READ_ONLY)
        try:
            return act(*store_of(uri, writes))
        except exceptions.BaseError as error:
            if not is_wrong_region(error) or not learn_region(uri):
                raise
            return act(*store_of(uri, writes))

    try:
        return with_retries(attempt, is_transient)
    except Exception as error:
        raise os_error(error) from error

"""Objects in Google Cloud Storage, S3, Azure and on web servers, by obstore; its errors are raised as `OSError`.

obstore retries requests that fail with 5xx, 408 or 429, lost connections and truncated responses, and writes objects
atomically. Each process creates its stores once and shares them among threads.
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
    is_past_end,
    is_transient,
    is_wrong_region,
    os_error,
)
from pipeline.storage.store_pool import WEB_SCHEMES, Store, learn_region, parts_of, store_of
from pipeline.storage.stored_file import StoredFile

if TYPE_CHECKING:
    from obstore import GetOptions, ObjectMeta, PutMode

READ_ONLY = "https:// is read-only"
NOT_LISTED = "folders can't be listed over https; name the files in a manifest, or pack them in an archive"
_T = TypeVar("_T")
_LIST_CHUNK = 1_000


def read(uri: str, max_bytes: int | None = None) -> bytes:
    """Reads an object, or its first `max_bytes` bytes.

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
    """Reads `length` bytes of an object from `offset`; fewer at its end.

    Raises:
        OSError: it can't be read, or the server does not support range requests.
    """

    def act(store: Store, key: str) -> bytes:
        options: GetOptions = {"range": (offset, offset + length)}
        try:
            result = obstore.get(store, key, options=options)
        except exceptions.BaseError as error:
            if is_past_end(error):
                return b""
            raise
        wanted = min(length, int(result.meta["size"]) - offset)
        return _checked(uri, result.bytes().to_bytes(), wanted)

    return _with_store(uri, act) if length else b""


def _checked(uri: str, data: bytes, wanted: int) -> bytes:
    """Checks that a response has the number of bytes that the store announced."""
    if len(data) != wanted:
        raise ConnectionError(f"{uri}: the response has {len(data)} of {wanted} bytes")
    return data


def write(uri: str, data: bytes) -> None:
    """Creates or replaces an object by one request.

    Raises:
        OSError: it can't be written.
    """
    _with_store(uri, lambda store, key: _put(store, key, data, "overwrite"), writes=True)


def write_if(uri: str, data: bytes, version: str | None) -> bool:
    """Writes an object if the existing one has this version; with None, if none exists.

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
                # Google's condition is on the generation, which a listing doesn't have.
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
    # With a content type, a browser displays the report and the masks.
    content_type = mimetypes.guess_type(key)[0] or "application/octet-stream"
    # In one request: the parts of an interrupted multipart upload would stay in the bucket, hidden and billed.
    obstore.put(store, key, data, attributes={"Content-Type": content_type}, mode=mode, use_multipart=False)


def stat(uri: str) -> StoredFile:
    """The properties of an object.

    Raises:
        OSError: it does not exist.
    """

    def act(store: Store, key: str) -> StoredFile:
        try:
            return _stored(uri, obstore.head(store, key))
        except (exceptions.BaseError, FileNotFoundError) as error:
            if not isinstance(store, HTTPStore) or http_status(error) in (None, NOT_FOUND):
                raise
            # Some servers support only GET; the body is not read.
            return _stored(uri, obstore.get(store, key).meta)

    return _with_store(uri, act)


def list_objects(folder: str) -> Iterator[StoredFile]:
    """Lists all objects below a prefix in order of their keys, without empty objects that mark folders.

    Args:
        folder: the URI, without a trailing slash.

    Raises:
        OSError: it can't be listed.
    """
    if folder.startswith(WEB_SCHEMES):
        raise OSError(errno.EOPNOTSUPP, NOT_LISTED)

    before: StoredFile | None = None
    for stored in _listed(folder):
        # obstore lists the empty object `a/` as `a`; the objects below `a/` follow directly.
        if before and (before.size_bytes or not stored.uri.startswith(f"{before.uri}/")) and before.uri != folder:
            yield before
        before = stored
    if before and before.uri != folder:
        yield before


def _listed(folder: str) -> Iterator[StoredFile]:
    """All objects that obstore lists below a prefix; an interrupted listing is restarted after the last object."""
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
    """Deletes an object; a missing one may raise `FileNotFoundError`.

    Raises:
        OSError: it can't be deleted.
    """
    _with_store(uri, obstore.delete, writes=True)


def _stored(uri: str, meta: "ObjectMeta") -> StoredFile:
    modified_ns = int(meta["last_modified"].timestamp() * 1e3) * 1_000_000
    return StoredFile(uri, int(meta["size"]), _version(meta) or str(modified_ns), modified_ns)


def _version(meta: "ObjectMeta") -> str:
    """The entity tag in quotes, as most stores return it; Azure's listings omit the quotes."""
    tag = meta["e_tag"] or ""
    return tag if not tag or tag.endswith('"') else f'"{tag}"'


def _with_store(uri: str, act: Callable[[Store, str], _T], *, writes: bool = False, listing: bool = False) -> _T:
    """Calls a function with an object's store and key; retries transient errors and raises others as `OSError`."""

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

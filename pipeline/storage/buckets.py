"""Whole objects in and out of a bucket, one request each, with the clients that Beam's file systems use.

Beam's own `open` and `create` make a new client a file and take three requests to write one; and a writer that fails
half-way is closed, which may complete the object. One request either makes the object or doesn't.
"""

import mimetypes
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from pipeline.storage.retries import http_status

# HTTP's "Range Not Satisfiable": the object ends before the range begins.
_NOTHING_THERE = 416
_NOT_FOUND = 404
# S3 answers 409 to a conditional write while another write of the same object is under way, and asks to try again.
_CONFLICT = 409
_PRECONDITION_FAILED = 412


@dataclass(frozen=True, slots=True)
class StoredFile:
    """One listed file.

    Args:
        uri: absolute path or URI.
        size_bytes: its length.
        version: changes when the content changes: modification time in ns, generation, or entity tag.
        modified_ns: when the store last saw it written, by the store's own clock; 0 where it doesn't tell.
    """

    uri: str
    size_bytes: int
    version: str
    modified_ns: int = 0


class Bucket(Protocol):
    """What can be done with objects; shared by all threads of a process."""

    def read(self, uri: str, offset: int, length: int) -> bytes:
        """Reads `length` bytes of an object from `offset` on, -1 for all the rest; fewer where it ends."""
        ...

    def write(self, uri: str, data: bytes) -> None:
        """Makes or replaces an object."""
        ...

    def write_if(self, uri: str, data: bytes, version: str | None) -> bool:
        """Writes an object if it has this version, with None if there is none; returns whether it was written."""
        ...

    def stat(self, uri: str) -> StoredFile | None:
        """Looks an object up; None where there is none."""
        ...

    def list(self, prefix: str) -> Iterator[StoredFile]:
        """Lists the objects whose URIs begin so, in the order of their keys."""
        ...

    def delete(self, uri: str) -> None:
        """Deletes an object; none there may be a fault of status 404."""
        ...


class S3Bucket:
    """Amazon's S3 and all that speak like it.

    Args:
        client: a boto3 client of the service `s3`.
    """

    def __init__(self, client: Any) -> None:
        self._client = client

    def read(self, uri: str, offset: int, length: int) -> bytes:
        """As `Bucket.read`."""
        name, key = bucket_and_key(uri)
        end = offset + length - 1 if length > 0 else ""
        wanted = {"Range": f"bytes={offset}-{end}"} if offset or length > 0 else {}
        try:
            response = self._client.get_object(Bucket=name, Key=key, **wanted)
        except self._client.exceptions.ClientError as error:
            if http_status(error) == _NOTHING_THERE:
                return b""
            raise
        body, promised = response["Body"], int(response["ContentLength"])
        try:
            data = bytes(body.read())
        finally:
            body.close()
        if len(data) < promised:
            raise ConnectionError(f"{uri}: the connection ended after {len(data)} of {promised} bytes")
        return data

    def write(self, uri: str, data: bytes) -> None:
        """As `Bucket.write`."""
        name, key = bucket_and_key(uri)
        self._client.put_object(Bucket=name, Key=key, Body=data, ContentType=_content_type(key))

    def write_if(self, uri: str, data: bytes, version: str | None) -> bool:
        """As `Bucket.write_if`."""
        name, key = bucket_and_key(uri)
        condition = {"IfNoneMatch": "*"} if version is None else {"IfMatch": version}
        try:
            self._client.put_object(Bucket=name, Key=key, Body=data, ContentType=_content_type(key), **condition)
        except self._client.exceptions.ClientError as error:
            status = http_status(error)
            if status == _CONFLICT:
                raise ConnectionError(f"{uri}: another write of it is under way") from None
            if status == _PRECONDITION_FAILED or (status == _NOT_FOUND and version is not None):
                return False
            raise
        return True

    def stat(self, uri: str) -> StoredFile | None:
        """As `Bucket.stat`."""
        name, key = _bucket_and_prefix(uri)
        if not key:
            return None
        try:
            found = self._client.head_object(Bucket=name, Key=key)
        except self._client.exceptions.ClientError as error:
            if http_status(error) == _NOT_FOUND:
                return None
            raise
        return StoredFile(uri, int(found["ContentLength"]), str(found["ETag"]), _ns(found["LastModified"]))

    def list(self, prefix: str) -> Iterator[StoredFile]:
        """As `Bucket.list`."""
        name, key = _bucket_and_prefix(prefix)
        for page in self._client.get_paginator("list_objects_v2").paginate(Bucket=name, Prefix=key):
            for found in page.get("Contents", ()):
                uri = f"s3://{name}/{found['Key']}"
                yield StoredFile(uri, int(found["Size"]), str(found["ETag"]), _ns(found["LastModified"]))

    def delete(self, uri: str) -> None:
        """As `Bucket.delete`."""
        name, key = bucket_and_key(uri)
        self._client.delete_object(Bucket=name, Key=key)


class GcsBucket:
    """Google Cloud Storage.

    Args:
        client: a `google.cloud.storage.Client`.
    """

    def __init__(self, client: Any) -> None:
        self._client = client

    def read(self, uri: str, offset: int, length: int) -> bytes:
        """As `Bucket.read`."""
        name, key = bucket_and_key(uri)
        blob = self._client.bucket(name).blob(key)
        if not offset and length < 0:
            return bytes(blob.download_as_bytes(raw_download=True))
        try:
            # As stored: of an object that the store would unpack on the way, a range means something else.
            end = offset + length - 1 if length > 0 else None
            return bytes(blob.download_as_bytes(start=offset, end=end, raw_download=True))
        except Exception as error:
            if http_status(error) == _NOTHING_THERE:
                return b""
            raise

    def write(self, uri: str, data: bytes) -> None:
        """As `Bucket.write`."""
        name, key = bucket_and_key(uri)
        self._client.bucket(name).blob(key).upload_from_string(data, content_type=_content_type(key))

    def write_if(self, uri: str, data: bytes, version: str | None) -> bool:
        """As `Bucket.write_if`."""
        name, key = bucket_and_key(uri)
        blob = self._client.bucket(name).blob(key)
        generation = 0 if version is None else int(version)
        try:
            blob.upload_from_string(data, content_type=_content_type(key), if_generation_match=generation)
        except Exception as error:
            if http_status(error) == _PRECONDITION_FAILED:
                return False
            raise
        return True

    def stat(self, uri: str) -> StoredFile | None:
        """As `Bucket.stat`."""
        name, key = _bucket_and_prefix(uri)
        blob = self._client.bucket(name).get_blob(key) if key else None
        return None if blob is None else _google_file(name, blob)

    def list(self, prefix: str) -> Iterator[StoredFile]:
        """As `Bucket.list`."""
        name, key = _bucket_and_prefix(prefix)
        for blob in self._client.list_blobs(name, prefix=key):
            yield _google_file(name, blob)

    def delete(self, uri: str) -> None:
        """As `Bucket.delete`."""
        name, key = bucket_and_key(uri)
        self._client.bucket(name).blob(key).delete()


def _google_file(bucket: str, blob: Any) -> StoredFile:
    version = str(blob.generation or blob.etag or "")
    return StoredFile(f"gs://{bucket}/{blob.name}", int(blob.size or 0), version, _ns(blob.updated))


def _ns(moment: datetime | None) -> int:
    return 0 if moment is None else int(moment.timestamp() * 1e6) * 1_000


def _content_type(key: str) -> str:
    """So that a browser shows the report and the masks where they lie."""
    return mimetypes.guess_type(key)[0] or "application/octet-stream"


def _bucket_and_prefix(uri: str) -> tuple[str, str]:
    """Splits `s3://bucket/a/` into `bucket` and `a/`; the prefix may be empty."""
    name, _, prefix = uri.partition("://")[2].partition("/")
    return name, prefix


def bucket_and_key(uri: str) -> tuple[str, str]:
    """Splits `s3://bucket/a/b` into `bucket` and `a/b`.

    Raises:
        ValueError: there is no bucket or no key.
    """
    name, slash, key = uri.partition("://")[2].partition("/")
    if not name or not slash or not key:
        raise ValueError(f"not an object in a bucket: {uri}")
    return name, key

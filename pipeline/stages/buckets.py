"""Whole objects in and out of a bucket, one request each, with the clients that Beam's file systems use.

Beam's own `open` and `create` make a new client a file and take three requests to write one; and a writer that fails
half-way is closed, which may complete the object. One request either makes the object or doesn't.
"""

from typing import Any, Protocol

from pipeline.stages.retry import http_status

# HTTP's "Range Not Satisfiable": the object ends before the range begins.
_NOTHING_THERE = 416


class Bucket(Protocol):
    """What can be done with whole objects; shared by all threads of a process."""

    def read(self, uri: str, offset: int, length: int) -> bytes:
        """Reads `length` bytes of an object from `offset` on, -1 for all the rest; fewer where it ends."""
        ...

    def write(self, uri: str, data: bytes) -> None:
        """Makes or replaces an object."""
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
        self._client.put_object(Bucket=name, Key=key, Body=data)


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
            return bytes(blob.download_as_bytes())
        try:
            return bytes(blob.download_as_bytes(start=offset, end=offset + length - 1 if length > 0 else None))
        except Exception as error:
            if http_status(error) == _NOTHING_THERE:
                return b""
            raise

    def write(self, uri: str, data: bytes) -> None:
        """As `Bucket.write`."""
        name, key = bucket_and_key(uri)
        self._client.bucket(name).blob(key).upload_from_string(data, content_type="application/octet-stream")


def bucket_and_key(uri: str) -> tuple[str, str]:
    """Splits `s3://bucket/a/b` into `bucket` and `a/b`.

    Raises:
        ValueError: there is no bucket or no key.
    """
    name, slash, key = uri.partition("://")[2].partition("/")
    if not name or not slash or not key:
        raise ValueError(f"not an object in a bucket: {uri}")
    return name, key

"""The clients of object stores that `stores.py` compares, each with the same calls; imported in a separate process.

`clients` is what maskbeam used before obstore: boto3 and google-cloud-storage, as Beam's file systems do.
"""

import os
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, Protocol

ACCOUNT, KEY = "acc", "c2VjcmV0LWtleQ=="
PATIENCE_S = 20.0


class Client(Protocol):
    """What maskbeam asks of a client; `path` is `bucket/key`."""

    def read_range(self, path: str, start: int, length: int) -> bytes:
        """A part of an object."""
        ...

    def file(self, path: str) -> Any:
        """The library's own file object."""
        ...

    def names(self, folder: str) -> Iterator[str]:
        """The paths of all objects below."""
        ...


class Obstore:
    """obstore, as maskbeam uses it."""

    def __init__(self, scheme: str, url: str) -> None:
        import obstore
        from obstore.store import AzureStore, GCSStore, HTTPStore, S3Store

        self._library = obstore
        shared: Any = {
            "client_options": {"allow_http": True, "timeout": timedelta(seconds=PATIENCE_S)},
            "retry_config": {"retry_timeout": timedelta(seconds=PATIENCE_S)},
        }
        made: dict[str, Callable[[], Any]] = {
            "s3": lambda: S3Store("bucket", endpoint=url, access_key_id="i", secret_access_key="s", **shared),
            "gs": lambda: GCSStore("bucket", base_url=url, skip_signature=True, **shared),
            "az": lambda: AzureStore(
                "bucket", account_name=ACCOUNT, account_key=KEY, endpoint=f"{url}/{ACCOUNT}", **shared
            ),
            "https": lambda: HTTPStore.from_url(f"{url}/bucket", **shared),
        }
        self.store = made[scheme]()

    def read_range(self, path: str, start: int, length: int) -> bytes:
        """See `Client.read_range`."""
        key = path.partition("/")[2]
        return self._library.get_range(self.store, key, start=start, length=length).to_bytes()

    def file(self, path: str) -> Any:
        """See `Client.file`."""
        return self._library.open_reader(self.store, path.partition("/")[2])

    def names(self, folder: str) -> Iterator[str]:
        """See `Client.names`."""
        for page in self._library.list(self.store, folder.partition("/")[2], chunk_size=1_000):
            for found in page:
                yield found["path"]


class Fsspec:
    """fsspec with s3fs, gcsfs, adlfs and its own HTTP client."""

    def __init__(self, scheme: str, url: str) -> None:
        # Without it gcsfs asks for each bucket's kind by gRPC and waits a minute for an emulator's answer.
        os.environ["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] = "false"
        import fsspec

        connection = (
            f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={KEY};BlobEndpoint={url}/{ACCOUNT};"
        )
        options: dict[str, Any] = {
            "s3": {"endpoint_url": url, "key": "i", "secret": "s"},
            "gs": {"endpoint_url": url, "token": "anon"},
            "az": {"account_name": ACCOUNT, "connection_string": connection},
            "https": {},
        }[scheme]
        self._root = f"{url}/" if scheme == "https" else ""
        self.store = fsspec.filesystem(scheme, use_listings_cache=False, skip_instance_cache=True, **options)

    def read_range(self, path: str, start: int, length: int) -> bytes:
        """See `Client.read_range`."""
        return bytes(self.store.cat_file(self._root + path, start=start, end=start + length))

    def file(self, path: str) -> Any:
        """See `Client.file`."""
        return self.store.open(self._root + path)

    def names(self, folder: str) -> Iterator[str]:
        """See `Client.names`."""
        yield from self.store.find(folder, detail=True)


class Clients:
    """boto3 and google-cloud-storage."""

    def __init__(self, scheme: str, url: str) -> None:
        self._scheme = scheme
        if scheme == "s3":
            import boto3

            self.store: Any = boto3.client(
                "s3", endpoint_url=url, aws_access_key_id="i", aws_secret_access_key="s", region_name="us-east-1"
            )
        elif scheme == "gs":
            from google.cloud import storage

            os.environ["STORAGE_EMULATOR_HOST"] = url
            self.store = storage.Client.create_anonymous_client()
        else:
            raise ImportError(f"nothing for {scheme}://")

    def read_range(self, path: str, start: int, length: int) -> bytes:
        """See `Client.read_range`."""
        bucket, _, key = path.partition("/")
        if self._scheme == "gs":
            blob = self.store.bucket(bucket).blob(key)
            return bytes(blob.download_as_bytes(start=start, end=start + length - 1, raw_download=True))
        answer = self.store.get_object(Bucket=bucket, Key=key, Range=f"bytes={start}-{start + length - 1}")
        return bytes(answer["Body"].read())

    def file(self, path: str) -> Any:
        """See `Client.file`; boto3 has none."""
        bucket, _, key = path.partition("/")
        return self.store.bucket(bucket).blob(key).open("rb")

    def names(self, folder: str) -> Iterator[str]:
        """See `Client.names`."""
        bucket, _, key = folder.partition("/")
        if self._scheme == "gs":
            for blob in self.store.list_blobs(bucket, prefix=f"{key}/"):
                yield blob.name
            return
        for page in self.store.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=f"{key}/"):
            for found in page.get("Contents", ()):
                yield found["Key"]


CLIENTS: dict[str, Callable[[str, str], Client]] = {"clients": Clients, "obstore": Obstore, "fsspec": Fsspec}

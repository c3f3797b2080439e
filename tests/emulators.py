"""Stores to test against over real HTTP, on loopback ports of this machine."""

import contextlib
import io
import json
import logging
import os
import re
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass, field
from unittest import mock

from pipeline.storage.buckets import S3Bucket

BUCKET = "pictures"


@dataclass
class Emulator:
    """A running store with one empty bucket.

    Args:
        root: the bucket's URI.
        options: Beam's options that lead to it.
        sent: (path, bytes) of every answer to a GET, in their order.
    """

    root: str
    options: list[str]
    sent: list[tuple[str, int]] = field(default_factory=list)

    def sent_bytes(self, name: str) -> int:
        """How many bytes of the objects whose path holds `name` were sent."""
        return sum(size for path, size in self.sent if name in path)


@contextlib.contextmanager
def google() -> Iterator[Emulator]:
    """Google Cloud Storage as `gcp-storage-emulator` gives it."""
    from gcp_storage_emulator import server

    logging.getLogger("gcp_storage_emulator").setLevel(logging.CRITICAL)
    emulator = Emulator(f"gs://{BUCKET}", ["--no_auth"])
    running = server.create_server("127.0.0.1", 0, in_memory=True, default_bucket=BUCKET)
    handled = server.RequestHandler.do_GET

    def do_get(request: server.RequestHandler) -> None:
        before = request.wfile
        request.wfile = _Counting(before)  # type: ignore[assignment]
        handled(request)
        emulator.sent.append((request.path, request.wfile.written))  # type: ignore[attr-defined]

    posted = server.RequestHandler.do_POST

    def do_post(request: server.RequestHandler) -> None:
        """Heeds `ifGenerationMatch`, which the emulator ignores."""
        query = urllib.parse.parse_qs(urllib.parse.urlparse(request.path).query)
        if "ifGenerationMatch" in query:
            body = request.rfile.read(int(request.headers["Content-Length"]))
            request.rfile = io.BytesIO(body)  # type: ignore[assignment]
            name = json.loads(re.search(rb'\{.*"name".*\}', body)[0])["name"]  # type: ignore[index]
            found = request.storage.objects.get(BUCKET, {}).get(name, {"generation": "0"})
            if [found["generation"]] != query["ifGenerationMatch"]:
                request.send_error(412)
                return
        posted(request)

    with (
        mock.patch.object(server.RequestHandler, "do_GET", do_get),
        mock.patch.object(server.RequestHandler, "do_POST", do_post),
    ):
        running.start()
        try:
            port = running._api._httpd.server_address[1]
            environment = {"STORAGE_EMULATOR_HOST": f"http://127.0.0.1:{port}", "NO_GCE_CHECK": "true"}
            with mock.patch.dict(os.environ, environment):
                yield emulator
        finally:
            running.stop()


class _Counting:
    """A file to write to that counts."""

    def __init__(self, file: object) -> None:
        self._file = file
        self.written = 0

    def write(self, data: bytes) -> int:
        self.written += len(data)
        return self._file.write(data)  # type: ignore[attr-defined, no-any-return]

    def __getattr__(self, name: str) -> object:
        return getattr(self._file, name)


@contextlib.contextmanager
def amazon() -> Iterator[Emulator]:
    """S3 as moto gives it."""
    import boto3
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        endpoint = f"http://{host}:{port}"
        environment = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
        emulator = Emulator(f"s3://{BUCKET}", ["--s3_endpoint_url", endpoint])
        read = S3Bucket.read

        def counted(bucket: S3Bucket, uri: str, offset: int, length: int) -> bytes:
            data = read(bucket, uri, offset, length)
            emulator.sent.append((uri, len(data)))
            return data

        with mock.patch.dict(os.environ, environment), mock.patch.object(S3Bucket, "read", counted):
            boto3.client("s3", endpoint_url=endpoint).create_bucket(Bucket=BUCKET)
            yield emulator
    finally:
        server.stop()


EMULATORS = {"gs": google, "s3": amazon}

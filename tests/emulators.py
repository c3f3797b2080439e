"""Stores to test against over real HTTP, on loopback ports of this machine."""

import base64
import contextlib
import email.utils
import hashlib
import hmac
import logging
import os
import re
import shutil
import subprocess
import tempfile
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

import pytest

from pipeline.storage import object_stores

BUCKET = "pictures"
_AZURITE = "3.35.0"
# The account of every Azurite, as its README gives it.
_ACCOUNT = "devstoreaccount1"
_ACCOUNT_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


@dataclass
class Emulator:
    """A running store with one empty bucket.

    Args:
        root: the bucket's URI.
        options: Beam's options to reach it.
        port: where it listens.
        through: the options to reach it through a proxy of this address.
        sent: (URI, bytes) of every object or range that was read, in their order.
    """

    root: str
    options: list[str]
    port: int
    through: Callable[[str], list[str]]
    sent: list[tuple[str, int]] = field(default_factory=list)

    def sent_bytes(self, name: str) -> int:
        """How many bytes of the objects whose path holds `name` were sent."""
        return sum(size for path, size in self.sent if name in path)


@contextlib.contextmanager
def google() -> Iterator[Emulator]:
    """Google Cloud Storage, emulated by `gcp-storage-emulator`, with the XML API."""
    from gcp_storage_emulator import server
    from gcs_xml import xml_api

    logging.getLogger("gcp_storage_emulator").setLevel(logging.CRITICAL)
    running = server.create_server("127.0.0.1", 0, in_memory=True, default_bucket=BUCKET)
    sent: list[tuple[str, int]] = []
    with xml_api(sent):
        running.start()
        try:
            port = running._api._httpd.server_address[1]

            def through(address: str) -> list[str]:
                os.environ["STORAGE_EMULATOR_HOST"] = address
                return ["--no_auth"]

            with mock.patch.dict(os.environ, {"NO_GCE_CHECK": "true"}):
                yield Emulator(f"gs://{BUCKET}", through(f"http://127.0.0.1:{port}"), port, through, sent)
        finally:
            running.stop()


@contextlib.contextmanager
def amazon() -> Iterator[Emulator]:
    """S3, emulated by moto."""
    import boto3
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        port = server.get_host_and_port()[1]
        address = f"http://127.0.0.1:{port}"
        # The emulator's objects live as long as the process.
        urllib.request.urlopen(f"{address}/moto-api/reset", b"").close()
        environment = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}

        def through(address: str) -> list[str]:
            return ["--s3_endpoint_url", address]

        emulator = Emulator(f"s3://{BUCKET}", through(address), port, through)
        with mock.patch.dict(os.environ, environment), _counted(emulator):
            boto3.client("s3", endpoint_url=address).create_bucket(Bucket=BUCKET)
            yield emulator
    finally:
        server.stop()


@contextlib.contextmanager
def azure() -> Iterator[Emulator]:
    """Azure Blob Storage, emulated by Azurite, which npm installs once on this machine."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("Azurite needs npm")
    folder = Path(tempfile.gettempdir()) / f"azurite-{_AZURITE}"
    program = folder / "node_modules/.bin/azurite-blob"
    if not program.exists():
        install = [npm, "install", "--silent", "--no-audit", "--no-fund", "--prefix", folder, f"azurite@{_AZURITE}"]
        done = subprocess.run(install, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"npm can't install Azurite: {done.stderr[-200:]}")
    settings = ["--blobPort", "0", "--inMemoryPersistence", "--skipApiVersionCheck", "--disableTelemetry"]
    server = subprocess.Popen([program, *settings], stdout=subprocess.PIPE, text=True, cwd=folder)
    try:
        assert server.stdout
        port = next(int(found[1]) for line in server.stdout if (found := re.search(r"listens on .*:(\d+)", line)))

        def through(address: str) -> list[str]:
            account = f"AccountName={_ACCOUNT};AccountKey={_ACCOUNT_KEY}"
            return ["--azure_connection_string", f"{account};BlobEndpoint={address}/{_ACCOUNT}"]

        address = f"http://127.0.0.1:{port}"
        _create_container(address)
        emulator = Emulator(f"az://{BUCKET}", through(address), port, through)
        with _counted(emulator):
            yield emulator
    finally:
        server.kill()  # on SIGTERM it waits for its connections to close
        server.wait()


def _create_container(address: str) -> None:
    """Signed as https://learn.microsoft.com/en-us/rest/api/storageservices/authorize-with-shared-key says."""
    headers = {"x-ms-date": email.utils.formatdate(usegmt=True), "x-ms-version": "2021-08-06"}
    signed = "PUT" + "\n" * 12 + "".join(f"{name}:{value}\n" for name, value in headers.items())
    signed += f"/{_ACCOUNT}/{_ACCOUNT}/{BUCKET}\nrestype:container"
    digest = hmac.new(base64.b64decode(_ACCOUNT_KEY), signed.encode(), hashlib.sha256).digest()
    headers["Authorization"] = f"SharedKey {_ACCOUNT}:{base64.b64encode(digest).decode()}"
    url = f"{address}/{_ACCOUNT}/{BUCKET}?restype=container"
    urllib.request.urlopen(urllib.request.Request(url, method="PUT", headers=headers)).close()


@contextlib.contextmanager
def _counted(emulator: Emulator) -> Iterator[None]:
    """Counts what is read from a store that doesn't count itself."""
    checked = object_stores._checked

    def counted(uri: str, data: bytes, wanted: int) -> bytes:
        emulator.sent.append((uri, len(data)))
        return checked(uri, data, wanted)

    with mock.patch.object(object_stores, "_checked", counted):
        yield


EMULATORS: dict[str, Callable[[], AbstractContextManager[Emulator]]] = {"gs": google, "s3": amazon, "az": azure}
PARAMETERS = ["gs", "s3", pytest.param("az", marks=pytest.mark.full)]
"""The names of all of them for a test; Azurite needs an installation."""

"""The part of Google's cloud that a submission needs: a store in memory, and an endpoint that records jobs."""

import contextlib
import http.server
import json
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from apache_beam.portability.api import beam_runner_api_pb2
from gcp_storage_emulator.server import create_server
from gcs_xml import xml_api
from google.cloud import storage

BUCKET = "archive"
_LOOPBACK = "127.0.0.1"


@dataclass
class Cloud:
    """The running services.

    Args:
        endpoint: the URL for `--dataflow_endpoint`.
        requests: (method, path) of every request to the endpoint.
        jobs: the jobs that were submitted, as JSON.
    """

    endpoint: str
    requests: list[tuple[str, str]] = field(default_factory=list)
    jobs: list[dict[str, Any]] = field(default_factory=list)

    def options(self, *more: str) -> list[str]:
        """The command line of a submission to this cloud."""
        return [
            *("--runner=DataflowRunner", "--project=a-project", "--region=europe-west1", "--no_auth"),
            *(f"--temp_location=gs://{BUCKET}/temp", f"--dataflow_endpoint={self.endpoint}", *more),
        ]

    def put(self, name: str, file: Path) -> None:
        """Uploads a file."""
        storage.Client.create_anonymous_client().bucket(BUCKET).blob(name).upload_from_filename(str(file))

    def names(self) -> list[str]:
        """The names of all objects."""
        return [blob.name for blob in storage.Client.create_anonymous_client().list_blobs(BUCKET)]

    def get(self, ending: str) -> bytes:
        """The content of the one object with this ending."""
        (name,) = [name for name in self.names() if name.endswith(ending)]
        return bytes(storage.Client.create_anonymous_client().bucket(BUCKET).blob(name).download_as_bytes())

    def pipeline(self) -> beam_runner_api_pb2.Pipeline:
        """The graph of the one submitted job."""
        return beam_runner_api_pb2.Pipeline.FromString(self.get("/pipeline.pb"))


@contextlib.contextmanager
def running_cloud() -> Iterator[Cloud]:
    """Starts both on loopback, and points Google's storage client at the first."""
    cloud = Cloud("")

    class Recorder(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            cloud.requests.append(("POST", self.path))
            job = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            cloud.jobs.append(job)
            answer = json.dumps({**job, "id": f"job-{len(cloud.jobs)}"}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def do_GET(self) -> None:
            cloud.requests.append(("GET", self.path))
            self.send_error(404)

        def log_message(self, *_: Any) -> None:
            pass

    recorder = http.server.ThreadingHTTPServer((_LOOPBACK, 0), Recorder)
    cloud.endpoint = f"http://localhost:{recorder.server_address[1]}"
    thread = threading.Thread(target=recorder.serve_forever, daemon=True)
    thread.start()
    store = create_server(_LOOPBACK, 0, in_memory=True, default_bucket=BUCKET)
    before = os.environ.get("STORAGE_EMULATOR_HOST")
    try:
        store.start()
        os.environ["STORAGE_EMULATOR_HOST"] = f"http://localhost:{store._api._httpd.server_address[1]}"
        with xml_api():
            yield cloud
    finally:
        if before is None:
            os.environ.pop("STORAGE_EMULATOR_HOST", None)
        else:
            os.environ["STORAGE_EMULATOR_HOST"] = before
        store.stop()
        recorder.shutdown()
        recorder.server_close()
        thread.join(10)

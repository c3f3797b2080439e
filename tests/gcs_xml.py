"""Google's XML API, which obstore speaks, for `gcp-storage-emulator`, which has the JSON API; on the same objects.

The emulator is also given the conditions on an object's generation, which it ignores. What is answered follows
https://cloud.google.com/storage/docs/xml-api/reference-methods and
https://cloud.google.com/storage/docs/json_api/v1/objects/insert.
"""

import contextlib
import email.utils
import io
import json
import re
import urllib.parse
from collections.abc import Iterator
from datetime import datetime
from typing import Any
from unittest import mock
from xml.sax.saxutils import escape

from gcp_storage_emulator import server
from gcp_storage_emulator.handlers import objects

_PAGE = 1_000
_JSON_PATHS = re.compile(r"/(storage/v1|upload|download|batch|b|wipe)(/|$)")


@contextlib.contextmanager
def xml_api(sent: list[tuple[str, int]] | None = None) -> Iterator[None]:
    """Gives the emulators of this process the XML API while the `with` block runs.

    Args:
        sent: to which (path, bytes) of every object that is read is appended.
    """
    json_get, json_post = server.RequestHandler.do_GET, server.RequestHandler.do_POST

    def do_get(request: Any) -> None:
        if _JSON_PATHS.match(request.path) or request.path == "/":
            json_get(request)
        else:
            _Xml(request, sent).get()

    def do_post(request: Any) -> None:
        query = urllib.parse.parse_qs(urllib.parse.urlparse(request.path).query)
        if "ifGenerationMatch" in query:
            body = request.rfile.read(int(request.headers["Content-Length"]))
            request.rfile = io.BytesIO(body)
            name = json.loads(re.search(rb'\{.*"name".*\}', body)[0])["name"]  # type: ignore[index]
            bucket = request.path.partition("/b/")[2].partition("/")[0]
            if [_generation(request.storage, bucket, name)] != query["ifGenerationMatch"]:
                request.send_error(412)
                return
        json_post(request)

    handlers = {
        "do_GET": do_get,
        "do_POST": do_post,
        "do_HEAD": lambda request: _Xml(request).get(),
        "do_PUT": lambda request: _Xml(request).put(),
        "do_DELETE": lambda request: _Xml(request).delete(),
    }
    with contextlib.ExitStack() as patches:
        for name, handler in handlers.items():
            old = getattr(server.RequestHandler, name, None)
            if name in ("do_PUT", "do_DELETE"):
                handler = _or_json(handler, old)
            patches.enter_context(mock.patch.object(server.RequestHandler, name, handler, create=True))
        yield


def _or_json(xml: Any, old: Any) -> Any:
    return lambda request: (old if _JSON_PATHS.match(request.path) else xml)(request)


def _generation(storage: Any, bucket: str, name: str) -> str:
    return str(storage.objects.get(bucket, {}).get(name, {}).get("generation", "0"))


class _Xml:
    """One request."""

    def __init__(self, request: Any, sent: list[tuple[str, int]] | None = None) -> None:
        self._request = request
        self._sent = sent
        url = urllib.parse.urlparse(request.path)
        self._query = dict(urllib.parse.parse_qsl(url.query))
        bucket, _, name = url.path.lstrip("/").partition("/")
        self._bucket, self._name = bucket, urllib.parse.unquote(name)

    def _answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self._request.send_response(status)
        for name, value in ({"Content_Length": str(len(body))} | headers).items():
            self._request.send_header(name.replace("_", "-"), value)
        self._request.end_headers()
        if self._request.command != "HEAD":
            self._request.wfile.write(body)

    def _found(self) -> dict[str, Any] | None:
        found: dict[str, Any] | None = self._request.storage.objects.get(self._bucket, {}).get(self._name)
        return found

    def get(self) -> None:
        if not self._name:
            self._list()
            return
        found = self._found()
        if found is None:
            self._answer(404)
            return
        data = bytes(self._request.storage.get_file(self._bucket, self._name))
        headers = _headers(found)
        size, status = len(data), 200
        if wanted := re.fullmatch(r"bytes=(\d+)-(\d*)", self._request.headers.get("Range", "")):
            start, end = int(wanted[1]), min(size, int(wanted[2] or size) + 1)
            if start >= size:
                self._answer(416)
                return
            data, status = data[start:end], 206
            headers["Content_Range"] = f"bytes {start}-{end - 1}/{size}"
        if self._sent is not None:
            self._sent.append((f"{self._bucket}/{self._name}", len(data)))
        self._answer(status, data, **headers)

    def _list(self) -> None:
        storage = self._request.storage
        if self._bucket not in storage.buckets:
            self._answer(404)
            return
        prefix, after = self._query.get("prefix", ""), self._query.get("start-after", "")
        after = self._query.get("continuation-token", after)
        held = storage.objects.get(self._bucket, {})
        names = sorted(name for name in held if name.startswith(prefix) and name > after)
        more = f"<NextContinuationToken>{escape(names[_PAGE - 1])}</NextContinuationToken>" if names[_PAGE:] else ""
        entries = "".join(
            f"<Contents><Key>{escape(name)}</Key><Size>{held[name]['size']}</Size>"
            f"<LastModified>{_updated(held[name]).isoformat()}</LastModified>"
            f'<ETag>"{held[name]["etag"]}"</ETag></Contents>'
            for name in names[:_PAGE]
        )
        self._answer(200, f"<ListBucketResult>{entries}{more}</ListBucketResult>".encode(), Content_Type="text/xml")

    def put(self) -> None:
        data = self._request.rfile.read(int(self._request.headers.get("Content-Length", 0)))
        generation = _generation(self._request.storage, self._bucket, self._name)
        if self._request.headers.get("x-goog-if-generation-match", generation) != generation:
            self._answer(412)
            return
        content_type = self._request.headers.get("Content-Type", "application/octet-stream")
        made = objects._make_object_resource("", self._bucket, self._name, content_type, str(len(data)))
        self._request.storage.create_file(self._bucket, self._name, data, objects._checksums(data, made))
        self._answer(200, **_headers(made))

    def delete(self) -> None:
        if self._found() is None:
            self._answer(404)
            return
        self._request.storage.delete_file(self._bucket, self._name)
        self._answer(204)


def _updated(found: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(found["updated"])


def _headers(found: dict[str, Any]) -> dict[str, str]:
    return {
        "ETag": f'"{found["etag"]}"',
        "Last_Modified": email.utils.format_datetime(_updated(found), usegmt=True),
        "x_goog_generation": str(found["generation"]),
    }

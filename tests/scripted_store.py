"""A store on loopback that answers by a script: good answers, and every way in which a store fails."""

import contextlib
import email.utils
import http.server
import re
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlparse

MODIFIED = email.utils.formatdate(1_700_000_000, usegmt=True)


@dataclass(frozen=True)
class Request:
    """One request as it came.

    Args:
        method: `GET`, `HEAD` …
        path: with its query.
        headers: by their names in lower case.
    """

    method: str
    path: str
    headers: dict[str, str]


@dataclass
class ScriptedStore:
    """What a test sees of the running store.

    Args:
        url: its address.
        objects: content by path, decoded, without the query.
        script: how the next requests are answered: a status; `cut` (half of the body), `closed` (no answer), `short`
            (half of the range, honestly said), `shortened` (half of what its headers say), `whole` (ranges ignored);
            `stalled` (half of the body, and no more); `ok`, and where the script has ended, as asked.
        answer: what is asked first: an answer (status, headers, body), or None to go on.
        headers: more headers of every good answer.
        ranges: whether ranges are read.
        requests: all that came.
        sent: bytes of objects that were sent.
    """

    url: str = ""
    objects: dict[str, bytes] = field(default_factory=dict)
    script: list[int | str] = field(default_factory=list)
    answer: Callable[[Request], tuple[int, dict[str, str], bytes] | None] = lambda _: None
    headers: dict[str, str] = field(default_factory=lambda: {"ETag": '"v1"', "Last-Modified": MODIFIED})
    ranges: bool = True
    requests: list[Request] = field(default_factory=list)
    sent: int = 0


@contextlib.contextmanager
def scripted_store() -> Iterator[ScriptedStore]:
    """Runs one."""
    store, ended = ScriptedStore(), threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def handle_one(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            request = Request(self.command, self.path, {name.lower(): value for name, value in self.headers.items()})
            store.requests.append(request)
            how = store.script.pop(0) if store.script else "ok"
            if isinstance(how, int):
                self.send(how, {}, b"<Error><Code>Scripted</Code><Message>as asked</Message></Error>")
            elif how == "closed":
                self.close_connection = True
            elif own := store.answer(request):
                self.send(*own)
            else:
                self.serve(how, unquote(urlparse(self.path).path), body)

        def serve(self, how: str, path: str, body: bytes) -> None:
            if self.command == "PUT":
                store.objects[path] = body
            data = store.objects.get(path)
            if data is None:
                self.send(404, {}, b"")
                return
            status, headers = (201 if self.command == "PUT" else 200), dict(store.headers)
            wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or self.headers.get("x-ms-range", ""))
            if wanted and how != "whole" and store.ranges:
                start, end = int(wanted[1]), min(len(data), int(wanted[2] or len(data)) + 1)
                if start >= len(data):
                    self.send(416, {}, b"")
                    return
                if how == "short":
                    end -= (end - start) // 2
                headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(data)}"
                data, status = data[start:end], 206
            store.sent += len(data)
            if how == "shortened":
                data = data[: len(data) // 2]
            self.send(status, headers, b"" if self.command == "PUT" else data, how)

        def send(self, status: int, headers: dict[str, str], body: bytes, how: str = "") -> None:
            self.send_response_only(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "HEAD":
                return
            self.wfile.write(body[: len(body) // 2] if how in ("cut", "stalled") else body)
            if how == "stalled":
                ended.wait()
            if how == "cut":
                self.wfile.flush()
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = handle_one

        def log_message(self, *_: Any) -> None:
            """Says nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    store.url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield store
    finally:
        ended.set()
        server.shutdown()
        server.server_close()

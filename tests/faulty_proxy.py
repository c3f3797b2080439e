"""An HTTP proxy for a store's emulator that fails some requests, in the ways that stores do."""

import http.client
import random
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

FAULTS = ("500", "503", "cut before", "cut within", "slow")
_SLOW_PIECES, _SLOW_S = 4, 0.25


class FaultyProxy:
    """Listens on a loopback port while the `with` block runs.

    Args:
        port: of the emulator on this machine.
        every: one of so many consecutive requests fails, with each fault in turn.
        seed: of the choice of the request.
    """

    def __init__(self, port: int, every: int, seed: int = 0) -> None:
        self.requests = 0
        self.faults: Counter[str] = Counter()
        draw, lock, proxy = random.Random(seed), threading.Lock(), self
        unlucky = [draw.randrange(every)]

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def forward(self) -> None:
                with lock:
                    fault = ""
                    if proxy.requests % every == unlucky[0]:
                        fault = FAULTS[(seed + proxy.faults.total()) % len(FAULTS)]
                        proxy.faults[fault] += 1
                    proxy.requests += 1
                    if proxy.requests % every == 0:
                        unlucky[0] = draw.randrange(every)
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if fault in ("500", "503"):
                    self.answer(int(fault), [], b"<Error><Code>InternalError</Code></Error>", "")
                    return
                if fault == "cut before":
                    self.close_connection = True
                    return
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
                connection.request(self.command, self.path, body, dict(self.headers))
                response = connection.getresponse()
                data = response.read()
                self.answer(response.status, response.getheaders(), data, fault)
                connection.close()

            def answer(self, status: int, headers: list[tuple[str, str]], data: bytes, fault: str) -> None:
                self.send_response_only(status)
                named = {name.lower() for name, _ in headers}
                for name, value in headers:
                    if name.lower() not in ("connection", "transfer-encoding"):
                        self.send_header(name, value)
                if "content-length" not in named and status not in (204, 304):
                    self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                if self.command == "HEAD":
                    return
                if fault == "cut within":
                    self.wfile.write(data[: len(data) // 2])
                    self.wfile.flush()
                    self.close_connection = True
                    return
                size = max(1, len(data) // _SLOW_PIECES) if fault == "slow" else max(1, len(data))
                for start in range(0, len(data), size):
                    self.wfile.write(data[start : start + size])
                    self.wfile.flush()
                    time.sleep(_SLOW_S if fault == "slow" else 0)

            do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = forward

            def log_message(self, *_: object) -> None:
                """Says nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> "FaultyProxy":
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

"""A file server that misbehaves as told, and remembers every request."""

import contextlib
import threading
import time
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@dataclass
class Manners:
    """How the server behaves.

    Attributes
    ----------
    drop_after
        Bytes of a body after which the connection is cut, for the next ``drops`` bodies that are longer; None: never.
    ranges
        Honour Range, or send the whole file instead.
    head
        Answer HEAD, or refuse it with 405.
    announce
        Content-Length of a whole file is changed by so many bytes.
    statuses
        Statuses that the next GETs are answered with, before normal service.
    block, pause_s
        Size of the blocks of a body and the pause after each.
    """

    drop_after: int | None = None
    drops: int = 10**9
    ranges: bool = True
    head: bool = True
    announce: int = 0
    statuses: list[int] = field(default_factory=list)
    block: int = 1 << 16
    pause_s: float = 0.0


@dataclass(frozen=True)
class Request:
    """Method, path, first byte asked for, and bytes of the body that were sent."""

    method: str
    path: str
    start: int
    sent: int


class FileServer:
    """Serves a folder on a free port of this machine; use as a context manager."""

    def __init__(self, folder: Path, **manners) -> None:
        self.folder, self.manners, self.requests = folder, Manners(**manners), []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self):
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def gets(self, path: str | None = None) -> list[Request]:
        """GET requests so far, of one path or of all."""
        return [r for r in self.requests if r.method == "GET" and path in (None, r.path)]

    def sent(self) -> int:
        """Bytes of bodies sent so far."""
        return sum(r.sent for r in self.requests)


def _handler(server: FileServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def do_HEAD(self):
            self._answer(body=False)

        def do_GET(self):
            self._answer(body=True)

        def _answer(self, *, body: bool) -> None:
            manners, path = server.manners, server.folder / self.path.lstrip("/")
            start = 0
            if body and manners.statuses:
                return self._refuse(manners.statuses.pop(0))
            if not body and not manners.head:
                return self._refuse(405)
            if not path.is_file():
                return self._refuse(404)
            content = path.read_bytes()
            tag = f'"{path.stat().st_mtime_ns}"'
            asked = self.headers.get("Range")
            fresh = self.headers.get("If-Range") in (None, tag)
            if asked and manners.ranges and fresh:
                start = int(asked.removeprefix("bytes=").split("-")[0])
                if start >= len(content):
                    return self._refuse(416)
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            else:
                self.send_response(200)
            self.send_header("Content-Length", str(len(content) - start + (manners.announce if not start else 0)))
            self.send_header("ETag", tag)
            self.send_header("Last-Modified", formatdate(path.stat().st_mtime, usegmt=True))
            self.end_headers()
            sent = self._send(content[start:]) if body else 0
            server.requests.append(Request(self.command, self.path, start, sent))
            return None

        def _refuse(self, status: int) -> None:
            server.requests.append(Request(self.command, self.path, 0, 0))
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def _send(self, content: bytes) -> int:
            manners, sent = server.manners, 0
            cut = manners.drop_after is not None and len(content) > manners.drop_after and manners.drops > 0
            if cut:
                manners.drops -= 1
                content = content[: manners.drop_after]
            with contextlib.suppress(ConnectionError):
                for start in range(0, len(content), manners.block):
                    self.wfile.write(content[start : start + manners.block])
                    sent += len(content[start : start + manners.block])
                    time.sleep(manners.pause_s)
            if cut or manners.announce:
                self.close_connection = True
            return sent

    return Handler

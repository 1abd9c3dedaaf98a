"""A web server on this machine that gives out archives, honestly or not."""

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from bench.data import download


class Silent:
    def echo(self, text: str) -> None:
        pass

    def amount(self, what: str, done: int, total: int) -> None:
        pass


class Server:
    """Files by path; `cut` ends each answer after so many bytes; ranges are honoured when `ranges`.

    `headers` are sent instead of Content-Length and Content-Range, `redirects` leads on, and `endless` never ends.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.redirects: dict[str, str] = {}
        self.headers: dict[str, str] | None = None
        self.cut: int | None = None
        self.ranges = True
        self.endless = False
        self.asked: list[tuple[str, str | None]] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                wanted = self.headers.get("Range")
                server.asked.append((self.path, wanted))
                if self.path in server.redirects:
                    self.send_response(302)
                    self.send_header("Location", server.redirects[self.path])
                    self.end_headers()
                    return
                content = server.files.get(self.path)
                if content is None:
                    self.send_error(404)
                    return
                start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and server.ranges else 0
                self.send_response(206 if wanted and server.ranges else 200)
                honest = {"Content-Length": str(len(content) - start)}
                if wanted and server.ranges:
                    honest["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
                for name, value in (honest if server.headers is None else server.headers).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content[start:][: server.cut])
                while server.endless:
                    try:
                        self.wfile.write(bytes(65536))
                    except OSError:
                        return

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()
        self.address = f"http://127.0.0.1:{self.http.server_port}"


def archive(server: Server, content: bytes, *mirrors: str) -> download.Archive:
    places = [f"{server.address}/{mirror}/" for mirror in mirrors or ("a",)]
    return download.Archive("x.tar", "", len(content), hashlib.sha256(content).hexdigest(), places)

"""A mirror that behaves as the Hugging Face Hub does: HEAD, LFS redirects to another host, gzip, ranges, refusals.

Small files are answered by the hub itself, with git's hash as ETag, and compressed in chunks to whoever accepts gzip.
Large ones (LFS) are redirected to a second host, with sha256 and size beside the redirect; a token must not follow.
`trouble` makes a file answer with a status for so many times, `cut` ends a body early.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

LARGE = (".safetensors", ".bin", ".onnx")


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One request as it came."""

    method: str
    host: str
    path: str
    range: str | None
    accepts: str
    token: str | None


@dataclass
class Hub:
    """What it serves: bytes or a file of this machine by (repository, path in it)."""

    revision: str = "0123456789abcdef0123456789abcdef01234567"
    files: dict[tuple[str, str], bytes | Path] = field(default_factory=dict)
    gated: dict[str, str] = field(default_factory=dict)
    """Repositories that want this token."""
    trouble: dict[str, list[int]] = field(default_factory=dict)
    """Statuses that the next requests for a path get, first one first."""
    cut: dict[str, int] = field(default_factory=dict)
    """The next body of a path ends after so many bytes."""
    damage: set[str] = field(default_factory=set)
    """Paths whose body is not what its hash says."""
    cards: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What the card of a repository says, such as its licence."""
    asked: list[Asked] = field(default_factory=list)
    url: str = ""
    cdn: str = ""

    def data(self, repo: str, path: str) -> bytes | None:
        """The bytes of a file, None where there is none."""
        found = self.files.get((repo, path))
        return found.read_bytes() if isinstance(found, Path) else found


@contextmanager
def running_hub() -> Iterator[Hub]:
    """Run it on two ports of loopback, under two host names."""
    mirror = Hub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self.answer()

        def do_GET(self) -> None:
            self.answer()

        def answer(self) -> None:
            cdn = self.server is second
            if self.path.startswith("/api/models/"):
                self.list_files("/".join(self.path.split("/")[3:5]))
                return
            owner, name, _, revision, *rest = (*unquote(self.path.split("?")[0]).strip("/").split("/"), *[""] * 4)
            repo, path = f"{owner}/{name}", "/".join(part for part in rest if part)
            accepts, token = self.headers.get("Accept-Encoding") or "", self.headers.get("Authorization")
            mirror.asked.append(
                Asked(
                    method=self.command,
                    host="cdn" if cdn else "hub",
                    path=path,
                    range=self.headers.get("Range"),
                    accepts=accepts,
                    token=token,
                )
            )
            if statuses := mirror.trouble.get(path):
                self.refuse(statuses.pop(0))
            elif not cdn and repo in mirror.gated and token != f"Bearer {mirror.gated[repo]}":
                self.refuse(403 if token else 401, "GatedRepo")
            elif all(known != repo for known, _ in mirror.files):
                self.refuse(401)  # the Hub does not tell strangers what does not exist
            elif revision != mirror.revision:
                self.refuse(404, "RevisionNotFound")
            elif (data := mirror.data(repo, path)) is None:
                self.refuse(404, "EntryNotFound")
            else:
                self.send(path, data, cdn=cdn, zipped="gzip" in accepts)

        def list_files(self, repo: str) -> None:
            names = [path for known, path in mirror.files if known == repo]
            if not names:
                self.refuse(401)
                return
            facts = {"id": repo, "sha": mirror.revision, "cardData": mirror.cards.get(repo, {})}
            body = json.dumps(facts | {"siblings": [{"rfilename": name} for name in names]}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def refuse(self, status: int, code: str | None = None) -> None:
            self.send_response(status)
            if code:
                self.send_header("X-Error-Code", code)
            if status == 429:
                self.send_header("RateLimit", '"resolvers";r=0;t=1')
            self.send_header("Content-Length", "0")
            self.end_headers()

        def send(self, path: str, data: bytes, *, cdn: bool, zipped: bool) -> None:
            large, sha256 = path.endswith(LARGE), hashlib.sha256(data).hexdigest()
            if large and not cdn:
                self.send_response(302)
                self.send_header("Location", f"{mirror.cdn}{self.path}")
                self.send_header("X-Repo-Commit", mirror.revision)
                self.send_header("X-Linked-Size", str(len(data)))
                self.send_header("X-Linked-ETag", f'"{sha256}"')
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            etag = sha256 if large else hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
            sent = data[:-1] + bytes([data[-1] ^ 1]) if path in mirror.damage and data else data
            if zipped and not large and self.command == "GET":
                packed = gzip.compress(sent)
                self.send_response(200)
                self.send_header("X-Repo-Commit", mirror.revision)
                self.send_header("ETag", f'W/"{etag}"')
                self.send_header("Vary", "Accept-Encoding")
                self.send_header("Content-Encoding", "gzip")
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                self.wfile.write(f"{len(packed):x}\r\n".encode() + packed + b"\r\n0\r\n\r\n")
                return
            start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").split("-")[0])
            self.send_response(206 if start else 200)
            self.send_header("X-Repo-Commit", mirror.revision)
            self.send_header("ETag", f'"{etag}"')
            self.send_header("Content-Length", str(len(data) - start))
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
            self.end_headers()
            if self.command == "GET":
                end = mirror.cut.pop(path, len(data))
                self.wfile.write(sent[start:end])
                self.close_connection = end < len(data)

        def log_message(self, *_: Any) -> None:
            pass

    first, second = (ThreadingHTTPServer(("127.0.0.1", 0), Handler) for _ in range(2))
    mirror.url, mirror.cdn = f"http://127.0.0.1:{first.server_port}", f"http://localhost:{second.server_port}"
    for server in (first, second):
        threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield mirror
    finally:
        for server in (first, second):
            server.shutdown()
            server.server_close()

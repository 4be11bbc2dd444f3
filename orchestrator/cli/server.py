"""A server that commands speak to over HTTP where `FPGA_API_URL` and `FPGA_API_KEY` are set: no database, no networks.

It answers with the objects that the ledger's own functions give, so commands print and end the same either way.
"""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import tempfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from orchestrator.cli.common import say
from orchestrator.errors import ConflictError, FpgaError, NotFoundError, TransientError, UsageError

if TYPE_CHECKING:
    from orchestrator.status.progress import Progress

PART_BYTES = 8 * 2**20
"""So much of a file goes in one request; what was cut off goes on from where the server has it."""
TRIES = 6
PAGE = 200
"""Rows of a list that are asked for at once."""
SECONDS = 60.0
MEDIA = {"jsonl": "application/jsonl", "csv": "text/csv"}


class RefusedError(FpgaError):
    """The server said no: its code and sentence are passed on as they came."""


class AwayError(TransientError):
    """The server could not be reached, or asks to come back later."""

    code = "server_away"


class Server:
    """One server and the key that is shown to it."""

    def __init__(self, url: str, key: str) -> None:
        headers = {"Authorization": f"Bearer {key}"}
        self._http = httpx.Client(base_url=url.rstrip("/"), headers=headers, timeout=SECONDS)

    def close(self) -> None:
        """Let go of the connections."""
        self._http.close()

    def ask(self, method: str, path: str, **given: Any) -> Any:
        """Make one request and return the JSON of its answer, or None where there is none.

        Raises:
            AwayError: the server cannot be reached, or is busy.
            RefusedError: it said no.
        """
        answer = self._send(method, path, **given)
        return answer.json() if answer.content else None

    def _send(self, method: str, path: str, **given: Any) -> httpx.Response:
        try:
            answer = self._http.request(method, path, **given)
        except httpx.TransportError as error:
            raise AwayError(f"{self._http.base_url} does not answer: {type(error).__name__}") from error
        self._check(answer)
        return answer

    def _check(self, answer: httpx.Response) -> None:
        if answer.is_success:
            return
        try:
            said: dict[str, Any] = answer.json()
            code, message = str(said["code"]), str(said["detail"])
        except (ValueError, KeyError, TypeError):
            said, code, message = {}, "not_fpga", f"{answer.url.host} answered {answer.status_code} and no reason"
        if answer.status_code in (429, 502, 503, 504):
            raise AwayError(message, code=code)
        errors = {"errors": said["errors"]} if said.get("errors") else {}
        raise RefusedError(message, code=code, **errors)

    def batch(self, batch_id: str, *, with_items: bool = False) -> dict[str, Any]:
        """Return the object of a batch, with light objects of its items if asked for."""
        whole = self.resolve(batch_id)
        shown: dict[str, Any] = self.ask("GET", f"/v1/batches/{whole}")
        if with_items:
            shown["items"] = list(self.rows(f"/v1/batches/{whole}/items"))
        return shown

    def resolve(self, batch_id: str) -> str:
        """Return the whole id that begins so, among the newest batches.

        Raises:
            NotFoundError, ConflictError: none does, or several do.
        """
        from orchestrator.cli.common import ID

        if ID.fullmatch(batch_id):
            return batch_id
        newest = self.ask("GET", "/v1/batches", params={"limit": PAGE})["data"]
        found = [one["id"] for one in newest if one["id"].startswith(batch_id)]
        if not found:
            raise NotFoundError(f"none of the newest {PAGE} batches begins with {batch_id!r}", code="batch_not_found")
        if len(found) > 1:
            raise ConflictError(f"several batches begin with {batch_id!r}; give more of the id", code="ambiguous_id")
        return str(found[0])

    def look(self, batch_id: str) -> Progress:
        """Take one look at a batch."""
        from orchestrator.status.progress import Progress

        return Progress.of_json(self.ask("GET", f"/v1/batches/{batch_id}/progress"))

    def rows(self, path: str, *, most: int | None = None, **params: Any) -> Iterator[dict[str, Any]]:
        """Yield the rows of a list, page after page."""
        left = most
        cursor: str | None = None
        while left is None or left > 0:
            size = PAGE if left is None else min(PAGE, left)
            at = {"cursor": cursor} if cursor else {}
            page = self.ask("GET", path, params={**params, **at, "limit": size})
            yield from page["data"]
            left = None if left is None else left - len(page["data"])
            if not (cursor := page["next"]):
                return

    def submit(
        self, manifest: bytes, form: str, options: dict[str, Any], *, key: str | None, dry_run: bool = False
    ) -> dict[str, Any]:
        """Hand a manifest in, or only ask what would happen, and return the answer."""
        headers = {"Content-Type": MEDIA[form], **({"Idempotency-Key": key} if key else {})}
        path = "/v1/batches/dry-run" if dry_run else "/v1/batches"
        made: dict[str, Any] = self.ask("POST", path, content=manifest, params=options, headers=headers)
        return made

    def lines(self, path: str) -> Iterator[str]:
        """Yield the lines of a streamed text."""
        try:
            with self._http.stream("GET", path) as answer:
                if not answer.is_success:
                    answer.read()
                self._check(answer)
                yield from answer.iter_lines()
        except httpx.TransportError as error:
            raise AwayError(f"{self._http.base_url} went away in the middle: {type(error).__name__}") from error

    def download(self, batch_id: str, folder: Path, *, overwrite: bool) -> dict[Path, FpgaError]:
        """Write the pictures and lists of a batch into a folder; return what could not be written, and why.

        What is there and equal stays; another file of the same name stays too, unless `overwrite` is said.
        """
        failures: dict[Path, FpgaError] = {}
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as kept:
            self._fetch(f"/v1/batches/{batch_id}/pictures", kept)
            try:
                archive = zipfile.ZipFile(kept)
            except zipfile.BadZipFile as error:
                raise AwayError("the download ended half-way; the same command tries again", code="cut_off") from error
            with archive:
                for member in archive.infolist():
                    target = folder / member.filename
                    if not target.resolve().is_relative_to(folder.resolve()):
                        failures[target] = UsageError("its name leads out of the folder", code="unsafe_path")
                        continue
                    problem = _write(archive, member, target, overwrite=overwrite or target.suffix == ".jsonl")
                    if problem:
                        failures[target] = problem
        return failures

    def _fetch(self, path: str, into: Any) -> None:
        try:
            with self._http.stream("GET", path) as answer:
                if not answer.is_success:
                    answer.read()
                self._check(answer)
                for piece in answer.iter_bytes():
                    into.write(piece)
        except httpx.TransportError as error:
            raise AwayError(f"{self._http.base_url} went away in the middle: {type(error).__name__}") from error

    def upload(self, path: Path) -> str:
        """Send a file in parts and return the id of the upload; a part that is cut off goes on from where it is.

        Raises:
            AwayError: the server stayed away.
            RefusedError: it takes no such file.
        """
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            size = file.seek(0, os.SEEK_END)
        said = {"filename": path.name, "sha256": digest}
        told = ",".join(f"{name} {base64.b64encode(value.encode()).decode()}" for name, value in said.items())
        headers = {"Upload-Length": str(size), "Upload-Metadata": told}
        upload = str(self.ask("POST", "/v1/uploads", headers=headers)["id"])
        self.send(upload, path)
        return upload

    def send(self, upload: str, path: Path) -> int:
        """Send a file to an upload, whatever of it is there already, and return its size."""
        at = tries = 0
        size = path.stat().st_size
        with path.open("rb") as file:
            while at < size:
                file.seek(at)
                headers = {"Upload-Offset": str(at), "Content-Type": "application/offset+octet-stream"}
                part = file.read(PART_BYTES)
                try:
                    answer = self._send("PATCH", f"/v1/uploads/{upload}", content=part, headers=headers)
                    tries = 0
                except (AwayError, RefusedError) as error:
                    if tries == TRIES or (isinstance(error, RefusedError) and error.code != "upload_offset"):
                        raise
                    tries += 1
                    say(f"{error.message}; going on with {path.name}")
                    time.sleep(0.2 * 2**tries)
                    answer = self._offset(upload, at)
                at = int(answer.headers["Upload-Offset"])
        return size

    def _offset(self, upload: str, before: int) -> httpx.Response:
        try:
            return self._send("HEAD", f"/v1/uploads/{upload}")
        except AwayError:
            return httpx.Response(200, headers={"Upload-Offset": str(before)})


def _write(archive: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path, *, overwrite: bool) -> FpgaError | None:
    """Write one member in the place of nothing; a file is whole or not there."""
    try:
        if target.exists() and not overwrite:
            with archive.open(member) as new, target.open("rb") as old:
                equal = new.read() == old.read()
            return None if equal else ConflictError("another file of this name is there", code="file_exists")
        target.parent.mkdir(parents=True, exist_ok=True)
        beside = target.with_name(f".{target.name}.part")
        with archive.open(member) as new, beside.open("wb") as file:
            shutil.copyfileobj(new, file)
        beside.replace(target)
    except OSError as error:
        return UsageError(f"it cannot be written: {error.strerror}", code="not_writable")
    return None

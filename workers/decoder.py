"""Decodes many pictures of strangers through one guarded child process, which is replaced when one of them kills it.

For chunks of a data set, where a process for each picture would cost more than the picture.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from orchestrator.errors import InputError

ROOT = Path(__file__).resolve().parents[1]
WALL_SECONDS = 20.0


class Decoder:
    """A context manager; `decode` may be called for one picture after the other."""

    def __init__(self, *, max_pixels: int, wall_seconds: float = WALL_SECONDS) -> None:
        self._max_pixels = max_pixels
        self._wall_seconds = wall_seconds
        self._child: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def decode(self, data: bytes) -> NDArray[np.uint8]:
        """Return a picture as sRGB pixels (H, W, 3), upright by its EXIF, transparency on white.

        Raises:
            InputError: the codes of `workers.decode.decode`; `image_undecodable` where the child died or hung.
        """
        child = self._child = self._child or self._begin()
        alarm = threading.Timer(self._wall_seconds, child.kill)
        alarm.start()
        try:
            return self._ask(child, data)
        except (OSError, ValueError) as error:
            self._end()
            raise InputError("the picture ended the process that decoded it", code="image_undecodable") from error
        finally:
            alarm.cancel()

    def _ask(self, child: subprocess.Popen[bytes], data: bytes) -> NDArray[np.uint8]:
        assert child.stdin is not None, "the child was given a pipe"
        assert child.stdout is not None, "the child was given a pipe"
        child.stdin.write(len(data).to_bytes(8, "big"))
        child.stdin.write(data)
        child.stdin.flush()
        facts = json.loads(child.stdout.readline())
        if "code" in facts:
            raise InputError(facts["message"], code=facts["code"], **facts.get("details", {}))
        height, width = facts["height"], facts["width"]
        pixels = child.stdout.read(height * width * 3)
        return np.frombuffer(pixels, np.uint8).reshape(height, width, 3)

    def _begin(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "workers.decoder_child", str(self._max_pixels)]
        environment = {"PYTHONPATH": str(ROOT), "PATH": os.defpath, "LC_ALL": "C.UTF-8"}
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, cwd="/")

    def _end(self) -> None:
        if self._child is None:
            return
        self._child.kill()
        for pipe in (self._child.stdin, self._child.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except OSError:  # what was still to be written goes nowhere now
                    continue
        self._child.wait()
        self._child = None

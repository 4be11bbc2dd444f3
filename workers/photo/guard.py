"""A child process with bounded memory and time that parses bytes of strangers, one message after another.

It sees no environment and so no credentials. A crash or an endless loop of it is an answer like any other: it is
replaced, and a picture that was not its first is tried again in a fresh one, so that none pays for another.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from threading import Timer
from types import TracebackType
from typing import Any, Self, TypeVar

from orchestrator.errors import InputError
from workers.photo.frames import pack, receive

T = TypeVar("T")
ROOT = Path(__file__).resolve().parents[2]
NO_ANSWER, NO_MEMORY = "image_undecodable", "image_out_of_memory"


class Guarded:
    """A module of ours in such a process, which begins with the first question; a context manager."""

    def __init__(self, module: str, *, memory: int) -> None:
        """Say which module, and how much address space its process has, bytes."""
        self._module = module
        self._memory = memory
        self._child: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def ask(
        self,
        job: Mapping[str, Any],
        parts: Sequence[bytes],
        understood: Callable[[dict[str, Any], list[bytes]], T],
        *,
        wall_seconds: float,
    ) -> T:
        """Return what `understood` makes of the child's answer; it raises where it makes no sense of it.

        Raises:
            InputError: `image_undecodable`, where the child died, ran out of time or said nothing sensible; and what
                `understood` raises.
        """
        deadline = time.monotonic() + wall_seconds
        while True:
            fresh = self._child is None
            try:
                return self._once(job, parts, understood, deadline - time.monotonic())
            except InputError as error:
                if error.code not in (NO_ANSWER, NO_MEMORY):
                    raise
                self._end()
                if time.monotonic() >= deadline:
                    message = f"the picture took over {wall_seconds:g} s to decode"
                    raise InputError(message, code=NO_ANSWER) from error
                if fresh:
                    raise

    def _once(
        self,
        job: Mapping[str, Any],
        parts: Sequence[bytes],
        understood: Callable[[dict[str, Any], list[bytes]], T],
        seconds: float,
    ) -> T:
        child = self._child = self._child or self._begin()
        assert child.stdin is not None, "the child was given a pipe"
        assert child.stdout is not None, "the child was given a pipe"
        alarm = Timer(seconds, child.kill)
        alarm.start()
        try:
            for piece in pack(job, *parts):
                child.stdin.write(piece)
            child.stdin.flush()
            return understood(*receive(child.stdout, most=self._memory))
        except (OSError, EOFError) as error:
            raise InputError("the picture ended the process that decoded it", code=NO_ANSWER) from error
        except (ValueError, LookupError, TypeError) as error:  # a picture took it over, or it died while it spoke
            raise InputError("decoding gave no sensible answer", code=NO_ANSWER) from error
        finally:
            alarm.cancel()

    def _begin(self) -> subprocess.Popen[bytes]:
        environment = {
            "PYTHONPATH": str(ROOT),
            "PATH": os.defpath,
            "LC_ALL": "C.UTF-8",
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
            "VIPS_CONCURRENCY": "1",
        }
        return subprocess.Popen(
            [sys.executable, "-m", self._module, str(self._memory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            cwd="/",
        )

    def _end(self) -> None:
        child, self._child = self._child, None
        if child is None:
            return
        child.kill()
        for pipe in (child.stdin, child.stdout):
            try:
                if pipe is not None:
                    pipe.close()
            except OSError:  # what was still to be written goes nowhere now
                continue
        child.wait()


def bound_memory(size: int) -> None:
    """Bound the address space of this process, bytes, and let it leave no core file."""
    resource.setrlimit(resource.RLIMIT_AS, (size, size))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def bound_time(seconds: int) -> None:
    """End this process once it has used so many more seconds of a processor."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (int(used.ru_utime + used.ru_stime) + seconds, hard))

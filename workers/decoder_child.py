"""Decodes pictures from standard input to raw RGB on standard output, one after the other, until the input ends.

Run by workers.decoder as `python -m workers.decoder_child MAX_PIXELS`. Each picture comes as 8 bytes of length and the
bytes; the answer is a line of JSON, {"width", "height"} or {"code", "message"}, and the pixels.
"""

from __future__ import annotations

import json
import resource
import sys

from orchestrator.errors import InputError
from workers.decode_child import BASE_MEMORY, BYTES_PER_PIXEL, CPU_SECONDS, decode


def main() -> None:
    """Serve until the input ends; each picture has its own share of processor time."""
    max_pixels = int(sys.argv[1])
    memory = BASE_MEMORY + BYTES_PER_PIXEL * max_pixels
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    source, out = sys.stdin.buffer, sys.stdout.buffer
    while length := source.read(8):
        used = resource.getrusage(resource.RUSAGE_SELF)
        spent = int(used.ru_utime + used.ru_stime)
        resource.setrlimit(resource.RLIMIT_CPU, (spent + CPU_SECONDS, resource.RLIM_INFINITY))
        data = source.read(int.from_bytes(length, "big"))
        try:
            image = decode(data, max_pixels)
        except InputError as error:
            out.write(json.dumps(error.as_json()).encode() + b"\n")
        else:
            out.write(json.dumps({"width": image.width, "height": image.height}).encode() + b"\n" + image.tobytes())
        out.flush()


if __name__ == "__main__":
    main()

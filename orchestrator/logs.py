"""Logging for every process: a constant event name and fields, as text for people or as JSON lines for machines.

Fields are ids and numbers. Names, prompts and embeddings have no place in a log.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from pythonjsonlogger.json import JsonFormatter

from orchestrator.errors import FpgaError
from orchestrator.settings import Settings

log = logging.getLogger(__name__)
USUAL = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "data"}
QUIET = ("kombu", "amqp", "botocore", "urllib3", "httpx", "alembic", "celery.redirected")


class TextFormatter(logging.Formatter):
    """`time level event key=value ...`"""

    def format(self, record: logging.LogRecord) -> str:
        """Return one line, and the traceback when there is one."""
        fields = " ".join(f"{k}={v}" for k, v in vars(record).items() if k not in USUAL and not k.startswith("_"))
        line = f"{self.formatTime(record, '%H:%M:%S')} {record.levelname.lower():7} {record.getMessage()} {fields}"
        return line.rstrip() + (f"\n{self.formatException(record.exc_info)}" if record.exc_info else "")


def setup(settings: Settings) -> None:
    """Send all logs of this process to standard error in the chosen form."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        JsonFormatter("{asctime}{levelname}{name}{message}", style="{", timestamp=True)
        if settings.log_format == "json"
        else TextFormatter()
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.log_level.upper())
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)


@contextmanager
def surviving(what: str, **about: object) -> Iterator[None]:
    """Log whatever goes wrong inside: nothing that one row says may end a loop, or keep its neighbours waiting.

    Args:
        what: the event's name, such as `sweep put off`.
        about: ids of the row.
    """
    try:
        yield
    except FpgaError as error:
        log.warning(what, extra={**about, "error": error.code})
    except Exception:  # the outermost loop of a thread, or of one row
        log.exception(what, extra=about)

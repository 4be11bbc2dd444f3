"""The error tree of the orchestrator and the workers: a code, a plain sentence, retryable or final, an HTTP status.

FpgaError
├── UsageError                 what the caller asked for cannot be done                      422
│   ├── ManifestError          rows of a manifest are wrong, each with its number            422
│   ├── ConsentError           an identity lacks the scope that the job needs                403
│   ├── AccessError            no key, a wrong or expired key                                401
│   ├── ForbiddenError         the key has not the scope                                     403
│   ├── LimitError             too many requests, or a quota is used up                      429
│   ├── NotFoundError          no such batch, item, identity, model, schedule                404
│   └── ConflictError          the state does not allow it (finished, open elsewhere, taken) 409
├── InputError                 a picture or file is not usable: final for its item           422
├── StageError                 a stage failed on its item for a reason of its own            500
├── FencedError                the lease was lost: somebody else owns the stage now          409
├── TransientError             worth another try later: network, disk full, lock timeout     503
│   └── StoreUnavailableError  the byte store cannot be reached or is full                   503
├── SettingsError              the environment or a file of settings is wrong                500
├── ContractError              a row was written by a newer version, or cannot be read       500
└── ModelError                 weights missing, of the wrong hash, or of the wrong shape     500
"""

from __future__ import annotations

from typing import Any, ClassVar


class FpgaError(Exception):
    """Something went wrong that we can name.

    `code` is stable and for machines, the message is one plain sentence for people, `retryable` says whether the
    same call may succeed later, `http_status` is what the HTTP border answers, `details` is small JSON.
    """

    code: str = "internal"
    retryable: ClassVar[bool] = False
    http_status: ClassVar[int] = 500

    def __init__(self, message: str, *, code: str | None = None, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or type(self).code
        self.details = details

    def as_json(self) -> dict[str, Any]:
        """Return the error as the object that the command line, item rows and HTTP answers share."""
        return {
            "code": self.code,
            "message": self.message,
            **({"details": self.details} if self.details else {}),
        }


class UsageError(FpgaError):
    """What the caller asked for cannot be done."""

    code = "usage"
    http_status = 422


class ManifestError(UsageError):
    """Rows of a manifest are wrong; `details["errors"]` lists them with row, field, code and message."""

    code = "manifest_invalid"


class ConsentError(UsageError):
    """An identity lacks the consent scope that the job needs."""

    code = "consent_missing"
    http_status = 403


class AccessError(UsageError):
    """No key was given, or one that does not exist, has expired or was revoked."""

    code = "key_invalid"
    http_status = 401


class ForbiddenError(UsageError):
    """The key does not have the scope that this needs."""

    code = "scope_missing"
    http_status = 403


class LimitError(UsageError):
    """Too many requests, or a quota is used up; `details["retry_after"]` says in how many seconds to try again."""

    code = "limit_reached"
    http_status = 429


class NotFoundError(UsageError):
    """No such thing."""

    code = "not_found"
    http_status = 404


class ConflictError(UsageError):
    """The present state does not allow it."""

    code = "conflict"
    http_status = 409


class InputError(FpgaError):
    """A picture or file that was handed in is not usable; final for its item."""

    code = "input_invalid"
    http_status = 422


class StageError(FpgaError):
    """A stage failed on its item for a reason of its own; a repeat would fail the same way."""

    code = "stage_failed"


class FencedError(FpgaError):
    """The lease was lost: another attempt owns the stage, or it was cancelled."""

    code = "fenced"
    http_status = 409


class TransientError(FpgaError):
    """Worth another try later: network, disk full, lock timeout."""

    code = "transient"
    retryable = True
    http_status = 503


class ReceiverError(TransientError):
    """Somebody who is told of events did not take one; `status` is what was answered, if anything was."""

    code = "receiver_failed"

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class StoreUnavailableError(TransientError):
    """The byte store cannot be reached, or is full."""

    code = "store_unavailable"


class SettingsError(FpgaError):
    """The environment or a file of settings is wrong."""

    code = "settings_invalid"


class ContractError(FpgaError):
    """A small model in a JSON column was written by a newer version of this software, or cannot be read."""

    code = "contract_unreadable"


class ModelError(FpgaError):
    """Weights are missing, of the wrong hash, or of the wrong shape."""

    code = "model_invalid"

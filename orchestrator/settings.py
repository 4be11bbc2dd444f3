"""The only reader of the environment: one frozen settings object per process.

Variables with a standard name keep it (`DATABASE_URL`, `CELERY_BROKER_URL`, `PREFECT_API_URL`, `AWS_*`, the last read
by boto3 itself); ours start with `FPGA_`, and an unknown `FPGA_` name is refused so that a typo cannot pass unseen.
With nothing set, everything lives in one state directory and needs no service: the embedded way to run.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Literal
from urllib.parse import quote, unquote

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from orchestrator.errors import SettingsError

PACKAGE_ROOT = Path(__file__).resolve().parents[1]


class Settings(BaseSettings):
    """Everything a process may be told from outside; see docs/settings.md for the table."""

    model_config = SettingsConfigDict(env_prefix="FPGA_", frozen=True, extra="forbid", populate_by_name=True)

    state_dir: Path = Field(default_factory=lambda: Path.cwd() / "var" / "fpga")
    """Embedded mode keeps database, bytes, bell, logs and the Prefect home in here."""
    database_url_: str | None = Field(default=None, repr=False, validation_alias="DATABASE_URL")
    broker_url_: str | None = Field(default=None, repr=False, validation_alias="CELERY_BROKER_URL")
    prefect_api_url: str | None = Field(default=None, validation_alias="PREFECT_API_URL")
    prefect_api_auth_string: SecretStr | None = Field(default=None, validation_alias="PREFECT_API_AUTH_STRING")
    prefect_api_key: SecretStr | None = Field(default=None, validation_alias="PREFECT_API_KEY")
    """Of Prefect Cloud, or of a server that asks for a Bearer token."""
    store_url_: str | None = Field(default=None, repr=False, validation_alias="FPGA_STORE_URL")
    """`s3://bucket/prefix` or `file:///directory`."""
    s3_addressing_style: Literal["auto", "path", "virtual"] = "auto"
    s3_public_endpoint_url: str | None = None
    """The endpoint as browsers reach it; presigned links are signed for this host."""
    data_keys: SecretStr | None = None
    """Master keys of the vault, comma-separated: the first seals, the others still open. See vault.py."""
    data_key_file: Path | None = None
    """File with such keys, one a line; by default one in the state directory, made when it is first needed."""
    signing_keys: SecretStr | None = None
    """Ed25519 keys of receipts, comma-separated: the first signs, all verify. See receipts.py."""
    signing_key_file: Path | None = None
    """File with such keys, one a line; by default one in the state directory, made when it is first needed."""
    credentials: Literal["off", "on", "required"] = "on"
    """Content Credentials in what is made: `on` signs where it can, `required` publishes nothing unsigned."""
    credentials_file: Path | None = None
    """PEM of the private key and its certificates, leaf first; on one machine a test chain is made by itself."""
    trust_file: Path | None = None
    """PEM of the roots whose certificates `fpga verify` calls trusted; without it every issuer is unknown."""
    buckets_file: Path | None = None
    """TOML of the buckets that requests over HTTP may read from or write to, by owner; see archive/reach.py."""
    models_dir: Path = PACKAGE_ROOT / "fpga_models" / "weights"
    catalog_dir: Path = PACKAGE_ROOT / "orchestrator" / "models" / "catalog"
    """What `fpga model pull` knows: one file a preset, with repositories, revisions, hashes and licences."""
    preset: str = "mini"
    use: Literal["any", "commercial"] = "any"
    """`commercial` refuses presets with a component whose licence forbids commercial use, before anything is queued."""
    owner: str = "local"
    device: str = "cpu"
    worker_queues: str = ""
    """Comma-separated; a worker's parent process sets it for its child, which looks into these queues when idle."""
    torch_threads: int = Field(default=0, ge=0, description="0 leaves the choice to torch")
    group_size: int = Field(default=8, ge=1, le=64)
    """How many compatible items one claim may take into one batch of the networks."""
    lease_seconds: float = Field(default=60.0, gt=0)
    heartbeat_seconds: float = Field(default=10.0, gt=0)
    stall_seconds: float = Field(default=300.0, gt=0)
    """A stage that reports no progress for so long is given up even while its process lives."""
    sweep_seconds: float = Field(default=2.0, gt=0)
    ring_seconds: float = Field(default=0.1, gt=0)
    """How often the sweeper's process looks for new work to announce."""
    idle_look_seconds: float = Field(default=5.0, gt=0)
    """How long a worker may hear nothing before it looks into the ledger by itself."""
    hint_ttl_seconds: float = Field(default=900.0, gt=0)
    """After so long a message that no worker took counts as lost; a worker that finds work untold says so earlier."""
    max_crashes: int = Field(default=3, ge=1)
    max_failures: int = Field(default=5, ge=1)
    backoff_base_seconds: float = Field(default=5.0, ge=0)
    drain_seconds: float = Field(default=30.0, gt=0)
    train_turn_seconds: float = Field(default=900.0, gt=0)
    """So long a worker trains in one go; then it saves, lets other queues have their turn, and claims the run again."""
    mlflow_tracking_uri: str | None = Field(default=None, validation_alias="MLFLOW_TRACKING_URI")
    """An MLflow server that figures of training runs and evaluations are sent to as well."""
    max_pixels: int = Field(default=64_000_000, ge=1)
    """Reference pictures with more pixels are refused before they are decoded."""
    max_photo_pixels: int = Field(default=120_000_000, ge=1)
    """Photos of an archive with more pixels are refused; a decoding process may take 24 bytes of memory for each."""
    max_photo_bytes: int = Field(default=512 * 2**20, ge=1)
    """Larger members of an archive are refused, each by itself."""
    api_url: str | None = Field(default=None, pattern="^https?://")
    """Where a server of fpga answers: with it and a key the command line speaks HTTP and opens no database."""
    api_key: SecretStr | None = None
    """The key that the command line shows to that server."""
    api_host: str = "127.0.0.1"
    """Where `fpga serve` listens. Put a proxy that speaks TLS before any other address than loopback."""
    api_port: int = Field(default=7861, ge=0, le=65535)
    """0 takes any free port."""
    allowed_hosts: str = ""
    """Comma-separated names by which clients may call this server, beside its addresses and its own name."""
    api_body_bytes: int = Field(default=64 * 2**20, ge=1)
    """Larger bodies of requests are refused; files go by uploads, in parts."""
    max_upload_bytes: int = Field(default=64 * 2**30, ge=1)
    """Larger uploads are refused when they begin."""
    api_rate_per_minute: int = Field(default=600, ge=1)
    """So many requests a key may make in a minute at each server process."""
    ready_queue_depth: int = Field(default=500_000, ge=0)
    """With more stages waiting, of all owners together, `/health/work` is red; 0 sets no limit."""
    quota_items: int = Field(default=100_000, ge=1)
    """So many items of one owner may wait or run at a time."""
    quota_megapixels_day: int = Field(default=0, ge=0)
    """So many million pixels one owner may ask for in 24 hours; 0 sets no limit."""
    quota_upload_bytes: int = Field(default=0, ge=0)
    """So many bytes of one owner may be on the way or wait to be used; 0 sets no limit."""
    webhook_private: bool = False
    """Let webhooks go to plain http and to private addresses; for development only."""
    smtp_url: SecretStr | None = None
    """The server that mails of events go through: `smtp://USER:PASSWORD@HOST:587` or `smtps://`; empty sends none."""
    mail_from: str = ""
    """The sender of those mails."""
    mail_to: str = ""
    """Whom mails may go to, with commas between: addresses, or `@HOST` for all of a host."""
    captioner: str = ""
    """`module:function` that writes captions which a data set's source lacks; workers run no other."""
    keep_people_days: int = Field(default=0, ge=0)
    """People who were not used, added to or allowed anything for so long are erased; 0 keeps them."""
    keep_outputs_days: int = Field(default=0, ge=0)
    """The bytes of outputs go after so long, their rows stay; 0 keeps them."""
    keep_originals_days: int = Field(default=0, ge=0)
    """Source photos and what stages stored of them go so long after their item ended; 0 keeps them."""
    probes: bool = False
    """Let this worker run items that only wait, or end it on purpose: for measuring and disturbing the machinery."""
    metrics_host: str = "127.0.0.1"
    metrics_port: int = Field(default=0, ge=0, le=65535)
    """Where a computing process answers scrapes of Prometheus; 0 is nowhere. Each worker of a host needs its own."""
    otel_endpoint: str | None = Field(default=None, validation_alias="OTEL_EXPORTER_OTLP_ENDPOINT")
    """Where traces go, over OTLP and HTTP; needs the extra `otel`, which reads the other OTEL_* variables itself."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["text", "json"] = "text"

    @cached_property
    def database_url(self) -> str:
        """SQLAlchemy URL of the ledger; by default an SQLite file in the state directory."""
        return self.database_url_ or sqlite_url(self.state_dir / "ledger.sqlite3")

    @cached_property
    def broker_url(self) -> str:
        """Celery broker URL; by default the filesystem transport below the state directory."""
        return self.broker_url_ or "filesystem://"

    @cached_property
    def store_url(self) -> str:
        """Where bytes are kept; by default a directory below the state directory."""
        return self.store_url_ or (self.state_dir / "store").absolute().as_uri()

    @property
    def bell_dir(self) -> Path:
        """Folder of the filesystem broker; only its owner may enter."""
        return self.state_dir / "bell"


def sqlite_url(path: Path) -> str:
    """Return the URL of an SQLite file; a name that a URL would take apart is written as a `file:` URI."""
    if not set("?#%") & set(str(path)):
        return f"sqlite:///{path}"
    return f"sqlite:///file:{quote(str(path.absolute()))}?uri=true"


def sqlite_path(url: str) -> Path:
    """Return the file that an SQLite URL names; the other way of `sqlite_url`."""
    database = url.partition(":///")[2]
    if not database.startswith("file:"):
        return Path(database.partition("?")[0])
    return Path(unquote(database.removeprefix("file:").partition("?")[0]))


def load_settings() -> Settings:
    """Read the environment once and return it checked.

    Raises:
        SettingsError: a value has the wrong form, or a variable starts with `FPGA_` and is not known.
    """
    known = {str(field.validation_alias or f"FPGA_{name}").upper() for name, field in Settings.model_fields.items()}
    # FPGA_TEST_* belongs to the test suite
    links = sorted(n for n, value in os.environ.items() if n.startswith("FPGA_") and value.startswith("tcp://"))
    if links:
        raise SettingsError(
            f"{links[0]} was set by Kubernetes for a Service whose name begins with fpga, not by you; "
            "set enableServiceLinks: false in the pod, as deploy/helm does"
        )
    unknown = sorted(n for n in os.environ if n.startswith("FPGA_") and n not in known and "FPGA_TEST" not in n)
    if unknown:
        ours = ", ".join(sorted(name for name in known if name.startswith("FPGA_")))
        raise SettingsError(f"unknown setting {', '.join(unknown)}; known are {ours}")
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        raise SettingsError(f"setting {name}: {first['msg']}, got {first.get('input')!r}") from error


def without_proxy(env: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that keep loopback away from a proxy, beside what they say already."""
    said = env.get("NO_PROXY") or env.get("no_proxy") or ""
    wanted = ",".join(dict.fromkeys(filter(None, [*said.split(","), "127.0.0.1", "localhost", "::1"])))
    return {"NO_PROXY": wanted, "no_proxy": wanted}


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """Return this process's settings, read at the first call; from then on no proxy gets what goes to this machine."""
    os.environ.update(without_proxy(os.environ))
    return load_settings()


def choose_state_dir(path: Path) -> None:
    """Make this process, and those it starts, use this state directory whatever the environment says."""
    os.environ["FPGA_STATE_DIR"] = str(path.absolute())
    get_settings.cache_clear()

"""The compose file says what it must without a container engine: pinned images, no default password, real commands."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.pipelines import QUEUES
from orchestrator.settings import Settings

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docker-compose.yml").read_text()
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(TEXT)["services"]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
OURS = {name: service for name, service in SERVICES.items() if "build" in service}


def test_foreign_images_are_pinned_to_a_version() -> None:
    images = {name: service["image"] for name, service in SERVICES.items() if name not in OURS}
    assert images.keys() == {"postgres", "redis", "store"}
    assert all(re.search(r":v?\d+\.\d+", image) for image in images.values()), images
    assert all(re.search(r"\$\{[A-Z]+_DIGEST:-\}$", image) for image in images.values()), "and can be by content"
    bases = re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)
    assert len(set(bases)) == 1
    assert re.fullmatch(r"python:\d+\.\d+\.\d+-slim-bookworm\$\{PYTHON_DIGEST\}", bases[0])


def test_every_password_must_be_set_and_stands_in_the_example() -> None:
    asked = set(re.findall(r"\$\{(\w+):\?", TEXT))
    given = set(re.findall(r"^(\w+)=$", (ROOT / ".env.example").read_text(), re.MULTILINE))
    assert asked == given
    secret = {name for name in re.findall(r"(?<!\$)\$\{(\w+)", TEXT) if re.search("PASSWORD|SECRET|KEYS", name)}
    assert secret == asked


def test_our_services_get_only_settings_that_exist() -> None:
    known = {str(spec.validation_alias or f"FPGA_{name}").upper() for name, spec in Settings.model_fields.items()}
    for name, service in OURS.items():
        unknown = {v for v in service["environment"] if v.startswith("FPGA_")} - known
        assert not unknown, f"{name}: {unknown}"


def test_workers_serve_queues_that_exist_and_together_all_of_them() -> None:
    served = {queue for name in SERVICES if name.startswith("worker") for queue in _queues(SERVICES[name]["command"])}
    assert served == set(QUEUES)


def _queues(command: list[str]) -> list[str]:
    given = command[command.index("-Q") + 1]
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", given).split(",")


@pytest.mark.parametrize("name", ["postgres", "redis", "store", "prefect"])
def test_what_others_wait_for_has_a_health_check_and_keeps_its_data_in_a_volume(name: str) -> None:
    service = SERVICES[name]
    assert "healthcheck" in service
    assert name == "prefect" or any(str(volume).startswith(f"{name}:/") for volume in service["volumes"])


def test_nothing_of_ours_starts_before_the_database_is_migrated() -> None:
    waiting = {name for name, service in OURS.items() if "migrate" in service["depends_on"]}
    assert waiting == OURS.keys() - {"migrate", "prefect"}


@pytest.mark.parametrize("name", SERVICES)
def test_no_container_may_more_than_it_must(name: str) -> None:
    service = SERVICES[name]
    assert service["cap_drop"] == ["ALL"]
    assert "cap_add" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["deploy"]["resources"]["limits"]["memory"]
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))
    assert service.get("read_only") is True or name == "store", "which says why"
    assert name == "store" or any(place.startswith("/tmp") for place in service["tmpfs"])


def test_what_is_ours_writes_where_a_read_only_root_lets_it() -> None:
    places = dict(re.findall(r"(\w+)=(/var/lib/fpga\S*)", DOCKERFILE))
    assert places.keys() == {"HOME", "FPGA_STATE_DIR", "PREFECT_HOME"}
    for service in OURS.values():
        assert [one["target"] for one in service["volumes"] if not one.get("read_only")] == ["/var/lib/fpga"]


NEEDS = {
    "migrate": {"DATABASE_URL"},
    "prefect": {"PREFECT"},
    "prefect-worker": {"DATABASE_URL", "CELERY_BROKER_URL", "PREFECT", "AWS"},
    "sweeper": {"DATABASE_URL", "CELERY_BROKER_URL", "PREFECT", "AWS", "FPGA_DATA_KEYS", "FPGA_SIGNING_KEYS"},
    "api": {"DATABASE_URL", "CELERY_BROKER_URL", "PREFECT", "AWS", "FPGA_DATA_KEYS", "FPGA_SIGNING_KEYS"},
    "worker-cpu": {"DATABASE_URL", "CELERY_BROKER_URL", "AWS", "FPGA_DATA_KEYS"},
    "worker-gpu": {"DATABASE_URL", "CELERY_BROKER_URL", "AWS", "FPGA_DATA_KEYS"},
}
"""What each process is told that opens something."""


def test_each_process_is_told_what_it_needs_and_no_more() -> None:
    told = {name: {_opens(variable) for variable in service["environment"]} - {""} for name, service in OURS.items()}
    assert told == NEEDS
    accounts = {name: service["environment"].get("AWS_ACCESS_KEY_ID", "") for name, service in OURS.items()}
    assert accounts["api"] != accounts["worker-cpu"], "a store that knows several accounts can tell them apart"


def _opens(variable: str) -> str:
    if variable in ("DATABASE_URL", "CELERY_BROKER_URL", "FPGA_DATA_KEYS", "FPGA_SIGNING_KEYS"):
        return variable
    if variable.endswith(("AUTH_STRING", "CONNECTION_URL")):
        return "PREFECT"
    return "AWS" if variable == "AWS_SECRET_ACCESS_KEY" else ""


def test_the_image_that_runs_holds_no_compiler() -> None:
    stages = DOCKERFILE.split("\nFROM ")
    assert len(stages) == 3
    assert "build-essential" in stages[1]
    assert not re.search(r"build-essential|gcc|g\+\+|make\b|pip install", stages[2])
    assert re.search(r"^USER fpga$", stages[2], re.MULTILINE)


@pytest.mark.slow
@pytest.mark.parametrize("profile", [[], ["--profile", "gpu"]])
def test_compose_itself_accepts_the_file_and_asks_for_every_password(profile: list[str]) -> None:
    """`config` checks against the compose specification's schema and needs no container engine."""
    compose = shutil.which("docker-compose")
    if compose is None:
        if os.environ.get("CI", "").lower() == "true":
            pytest.fail("docker-compose is not installed; run scripts/install-services.sh all")
        pytest.skip("docker-compose is not installed; run scripts/install-services.sh all")
    command = [compose, *profile, "-f", str(ROOT / "docker-compose.yml"), "--project-directory", "/", "config", "-q"]
    bare = {"PATH": os.environ["PATH"]}
    given = dict.fromkeys(re.findall(r"\$\{(\w+):\?", TEXT), "secret")

    refused = subprocess.run(command, env=bare, capture_output=True, text=True, check=False)
    taken = subprocess.run(command, env=bare | given, capture_output=True, text=True, check=False)

    assert refused.returncode != 0
    assert "set it in .env" in refused.stderr
    assert taken.returncode == 0, taken.stderr

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
OURS = {name: service for name, service in SERVICES.items() if "build" in service}


def test_foreign_images_are_pinned_to_a_version() -> None:
    images = {name: service["image"] for name, service in SERVICES.items() if name not in OURS}
    assert images.keys() == {"postgres", "redis", "store"}
    assert all(re.search(r":v?\d+\.\d+", image) for image in images.values()), images


def test_every_password_must_be_set_and_stands_in_the_example() -> None:
    asked = set(re.findall(r"\$\{(\w+):\?", TEXT))
    given = set(re.findall(r"^(\w+)=$", (ROOT / ".env.example").read_text(), re.MULTILINE))
    assert asked == given
    assert {name for name in re.findall(r"(?<!\$)\$\{(\w+)", TEXT) if re.search("PASSWORD|SECRET|KEYS", name)} == asked


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

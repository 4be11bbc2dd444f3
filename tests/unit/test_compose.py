"""The compose file says what it must without a container engine: pinned images, no default password, real commands."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.broker import QUEUES
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

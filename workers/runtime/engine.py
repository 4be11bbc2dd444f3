"""Loads networks once per process and keeps them warm, one model version at a time.

Torch and what stands on it are imported where a network is first asked for: a worker that needs none, or has just
been started again after a crash and finds none to load, is up in a fraction of the time and memory.
"""
# ruff: noqa: PLC0415

from __future__ import annotations

import gc
import logging
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from fpga_models.errors import ModelError as NetworkError
from orchestrator.errors import ModelError
from orchestrator.ledger.tables.rows import ModelVersion
from orchestrator.settings import Settings

if TYPE_CHECKING:
    from fpga_models.core.pipeline import PortraitPipeline
    from fpga_models.faces.domain import DomainGuard
    from fpga_models.faces.pack import FacePack
    from fpga_models.faces.pose import PoseNetwork

log = logging.getLogger(__name__)


class Engine:
    """The networks of one model version on this process's device."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.warm: str | None = None
        self._portraits: PortraitPipeline | None = None
        self._faces: dict[str, FacePack] = {}
        self._poses: dict[str, PoseNetwork] = {}
        self._most: dict[tuple[str, int], int] = {}
        self._guard: DomainGuard | None = None

    def limit_threads(self) -> None:
        """Hold torch, once something has loaded it, to the number of threads that the settings ask for."""
        torch = sys.modules.get("torch")
        if torch is not None and self._settings.torch_threads:
            torch.set_num_threads(self._settings.torch_threads)

    def portraits(self, version: ModelVersion) -> PortraitPipeline:
        """Return the portrait networks of this version, loading them if another one was warm.

        Raises:
            ModelError: the files are missing or are not those that were registered.
        """
        from fpga_models.core.pipeline import PortraitPipeline

        if self._portraits is None or self.warm != version.id:
            self._portraits, self.warm = None, None
            gc.collect()
            began = time.monotonic()
            try:
                self._portraits = PortraitPipeline.from_pretrained(Path(version.location), device=self._settings.device)
            except NetworkError as error:
                raise ModelError(f"model version {version.id} cannot be loaded: {error}", code=error.code) from error
            self.warm = version.id
            log.info("networks loaded", extra={"version": version.id, "seconds": round(time.monotonic() - began, 2)})
        return self._portraits

    def largest_group(self, version: ModelVersion, width: int, height: int) -> int:
        """Return how many pictures of a size go through the networks together.

        At most the deployment's group size, what the card's free memory holds by the preset's own figures, and what is
        left after the device ran out of memory before.
        """
        import torch

        most = min(self._settings.group_size, self._most.get((version.id, width * height), self._settings.group_size))
        preset = self.portraits(version).preset
        if preset.memory is None or not self._settings.device.startswith("cuda"):
            return most
        device = torch.device(self._settings.device)
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        free = (torch.cuda.mem_get_info(device)[0] + kept) / 2**30
        first = preset.sizes[0]
        return min(most, preset.memory.group(free, pixels=width * height / (first[0] * first[1])))

    def ran_out(self, version: ModelVersion, width: int, height: int, tried: int) -> None:
        """Remember that so many pictures of a size were too many for this device: from now on half as many."""
        import torch

        self._most[version.id, width * height] = max(1, tried // 2)
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        log.warning(
            "out of memory, smaller groups from now on",
            extra={"version": version.id, "size": f"{width}x{height}", "tried": tried, "now": max(1, tried // 2)},
        )

    def faces(self, version: ModelVersion) -> FacePack:
        """Return the face pack of this version.

        Raises:
            ModelError: the files are missing or are not those that were registered.
        """
        from fpga_models.faces.pack import FacePack

        if version.location not in self._faces:
            try:
                pack = FacePack.load(Path(version.location) / "faces", device=self._settings.device)
            except NetworkError as error:
                raise ModelError(f"the face pack of {version.id} cannot be loaded: {error}", code=error.code) from error
            self._faces = {version.location: pack}
        return self._faces[version.location]

    def pose(self, version: ModelVersion) -> PoseNetwork | None:
        """Return the pose network of this version; None for a preset that has none.

        Raises:
            ModelError: the files are missing or are not those that were registered.
        """
        from fpga_models.faces.pose import PoseNetwork

        if not (Path(version.location) / "pose").is_dir():
            return None
        if version.location not in self._poses:
            try:
                network = PoseNetwork.load(Path(version.location) / "pose", device=self._settings.device)
            except NetworkError as error:
                raise ModelError(
                    f"the pose network of {version.id} cannot be loaded: {error}", code=error.code
                ) from error
            self._poses = {version.location: network}
        return self._poses[version.location]

    def guard(self) -> DomainGuard:
        """Return what tells drawn faces from photographs, whatever the preset.

        Raises:
            ModelError: the preset that it stands on is not installed.
        """
        from fpga_models.faces.domain import DomainGuard

        if self._guard is None:
            try:
                self._guard = DomainGuard.load()
            except (NetworkError, OSError) as error:
                raise ModelError(f"the guard of domains cannot be loaded: {error}") from error
        return self._guard

    def profile(self) -> dict[str, str]:
        """Return what the arithmetic depends on besides the weights: device, threads and library versions."""
        import torch

        device = self._settings.device
        name = torch.cuda.get_device_name(device) if device.startswith("cuda") else "cpu"
        return {"device": name, "torch": torch.__version__, "threads": str(torch.get_num_threads())}


def is_out_of_memory(error: BaseException) -> bool:
    """Tell an allocation that failed, on the device or on the host, from other faults."""
    if isinstance(error, MemoryError):
        return True
    # torch's own class for it is a RuntimeError too, and cannot be named without importing torch
    return isinstance(error, RuntimeError) and any(s in str(error) for s in ("allocate memory", "out of memory"))

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

    def pose(self, version: ModelVersion) -> PoseNetwork:
        """Return the pose network of this version.

        Raises:
            ModelError: the files are missing or are not those that were registered.
        """
        from fpga_models.faces.pose import PoseNetwork

        if version.location not in self._poses:
            try:
                network = PoseNetwork.load(Path(version.location) / "pose", device=self._settings.device)
            except NetworkError as error:
                raise ModelError(
                    f"the pose network of {version.id} cannot be loaded: {error}", code=error.code
                ) from error
            self._poses = {version.location: network}
        return self._poses[version.location]

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

"""DIIR, DDIM Inversion based ID Restoration: faces of any picture restored, swapped or edited; the rest stays."""

from fpga_models.diir.inversions import Inversions
from fpga_models.diir.pairing import Reference
from fpga_models.diir.report import DiirResult, FaceReport
from fpga_models.diir.restorer import Restorer
from fpga_models.diir.settings import RESTORE, STYLIZED, SWAP, TASKS, DiirSettings, settings_of
from fpga_models.diir.small_faces import restore_small_faces
from fpga_models.diir.wrap import RestoredOutput, RestoringPipeline

__all__ = [
    "RESTORE",
    "STYLIZED",
    "SWAP",
    "TASKS",
    "DiirResult",
    "DiirSettings",
    "FaceReport",
    "Inversions",
    "Reference",
    "RestoredOutput",
    "Restorer",
    "RestoringPipeline",
    "restore_small_faces",
    "settings_of",
]

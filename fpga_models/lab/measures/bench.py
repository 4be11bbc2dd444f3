"""What every evaluation works with: the pipeline of one preset, instruments, a seed, a count, and where to report."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fpga_models.core.pipeline import PortraitPipeline
from fpga_models.diir import Restorer
from fpga_models.lab.measures.trials import GALLERY, Advance, Gallery, Instruments, draw_gallery
from fpga_models.lab.synthetic.scene import drawn_fine

Track = Callable[[str, int], Advance]
"""Begins a part of the work, by title and number of units, and returns what is told how many were finished."""


def untracked(_title: str, _total: int) -> Advance:
    """Report nothing."""
    return lambda _done: None


@dataclass(frozen=True, kw_only=True, eq=False)
class Bench:
    """One preset being measured.

    Attributes:
        seed: chooses the held-out people, their scenes and the noise.
        count: how many scenes; each evaluation says of what.
        track: where progress goes.
    """

    instruments: Instruments
    pipeline: PortraitPipeline
    seed: int
    count: int
    track: Track = untracked

    @classmethod
    def load(
        cls,
        preset_dir: Path,
        *,
        seed: int,
        count: int,
        track: Track = untracked,
        threads: int = 1,
        device: str = "cpu",
    ) -> "Bench":
        """Load the networks of a preset folder.

        Raises:
            WeightsError, PresetError, PackError, EvaluatorError: a file is missing, altered or of another kind.
        """
        return cls(
            instruments=Instruments.load(preset_dir, threads=threads),
            pipeline=PortraitPipeline.from_pretrained(preset_dir, device=device),
            seed=seed,
            count=count,
            track=track,
        )

    @property
    def side(self) -> int:
        """Side of the pictures in px."""
        return min(self.pipeline.preset.sizes[0])

    def gallery(self, size: int = GALLERY) -> Gallery:
        """Draw this many held-out people."""
        fine = drawn_fine(self.side)
        return draw_gallery(self.instruments, self.seed, size, self.track("references", size), fine=fine)

    def restorer(self) -> Restorer:
        """DIIR with this pipeline and the product's own face pack."""
        return Restorer(self.pipeline, self.instruments.pack)

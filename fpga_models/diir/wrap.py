"""DIIR behind any diffusers pipeline: its pictures come back with their faces restored, nothing else changes.

    restoring = Restorer(pipeline, pack).wrap(StableDiffusionPipeline.from_pretrained(...))
    output = restoring("two people in a park", references=[...], num_inference_steps=30)

Needs nothing of the generator but its pictures [paper: plug and play].
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image as PilImage

from fpga_models.diir.pairing import Reference
from fpga_models.diir.report import DiirResult
from fpga_models.diir.settings import DiirSettings
from fpga_models.errors import RequestError


@dataclass(frozen=True, kw_only=True, eq=False)
class RestoredOutput:
    """Pictures of the generator, restored, with what happened to each; `generated` is the generator's own output."""

    images: list[PilImage.Image]
    results: tuple[DiirResult, ...]
    generated: Any


@dataclass(frozen=True, kw_only=True, eq=False)
class RestoringPipeline:
    """A generator followed by DIIR.

    Attributes:
        generator: any callable that returns an object with `images`, a list of PIL pictures.
        restore: `Restorer.restore` or the like.
        settings: the knobs.
    """

    generator: Callable[..., Any]
    restore: Callable[..., DiirResult]
    settings: DiirSettings

    def __call__(
        self,
        *args: Any,
        references: Sequence[Reference],
        mapping: Mapping[int, int] | None = None,
        seed: int = 0,
        **kwargs: Any,
    ) -> RestoredOutput:
        """Generate with the generator's own arguments, then restore each picture; picture i from `seed` + i.

        Raises:
            RequestError: the generator returned something other than PIL pictures.
        """
        generated = self.generator(*args, **kwargs)
        pictures = getattr(generated, "images", None)
        if not isinstance(pictures, list) or not all(isinstance(picture, PilImage.Image) for picture in pictures):
            raise RequestError(f"PIL pictures in `images` are wanted of a generator, got {type(generated).__name__}.")
        results = tuple(
            self.restore(np.asarray(picture), references, settings=self.settings, mapping=mapping, seed=seed + index)
            for index, picture in enumerate(pictures)
        )
        images = [PilImage.fromarray(result.image) for result in results]
        return RestoredOutput(images=images, results=results, generated=generated)

"""DIIR behind any diffusers pipeline: its pictures come back with their faces restored, nothing else changes.

    restoring = Restorer(pipeline, pack).wrap(StableDiffusionPipeline.from_pretrained(...))
    output = restoring("two people in a park", references=[...], num_inference_steps=30)

Needs nothing of the generator but its pictures [paper: plug and play].
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image as PilImage
from torch import Tensor

from fpga_models.diir.pairing import Reference
from fpga_models.diir.picture import Picture
from fpga_models.diir.report import DiirResult
from fpga_models.diir.settings import DiirSettings
from fpga_models.errors import RequestError

OUTPUT_TYPES = ("pil", "np", "pt")


@dataclass(frozen=True, kw_only=True, eq=False)
class RestoredOutput:
    """Pictures of the generator, restored, with what happened to each.

    Attributes:
        images: as asked: PIL pictures, or (N, H, W, C) floats (`np`), or (N, C, H, W) floats (`pt`), in [0, 1].
        results: one for each picture.
        generated: the generator's own output, PIL pictures.
    """

    images: list[PilImage.Image] | NDArray[np.float32] | Tensor
    results: tuple[DiirResult, ...]
    generated: Any


class Restores(Protocol):
    """What stands behind the generator: a `Restorer`."""

    def check(self, references: Sequence[Reference]) -> None:
        """Refuse references that cannot be used."""

    def restore(
        self,
        picture: Picture,
        references: Sequence[Reference],
        *,
        settings: DiirSettings | None,
        mapping: Mapping[int, int] | None,
        seed: int,
    ) -> DiirResult:
        """Restore the faces of one picture."""


@dataclass(frozen=True, kw_only=True, eq=False)
class RestoringPipeline:
    """A generator followed by DIIR.

    Attributes:
        generator: any callable that returns an object with `images`, a list of PIL pictures.
        restorer: what restores them.
        settings: the knobs.
    """

    generator: Callable[..., Any]
    restorer: Restores
    settings: DiirSettings

    def __call__(
        self,
        *args: Any,
        references: Sequence[Reference],
        mapping: Mapping[int, int] | None = None,
        seed: int = 0,
        **kwargs: Any,
    ) -> RestoredOutput | tuple[Any, tuple[DiirResult, ...]]:
        """Generate with the generator's own arguments, then restore each picture; picture i from `seed` + i.

        `output_type` may be pil, np or pt, and `return_dict` False gives (images, results), as in diffusers; the
        generator itself is always asked for PIL pictures.

        Raises:
            RequestError, EmbeddingError, PlacementError: an output type or reference that cannot be used, before the
                generator runs; or the generator returned something other than PIL pictures.
        """
        wanted, as_object = kwargs.get("output_type", "pil"), kwargs.get("return_dict", True)
        if wanted not in OUTPUT_TYPES:
            raise RequestError(
                f"output_type {wanted!r}: one of {', '.join(OUTPUT_TYPES)} is wanted; latents show no face."
            )
        self.restorer.check(references)
        own = {"output_type": "pil", "return_dict": True}
        generated = self.generator(*args, **kwargs | {name: value for name, value in own.items() if name in kwargs})
        pictures = getattr(generated, "images", None)
        if not isinstance(pictures, list) or not all(isinstance(picture, PilImage.Image) for picture in pictures):
            raise RequestError(f"PIL pictures in `images` are wanted of a generator, got {type(pictures).__name__}.")
        results = tuple(
            self.restorer.restore(
                pixels_of(picture), references, settings=self.settings, mapping=mapping, seed=seed + index
            )
            for index, picture in enumerate(pictures)
        )
        images = _as(wanted, [result.image for result in results])
        return RestoredOutput(images=images, results=results, generated=generated) if as_object else (images, results)


def pixels_of(picture: PilImage.Image) -> Picture:
    """A PIL picture as grey or RGB with or without alpha, (H, W) or (H, W, C); palettes and CMYK become RGB."""
    if picture.mode in ("RGB", "RGBA", "L") or picture.mode.startswith("I;16"):
        return np.asarray(picture)
    grey, clear = picture.mode in ("1", "LA", "La"), picture.has_transparency_data
    return np.asarray(picture.convert("RGBA" if clear else "L" if grey else "RGB"))


def _as(wanted: str, pictures: list[Picture]) -> list[PilImage.Image] | NDArray[np.float32] | Tensor:
    if wanted == "pil":
        return [PilImage.fromarray(picture) for picture in pictures]
    scaled = [np.atleast_3d(p).astype(np.float32) / np.float32(np.iinfo(p.dtype).max) for p in pictures]
    stacked: NDArray[np.float32] = np.stack(scaled).astype(np.float32)
    return stacked if wanted == "np" else torch.from_numpy(stacked).permute(0, 3, 1, 2).contiguous()

"""How many pictures fit a card at once, by what a preset says it needs. Plain numbers, GiB in 16 bit."""

from __future__ import annotations

from dataclasses import dataclass

RESERVE = 1.0
"""For the driver's context and the workspaces of convolutions, GiB [ours]."""


@dataclass(frozen=True, kw_only=True)
class Need:
    """What a base needs of a card, computed on meta tensors (`fpga_models.lab.memory`).

    Attributes:
        weights: of all networks.
        text: of the text encoders, the part of the weights that can stay off the card between prompts.
        step: of one picture in a guided step, at the base's first size.
        decode: of decoding, a megapixel at a time.
    """

    weights: float
    text: float
    step: float
    decode: float

    def group(self, free: float, *, pixels: float = 1.0) -> int:
        """How many pictures go through together where so much is free beside the weights; at least 1.

        `pixels` is the size of a picture over the base's first size.
        """
        return max(1, int((free - RESERVE) // (self.step * pixels)))

    def fits(self, card: float, *, offload: bool) -> bool:
        """Whether one picture can be made on a card of this size."""
        held = self.weights - (self.text if offload else 0.0)
        return card >= held + RESERVE + max(self.step, self.decode)

    def offloads(self, card: float) -> bool:
        """Whether the text encoders have to stay off the card between prompts."""
        return not self.fits(card, offload=False)

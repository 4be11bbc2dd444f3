"""Draws the example people: three reference pictures each of eight invented, synthetic people of the mini world.

    python examples/make_people.py            # writes examples/people/<name>/{1,2,3}.png

Nobody of them was seen by any training: all seeds are held out.
"""

from pathlib import Path

import numpy as np
from PIL import Image

from fpga_models.lab.synthetic import reference_crop

PEOPLE = {
    "ada": 200_027,
    "bruno": 200_001,
    "clara": 200_026,
    "dario": 200_033,
    "emeka": 200_021,
    "flora": 200_010,
    "greta": 200_014,
    "hana": 200_045,
}
SIZE = 224


def main() -> None:
    """Write the pictures."""
    for name, seed in PEOPLE.items():
        folder = Path(__file__).parent / "people" / name
        folder.mkdir(parents=True, exist_ok=True)
        for number in (1, 2, 3):
            picture = reference_crop(seed, np.random.default_rng([seed, number]), SIZE).image
            Image.fromarray(picture).save(folder / f"{number}.png", optimize=True)


if __name__ == "__main__":
    main()

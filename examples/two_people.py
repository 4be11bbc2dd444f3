"""The whole method on two people: drawn together at their places (MMF, MGMICA), then both faces drawn again (DIIR).

python examples/two_people.py two.png
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

from fpga_models.core.pipeline import PersonSlot, PortraitPipeline, PortraitRequest
from fpga_models.core.presets import preset_directory
from fpga_models.diir import Restorer, restore_small_faces
from fpga_models.faces import FacePack, align

PEOPLE = Path(__file__).parent / "people"


def main(out: Path) -> None:
    """Write the picture, and print each face's likeness before and after."""
    folder = preset_directory("mini")
    pipeline, pack = PortraitPipeline.from_pretrained(folder), FacePack.load(folder / "faces")
    preset = pipeline.preset
    width, height = preset.sizes[0]

    people = []
    for name, slot in zip(("ada", "bruno"), preset.layouts["group_2"]["slots"], strict=True):
        photo = np.asarray(Image.open(PEOPLE / name / "1.png").convert("RGB"))
        (face,) = pack.detect(photo)
        place = np.asarray(slot["kps5"], np.float32) * (width, height)
        people.append(PersonSlot(embedding=face.embedding, crop=align(photo, face.kps5), kps5=place))

    request = PortraitRequest(
        prompt="photo of two smiling people side by side, city background",
        people=tuple(people),
        width=width,
        height=height,
        seed=7,
        **preset.defaults,
    )
    (drawn,) = pipeline.generate([request])
    restored = restore_small_faces(Restorer(pipeline, pack), drawn, people, seed=request.seed)

    Image.fromarray(restored.image).save(out)
    for report in restored.faces:
        sys.stdout.write(f"person {report.reference}: {report.before:.2f} -> {report.after:.2f}, {report.reason}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

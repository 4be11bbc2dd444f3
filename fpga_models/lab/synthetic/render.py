"""Turns a scene into a picture with ground truth: 2x supersampled flat drawing, area-averaged, then light."""

from dataclasses import dataclass, replace

import cv2
import numpy as np

from fpga_models.lab.synthetic.background import draw_background
from fpga_models.lab.synthetic.body import Body
from fpga_models.lab.synthetic.canvas import Image, Points
from fpga_models.lab.synthetic.fine_background import draw_fine_background
from fpga_models.lab.synthetic.fine_body import FineBody
from fpga_models.lab.synthetic.fine_head import FineHead
from fpga_models.lab.synthetic.head import Head
from fpga_models.lab.synthetic.identity import Identity
from fpga_models.lab.synthetic.sampling import random_scene
from fpga_models.lab.synthetic.scene import Person, Scene

SUPERSAMPLING = 2
LIGHT_COLOURS: dict[str, tuple[float, float, float]] = {
    "neutral": (1.0, 1.0, 1.0),
    "warm": (1.08, 0.99, 0.8),
    "cool": (0.88, 0.97, 1.08),
    "evening": (0.8, 0.64, 0.66),
    "bright": (1.1, 1.09, 1.06),
}


@dataclass(frozen=True, kw_only=True)
class PersonTruth:
    """Where one person is, in pixels.

    Attributes:
        identity: identity seed.
        box: face from hairline to chin, x0, y0, x1, y1.
        kps5: (5, 2) eyes, nose tip, mouth corners; image-left before image-right (insightface's order).
        skeleton: (18, 3) OpenPose-18 x, y, visible.
        mask: (H, W) uint8, 255 on head and hair, smooth at the edge.
    """

    identity: int
    box: tuple[float, float, float, float]
    kps5: Points
    skeleton: Points
    mask: Image


@dataclass(frozen=True, kw_only=True)
class Rendered:
    """A picture (H, W, 3) RGB uint8, its people from left to right (back row first) and its caption."""

    image: Image
    people: tuple[PersonTruth, ...]
    caption: str


def render(scene: Scene) -> Rendered:
    """Draw a scene; the same scene always gives the same pixels."""
    side = scene.size * SUPERSAMPLING
    behind = draw_fine_background if scene.fine else draw_background
    background = behind(scene.background, scene.background_seed, scene.size)
    canvas: Image = cv2.resize(background, (side, side), interpolation=cv2.INTER_LINEAR)
    for person in sorted(scene.people, key=lambda p: p.pose.y if scene.rows > 1 else 0.0):
        _draw_person(canvas, person, scene)
    image = cv2.resize(canvas, (scene.size, scene.size), interpolation=cv2.INTER_AREA)
    return Rendered(
        image=_light(image, scene),
        people=tuple(truth(person, scene.size) for person in scene.people),
        caption=scene.caption,
    )


def truth(person: Person, size: int) -> PersonTruth:
    """Ground truth of a person in a picture of this side."""
    who = Identity.from_seed(person.identity)
    head, body = Head(who, person.pose, size), Body(person, who.skin, size)
    outline = head.outline()
    face = head.rigid(np.maximum(outline, [-9.0, -0.62]))
    kps = head.keypoints()
    mask = np.zeros((size, size), np.uint8)
    head.draw_mask(mask)
    x0, y0 = face.min(0).tolist()
    x1, y1 = face.max(0).tolist()
    return PersonTruth(
        identity=person.identity,
        box=(x0, y0, x1, y1),
        kps5=kps,
        skeleton=body.skeleton(kps[2], kps[:2], head.ears(), size),
        mask=mask,
    )


def reference_crop(identity: int, rng: np.random.Generator, size: int, *, fine: bool = False) -> Rendered:
    """A portrait-like reference picture of one person: large face, calm pose, the light of any day."""
    scene = random_scene(rng, [identity], "portrait", size, fine=fine)
    pose = scene.people[0].pose
    calm = replace(
        pose,
        x=0.5 + 0.5 * (pose.x - 0.5),
        unit=float(rng.uniform(0.3, 0.36)),
        blink=min(pose.blink, 0.25),
        yaw=0.7 * pose.yaw,
    )
    return render(replace(scene, people=(replace(scene.people[0], pose=calm),)))


def _draw_person(canvas: Image, person: Person, scene: Scene) -> None:
    who = Identity.from_seed(person.identity)
    side = canvas.shape[0]
    if scene.fine:
        head: Head = FineHead(who, person.pose, side)
        body: Body = FineBody(person, who.skin, side, scene.light_angle)
    else:
        head, body = Head(who, person.pose, side), Body(person, who.skin, side)
    body.draw(canvas)
    head.draw_hair_behind(canvas)
    body.draw_neck(canvas)
    head.draw(canvas, scene.light_angle)


def _light(image: Image, scene: Scene) -> Image:
    """White balance, coloured light, and a soft fall-off away from the light."""
    ramp = np.linspace(-0.5, 0.5, scene.size, dtype=np.float32)
    fall = 1 + 0.16 * (np.cos(scene.light_angle) * ramp[None, :] + np.sin(scene.light_angle) * ramp[:, None])
    colour = np.array(LIGHT_COLOURS[scene.light], np.float32) * np.array(scene.tint, np.float32)
    lit = image.astype(np.float32) * (fall[..., None] * colour)
    result: Image = cv2.convertScaleAbs(lit)
    return result

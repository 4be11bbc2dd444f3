import hashlib
from dataclasses import replace

import numpy as np
import pytest

from fpga_models.lab.synthetic import (
    KINDS,
    VOCABULARY,
    Identity,
    Person,
    Pose,
    Scene,
    layouts,
    random_scene,
    reference_crop,
    render,
    words,
)
from fpga_models.lab.synthetic.identity import BEARDS, EYE_COLOURS, GLASSES, HAIR_STYLES
from fpga_models.lab.synthetic.render import truth
from fpga_models.lab.synthetic.scene import number_of_people
from fpga_models.lab.synthetic.soft import clipped, rim, soft

FLAT = "4e7dae94055d6c28164a6a5da0c6951f9b7fb83afbcb0561ecc0c1a32cb29166"


def _scene(kind: str, seed: int, size: int = 128) -> Scene:
    rng = np.random.default_rng(seed)
    return random_scene(rng, rng.integers(0, 8000, number_of_people(kind)).tolist(), kind, size)


@pytest.mark.parametrize("kind", KINDS)
def test_same_seed_gives_the_same_picture_and_another_seed_another(kind: str) -> None:
    first, second, other = (render(_scene(kind, seed)) for seed in (3, 3, 4))
    assert np.array_equal(first.image, second.image)
    assert first.caption == second.caption
    assert not np.array_equal(first.image, other.image)


@pytest.mark.parametrize("kind", KINDS)
def test_keypoints_lie_in_the_face_box_and_on_the_head_mask(kind: str) -> None:
    for seed in range(20):
        rendered = render(_scene(kind, seed))
        assert rendered.image.shape == (128, 128, 3)
        assert rendered.image.dtype == np.uint8
        for person in rendered.people:
            x0, y0, x1, y1 = person.box
            inside = (person.kps5 > [x0, y0]) & (person.kps5 < [x1, y1])
            assert inside.all(), (kind, seed)
            x, y = np.floor(person.kps5).astype(int).T
            assert (person.mask[y, x] > 100).all()
            left_eye, right_eye, nose, left_mouth, right_mouth = person.kps5
            assert left_eye[0] < right_eye[0]
            assert left_mouth[0] < right_mouth[0]
            assert left_eye[1] < nose[1] < max(left_mouth[1], right_mouth[1])


@pytest.mark.parametrize("kind", ["group_2", "group_3", "group_4"])
def test_faces_of_a_group_never_overlap_and_stand_in_reading_order(kind: str) -> None:
    for seed in range(60):
        scene = _scene(kind, seed)
        people = [truth(person, 128) for person in scene.people]
        for i, a in enumerate(people):
            for b in people[i + 1 :]:
                apart = a.box[2] <= b.box[0] or b.box[2] <= a.box[0] or a.box[3] <= b.box[1] or b.box[3] <= a.box[1]
                assert apart, (kind, seed)
        if scene.rows == 1:
            assert sorted(p.box[0] for p in people) == [p.box[0] for p in people]


def test_skeleton_agrees_with_the_face_and_hides_what_is_outside_the_picture() -> None:
    person = truth(Person(identity=1, pose=Pose(x=0.5, y=0.45, unit=0.33)), 128)
    assert person.skeleton.shape == (18, 3)
    assert np.allclose(person.skeleton[0, :2], person.kps5[2])
    assert np.allclose(person.skeleton[14, :2], person.kps5[0])
    assert person.skeleton[10, 2] == 0  # ankles are below a close-up
    assert person.skeleton[2, 0] < person.skeleton[5, 0]  # the person's right shoulder is on the image's left


def test_full_body_shows_everybody_from_crown_to_ankle() -> None:
    for seed in range(20):
        (person,) = render(_scene("full_body", seed)).people
        assert person.skeleton[:, 2].min() == 1 or person.skeleton[[0, 1, 10, 13], 2].all()
        assert 12 < person.box[3] - person.box[1] < 28


def test_every_trait_changes_the_face() -> None:
    base = Identity.from_seed(0)
    scene = _scene("portrait", 1)
    scene = replace(scene, people=(replace(scene.people[0], pose=Pose(x=0.5, y=0.48, unit=0.33)),))
    pictures = {}
    for seed in range(300):
        who = Identity.from_seed(seed)
        pictures.setdefault((who.glasses, who.beard, who.hair_style), seed)
    seeds = list(pictures.values())[:12]
    images = [render(replace(scene, people=(replace(scene.people[0], identity=s),))).image for s in seeds]
    for i, a in enumerate(images):
        for b in images[i + 1 :]:
            assert np.abs(a.astype(int) - b.astype(int)).mean() > 3
    assert base == Identity.from_seed(0)


def test_all_categories_of_traits_occur() -> None:
    people = [Identity.from_seed(seed).attributes() for seed in range(400)]
    assert {p["glasses"] for p in people} == set(GLASSES)
    assert {p["hair_style"] for p in people} == set(HAIR_STYLES)
    assert {p["beard"] for p in people} == set(BEARDS)
    assert {p["eye_colour"] for p in people} == set(EYE_COLOURS)


def test_captions_use_only_the_vocabulary_and_name_the_clothes() -> None:
    known, seen = set(VOCABULARY), set()
    for seed in range(300):
        scene = _scene(KINDS[seed % len(KINDS)], seed)
        assert set(words(scene.caption)) <= known, scene.caption
        seen |= set(words(scene.caption))
    assert {"red", "shirt", "background", "smiling", "portrait", "four"} <= seen


def test_light_words_change_the_picture() -> None:
    scene = _scene("portrait", 5)
    means = {light: render(replace(scene, light=light)).image.mean((0, 1)) for light in ("neutral", "warm", "evening")}
    assert means["warm"][2] < means["neutral"][2] - 10
    assert means["evening"].mean() < means["neutral"].mean() - 20


def test_size_is_a_parameter_and_scales_the_truth() -> None:
    small, large = (render(_scene("portrait", 2, size)) for size in (128, 256))
    assert large.image.shape == (256, 256, 3)
    assert np.allclose(small.people[0].kps5 * 2, large.people[0].kps5, atol=1e-3)


def test_reference_pictures_show_a_large_face_of_the_person() -> None:
    rendered = reference_crop(200_000, np.random.default_rng(0), 192)
    (person,) = rendered.people
    assert person.identity == 200_000
    assert person.box[3] - person.box[1] > 0.4 * 192


def test_layouts_have_a_slot_per_person_inside_the_picture() -> None:
    found = layouts()
    assert {name: len(slots) for name, slots in found.items()} == {kind: number_of_people(kind) for kind in KINDS}
    for slots in found.values():
        for slot in slots:
            assert slot.kps5.min() > 0
            assert slot.kps5.max() < 1


def test_wrong_kind_or_number_of_people_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown scene kind"):
        random_scene(np.random.default_rng(0), [1], "crowd")
    with pytest.raises(ValueError, match="group_3 shows 3 people, got 1"):
        random_scene(np.random.default_rng(0), [1], "group_3")


def test_the_flat_world_keeps_every_pixel() -> None:
    """The shipped weights were trained on these pictures: a change of the drawing is a change of their data."""
    kept = hashlib.sha256()
    for number, kind in enumerate(KINDS):
        kept.update(render(_scene(kind, number)).image.tobytes())
    assert kept.hexdigest() == FLAT


@pytest.mark.parametrize("kind", KINDS)
def test_a_fine_picture_shows_the_same_people_at_the_same_places(kind: str) -> None:
    flat = _scene(kind, 3, 256)
    plain, fine = render(flat), render(replace(flat, fine=True))
    assert np.array_equal(fine.image, render(replace(flat, fine=True)).image)
    for one, other in zip(plain.people, fine.people, strict=True):
        assert np.array_equal(one.kps5, other.kps5)
        assert np.array_equal(one.mask, other.mask)
    difference = np.abs(plain.image.astype(int) - fine.image).mean()
    assert 2 < difference < 40


def test_fine_hair_and_eyes_hold_more_detail_than_flat_ones() -> None:
    for seed in range(4):
        flat = _scene("portrait", seed, 256)
        (person,) = render(flat).people
        x0, y0, x1, y1 = np.clip(np.round(person.box), 0, 255).astype(int)
        detail = [
            float(np.abs(np.diff(render(scene).image[y0:y1, x0:x1].astype(float), axis=1)).mean())
            for scene in (flat, replace(flat, fine=True))
        ]
        assert detail[1] > 1.05 * detail[0], seed


def test_what_is_drawn_inside_an_outline_changes_nothing_outside() -> None:
    image = np.full((40, 40, 3), 100, np.uint8)
    square = np.array([(10, 10), (30, 10), (30, 30), (10, 30)], np.float32)
    clipped(image, square, lambda target: target.fill(0))
    soft(image, square, (255, 0, 0), strength=0.5, blur=3.0, within=square)
    rim(image, square, (0, 255, 0), towards=(4.0, 0.0), strength=1.0, blur=2.0)
    outside = np.ones((40, 40), bool)
    outside[7:33, 7:33] = False
    assert (image[outside] == 100).all()
    assert not (image[14:26, 14:26] == 100).all()
    beyond = square + np.array((100.0, 0.0), np.float32)
    before = image.copy()
    soft(image, beyond, (255, 0, 0), strength=0.5, blur=3.0)
    clipped(image, beyond, lambda target: target.fill(0))
    assert np.array_equal(image, before)

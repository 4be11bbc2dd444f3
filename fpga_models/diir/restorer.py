"""DIIR on a whole picture: find faces, pair them with people, edit crops, paste what passes the gate.

    result = Restorer(pipeline, FacePack.load(...)).restore(picture, [Reference(embedding=...)], settings=SWAP)

Plug and play [paper]: any picture plus references, whatever made it. Knows no file, queue or database.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fpga_models.core.pipeline import PortraitPipeline, crop_planes, unit_embedding
from fpga_models.diir.crops import Crop, plan_crop, resize, waves
from fpga_models.diir.detection import face_at, find_faces
from fpga_models.diir.edit import CropEdit, edit_crops
from fpga_models.diir.gate import Verdict, judge
from fpga_models.diir.inversions import Inversions
from fpga_models.diir.masks import face_mask, match_colour
from fpga_models.diir.pairing import Reference, by_place, pair, points_of
from fpga_models.diir.picture import Floats, Picture, blend, check_picture, rgb8
from fpga_models.diir.report import NO_FACE, NO_PAIR, DiirResult, FaceReport, as_box
from fpga_models.diir.settings import DiirSettings, Task, settings_of
from fpga_models.diir.wrap import RestoringPipeline
from fpga_models.errors import RequestError
from fpga_models.faces import Face, FacePack

OnStep = Callable[[int, int], None]
SEED_STRIDE = 1_000_003


@dataclass(frozen=True, kw_only=True, eq=False)
class Job:
    """One face to edit: where, who, and with which neighbours."""

    index: int
    face: Face
    others: tuple[Floats, ...]
    reference: int
    embedding: Floats
    sharp: NDArray[np.uint8] | None
    crop: Crop


@dataclass(kw_only=True)
class Progress:
    """Steps done and planned so far; retries add to the plan as they come up."""

    on_step: OnStep | None
    done: int = 0
    planned: int = 0

    def step(self) -> None:
        """Count one step and report it."""
        self.done += 1
        if self.on_step:
            self.on_step(self.done, self.planned)


@dataclass(kw_only=True, eq=False)
class Canvas:
    """The picture as it stands, and where it was painted."""

    picture: Picture
    mask: NDArray[np.float32]
    reports: dict[int, FaceReport] = field(default_factory=dict)


class Restorer:
    """Networks of one pipeline and one face pack, used on any number of pictures."""

    def __init__(self, pipeline: PortraitPipeline, pack: FacePack) -> None:
        self.pipeline = pipeline
        self.pack = pack

    def restore(
        self,
        picture: Picture,
        references: Sequence[Reference],
        *,
        settings: DiirSettings | None = None,
        mapping: Mapping[int, int] | None = None,
        seed: int = 0,
        on_step: OnStep | None = None,
        faces: Sequence[Face] | None = None,
        inversions: Inversions | None = None,
    ) -> DiirResult:
        """Restore, swap or edit the faces of one picture, by the `settings` of that task.

        Args:
            picture: (H, W) or (H, W, C), uint8 or uint16, grey or RGB, with or without alpha; not altered.
            references: the people, with their places where they are known.
            settings: the knobs; None means the preset's for restoring.
            mapping: face index (from left to right, see `faces`) to reference index; else pairing decides.
            seed: of the fresh noise; same seed, same picture.
            on_step: called as (steps done, steps planned so far) after every step; what it raises ends the work, and
                the picture given stays as it was.
            faces: what `faces` found in this very picture before, so that it is not looked for again.
            inversions: paths of its crops from an earlier call, used and added to.

        Raises:
            PictureError, EmbeddingError, PlacementError, RequestError: bad input, before any network runs on it.
        """
        check_picture(picture)
        settings = settings or self.settings("restore")
        people = [self._unit(reference) for reference in references]
        faces = self.faces(picture) if faces is None else list(faces)
        if mapping is None:
            faces += self._missed(picture, faces, people)
        pairs = pair(faces, people, settings, mapping) if faces else {}
        canvas = Canvas(picture=picture.copy(), mask=np.zeros(picture.shape[:2], np.float32))
        for index, face in enumerate(faces):
            canvas.reports[index] = FaceReport(box=as_box(face.box), reference=pairs.get(index), outcome="no_reference")
        jobs = self._jobs(picture, faces, people, pairs, settings)
        progress = Progress(on_step=on_step)
        groups = [
            [jobs[i] for i in part]
            for wave in waves([job.crop for job in jobs])
            for part in _parts(wave, jobs, settings)
        ]
        progress.planned = len(groups) * _passes(settings, settings.t_star)
        for group in groups:
            self._edit_group(canvas, group, settings, seed, progress, inversions)
        return DiirResult(
            image=canvas.picture,
            faces=tuple(canvas.reports[index] for index in range(len(faces))),
            mask=canvas.mask,
            reason=None if jobs else (NO_PAIR if faces else NO_FACE),
        )

    def faces(self, picture: Picture) -> list[Face]:
        """The faces of a picture from left to right: the order that a `mapping` counts in."""
        return find_faces(self.pack, rgb8(picture))

    def settings(self, task: Task) -> DiirSettings:
        """The knobs of a task for this preset."""
        return settings_of(self.pipeline.preset, task)

    def wrap(self, generator: Callable[..., Any], *, settings: DiirSettings | None = None) -> RestoringPipeline:
        """Put this restorer behind any diffusers pipeline: its arguments stay, `references` is added."""
        return RestoringPipeline(generator=generator, restorer=self, settings=settings or self.settings("restore"))

    def check(self, references: Sequence[Reference]) -> None:
        """Refuse references that cannot be used.

        Raises:
            EmbeddingError, PlacementError: by what is wrong with them.
        """
        for reference in references:
            self._unit(reference)

    def _unit(self, reference: Reference) -> Reference:
        width = self.pipeline.network.embedding_dim
        if reference.kps5 is not None:
            points_of(reference)
        if reference.crop is not None:
            crop_planes(reference.crop)
        return replace(reference, embedding=unit_embedding(reference.embedding, width).numpy())

    def _missed(self, picture: Picture, faces: Sequence[Face], people: Sequence[Reference]) -> list[Face]:
        """Faces at known places that the detector did not find, as badly drawn ones may be [ours]."""
        met = set(by_place(faces, people).values())
        wanted = [who for index, who in enumerate(people) if who.kps5 is not None and index not in met]
        return [face_at(self.pack, rgb8(picture), points_of(who)) for who in wanted]

    def _jobs(
        self,
        picture: Picture,
        faces: Sequence[Face],
        people: Sequence[Reference],
        pairs: Mapping[int, int],
        settings: DiirSettings,
    ) -> list[Job]:
        height, width = picture.shape[:2]
        offered = self.pipeline.preset.squares()
        if not offered:
            raise RequestError(f"Preset {self.pipeline.preset.name} offers no square size, which a face crop needs.")
        return [
            Job(
                index=index,
                face=faces[index],
                others=tuple(other.kps5 for j, other in enumerate(faces) if j != index),
                reference=reference,
                embedding=people[reference].embedding,
                sharp=people[reference].crop,
                crop=plan_crop(
                    faces[index].box, width=width, height=height, factor=settings.crop_factor, offered=offered
                ),
            )
            for index, reference in sorted(pairs.items())
        ]

    def _edit_group(
        self,
        canvas: Canvas,
        jobs: Sequence[Job],
        settings: DiirSettings,
        seed: int,
        progress: Progress,
        inversions: Inversions | None,
    ) -> None:
        """Edit crops that do not overlap as one batch; those that the gate refuses are tried again, gentler."""
        for attempt, t_star in enumerate(settings.attempts(), start=1):
            if attempt > 1:
                progress.planned += _passes(settings, t_star)
            edits = [self._crop_edit(canvas, job, settings, seed + SEED_STRIDE * attempt) for job in jobs]
            results = edit_crops(
                self.pipeline, edits, settings, t_star=t_star, on_step=progress.step, inversions=inversions
            )
            refused = []
            for job, edit, result in zip(jobs, edits, results, strict=True):
                weight = self._mask(canvas, job, settings, native=False)
                pasted = _paste(canvas, job.crop, edit, result, weight)
                seen = resize(rgb8(pasted), job.crop.native)
                verdict = judge(self.pack, edit.pixels, seen, edit.kps5, job.embedding, settings)
                canvas.reports[job.index] = _report(job, verdict, t_star, attempt)
                if verdict.refusal is None:
                    canvas.picture[job.crop.window] = pasted
                    canvas.mask[job.crop.window] = np.maximum(canvas.mask[job.crop.window], weight)
                else:
                    refused.append(job)
            if not refused:
                return
            jobs = refused

    def _crop_edit(self, canvas: Canvas, job: Job, settings: DiirSettings, seed: int) -> CropEdit:
        crop = job.crop
        return CropEdit(
            pixels=resize(rgb8(canvas.picture[crop.window]), crop.native),
            kps5=crop.to_native(job.face.kps5),
            mask=self._mask(canvas, job, settings, native=True),
            embedding=job.embedding,
            current=job.face.embedding,
            crop=job.sharp,
            seed=seed + job.index,
        )

    def _mask(self, canvas: Canvas, job: Job, settings: DiirSettings, *, native: bool) -> NDArray[np.float32]:
        height, width = canvas.picture.shape[:2]
        place = job.crop.to_native if native else job.crop.to_side
        return face_mask(
            place(job.face.kps5),
            [place(other) for other in job.others],
            side=job.crop.native if native else job.crop.side,
            inner_edges=job.crop.inner_edges(width, height),
            dilation=settings.dilation if native else settings.paste_dilation,
            feather=settings.feather if native else settings.paste_feather,
        )


def _paste(
    canvas: Canvas, crop: Crop, edit: CropEdit, result: NDArray[np.uint8], weight: NDArray[np.float32]
) -> Picture:
    """The crop's window of the picture with the edited face in it, in the picture's own format."""
    patch = resize(match_colour(result, edit.pixels, edit.mask), crop.side)
    return blend(canvas.picture[crop.window], patch, weight)


def _parts(wave: Sequence[int], jobs: Sequence[Job], settings: DiirSettings) -> Iterator[list[int]]:
    """A wave in batches of one native size."""

    def side(index: int) -> int:
        return jobs[index].crop.native

    for _, members in groupby(sorted(wave, key=side), key=side):
        same = list(members)
        yield from (same[start : start + settings.batch] for start in range(0, len(same), settings.batch))


def _passes(settings: DiirSettings, t_star: float) -> int:
    """Steps of one try of one batch."""
    return settings.steps_at(t_star) * (2 if settings.inversion else 1)


def _report(job: Job, verdict: Verdict, t_star: float, attempt: int) -> FaceReport:
    return FaceReport(
        box=as_box(job.face.box),
        reference=job.reference,
        outcome=verdict.refusal or "changed",
        before=verdict.before,
        after=verdict.after,
        landmark_shift=verdict.landmark_shift,
        t_star=t_star,
        attempts=attempt,
        crop=job.crop,
    )

"""Photos of archives: what a restoration or a swap may be asked for, what is known of a photo, what its stages said."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field, JsonValue, SerializerFunctionWrapHandler, model_serializer

from orchestrator.contracts.base import Asked, Contract, JsonObject, Line, StageResult, StoredRef
from orchestrator.contracts.batches import BatchOptions
from orchestrator.contracts.portraits import Verdict

MOST_CANDIDATES = 8
MOST_RULES = 20_000
Task = Literal["restore", "swap"]
Pairs = Literal["zip", "product"]
Fidelity = Annotated[
    float, Field(ge=0, le=1, description="0 trusts the references, 1 the photo; 0.5 is what was measured best.")
]
MinFace = Annotated[int, Field(ge=0, le=10_000, description="Faces with a shorter side in px stay as they are.")]
Good = Annotated[
    float, Field(ge=-1, le=2, description="Faces at least so like their person (cosine) stay as they are.")
]
Candidates = Annotated[
    int, Field(ge=1, le=MOST_CANDIDATES, description="Versions of each photo; the best is the result.")
]


class Rule(Asked):
    """In photos that match, one face becomes `to`: that of `face`, else the one like `from`, else the largest."""

    to: str
    photo: str = "*"
    face: Annotated[int, Field(ge=0, lt=1000)] | None = None
    """Counted from the left from 0."""
    of: Annotated[str | None, Field(alias="from")] = None


class RestoreOptions(Asked):
    """What people may ask of a restoration or a swap: one list for command line, HTTP, pages and schedules.

    Attributes:
        fidelity: see `fpga_models.diir.dial`.
        good: None tries every face.
        candidates: the best becomes the result, the others are kept beside it.
        only: people of the library (handle or id) to restore; empty for everybody who allows it.
        unknown: `cluster` finds unknown people by their faces and takes their best ones as references, `keep` leaves
            them as they are, None clusters where no known person can be restored.
        attested: the owner's statement that unknown people may be restored; needed for `cluster`.
        rules: of a swap by a map.
        to, of, pairs: of a swap without one: who comes in, whose face goes (None: the largest), and how people and
            photos meet.
        force: make everything anew, even what was made before.
        mirror: whether files that are no photos, and photos that are refused, are copied into the tree as they are.
    """

    task: Task = "restore"
    fidelity: Fidelity = 0.5
    min_face: MinFace = 0
    good: Good | None = None
    candidates: Candidates = 1
    format: Annotated[Literal["same", "png"], Field(description="same as the source, or png.")] = "same"
    gps: Annotated[Literal["keep", "strip"], Field(description="keep or strip recorded positions.")] = "keep"
    only: Annotated[tuple[Line, ...], Field(max_length=1000)] = ()
    everyone: Annotated[Line | None, Field(description="Every photo shows this person of the library.")] = None
    unknown: Annotated[
        Literal["cluster", "keep"] | None,
        Field(description="cluster: restore unknown people by their best faces here; keep: leave them."),
    ] = None
    attested: Annotated[str | None, Field(max_length=2000)] = None
    rules: Annotated[tuple[Rule, ...], Field(max_length=MOST_RULES)] = ()
    to: Annotated[tuple[Line, ...], Field(max_length=1000)] = ()
    of: Line | None = None
    pairs: Annotated[
        Pairs, Field(description="product: every photo with every person; zip: the first with the first, and so on.")
    ] = "product"
    force: Annotated[bool, Field(description="Make anew what was made before.")] = False
    mirror: Annotated[bool, Field(description="Copy films, side files and refused photos into the tree too.")] = False
    names: Annotated[
        str, Field(max_length=40, description="Code page of names in an old zip, such as cp866 or shift_jis.")
    ] = "cp437"


class RedoOptions(Asked):
    """Other settings for one photo; what is left out stays as it was."""

    fidelity: Fidelity | None = None
    candidates: Candidates | None = None
    good: Good | None = None
    min_face: MinFace | None = None
    seed: Annotated[int | None, Field(ge=0, lt=2**63, description="Other noise.")] = None
    force: Annotated[bool, Field(description="Make anew what was made before.")] = False


class Attestation(Contract):
    """The owner's statement about people who are not in the library, as the batch keeps it."""

    by: str
    text: str
    text_sha256: str
    means: str


class SwapPlan(Contract):
    """Who becomes whom in an archive: people as ids, with the handles that name the files."""

    rules: tuple[Rule, ...] = ()
    to: tuple[tuple[str, str], ...] = ()
    """(identity id, handle)."""
    of: Annotated[str | None, Field(alias="from")] = None
    pairs: Pairs = "product"


class PhotoOptions(BatchOptions):
    """A restoration or swap as its batch keeps it: checked, people as ids, and where photos come from and go to."""

    task: Task = "restore"
    fidelity: float = 0.5
    min_face: int = 0
    good: float | None = None
    candidates: int = 1
    format: Literal["same", "png"] = "same"
    gps: Literal["keep", "strip"] = "keep"
    force: bool = False
    mirror: bool = False
    names: str = "cp437"
    everyone: bool = False
    """One person stands in every photo: the first of `identities`."""
    attestation: Attestation | None = None
    cluster: bool = False
    identities: tuple[str, ...] = ()
    swap: SwapPlan | None = None
    source: str | None = None
    out: str | None = None
    operator: bool = False
    """Whether whoever runs this installation asked, on its own machine; only they may name its folders."""
    redo_of: str | None = None
    scan: bool = False
    """Whether faces are found and grouped, and nothing else is done."""
    read: JsonObject | None = None
    """How many photos the source held, and what was passed over, once it was read to its end."""

    def gathers(self) -> bool:
        """Whether the people of this archive are found by their faces, in this batch."""
        return self.cluster and self.people_of is None


class Original(StoredRef):
    """The source file of a photo."""

    size: int = 0


class SwapRule(Contract):
    """Whose face comes in for one photo."""

    to: str
    face: int | None = None
    of: Annotated[str | None, Field(alias="from")] = None


class WhyUnchanged(Contract):
    """Why a photo comes back as it was."""

    code: str
    message: str


class Ingested(StageResult):
    """Result of `ingest_photo`: the photo as the networks see it; `facts` is small JSON on the file."""

    width: int
    height: int
    pixels_sha256: str
    phash: str
    facts: dict[str, JsonValue] = Field(default_factory=dict)
    notes: tuple[str, ...] = ()
    faces_key: str
    """Under which the faces are kept."""
    faces: int
    reused_from: str | None = None
    """The item that had looked at the same picture before."""

    def stays(self) -> WhyUnchanged | None:
        """Return why this photo cannot be written with a change, or None where it can."""
        found = self.facts.get("stays")
        return WhyUnchanged.model_validate(found) if found else None


class PhotoParams(Contract):
    """One photo of an archive: its path in the tree, its original, and what is to be made of it."""

    path: str
    source_path: str | None = None
    modified: datetime | None = None
    media_type: str | None = None
    notes: tuple[str, ...] = ()
    original: Original | None = None
    """None where the file could not be read."""
    swap: tuple[SwapRule, ...] = ()
    ingested: Ingested | None = None
    """Of a photo that is done again: what the batch before had found."""


class Clustered(StageResult):
    """Result of `cluster`: people found, faces seen, faces fit to tell people by."""

    people: int
    faces: int
    fit: int


class KeptFace(Contract):
    """A face of a photo as it is kept: px of the upright photo; its embedding is sealed beside it."""

    box: tuple[float, float, float, float]
    kps5: tuple[tuple[float, float], ...]
    score: float
    sharpness: float = 0.0
    domain: float | None = None
    """Score of the guard: drawn below, photographed above; None where it was looked at before there was one."""


class KeptFaces(Contract):
    """What is kept of looking at a picture once, from left to right."""

    encoder: str = ""
    faces: tuple[KeptFace, ...] = ()


class SeenFace(KeptFace):
    """A face that a scan found; beside what is kept of any, what is poor about it."""

    blurred: bool = False
    dark: bool = False
    small: bool = False
    turned: bool = False
    inside: bool = True
    """Whether it is of the kind that the preset was made for; others belong to nobody."""
    alone: bool = True
    """Whether its kept picture shows no other face."""

    @property
    def side(self) -> float:
        """Shorter side of its box, px."""
        return min(self.box[2] - self.box[0], self.box[3] - self.box[1])

    @property
    def faults(self) -> tuple[str, ...]:
        """What is poor about it, in words."""
        said = {"small": self.small, "blurred": self.blurred, "dark": self.dark, "turned away": self.turned}
        return tuple(word for word, applies in said.items() if applies)


class Grouped(StageResult):
    """Result of `group_faces`: faces that were looked at, those that went to people there were, people that are new."""

    faces: int
    joined: int
    people: int


class PersonRef(Contract):
    """Whom a face was taken for: somebody of the library, or the nth person found in this archive."""

    identity: str | None = None
    archive_person: int | None = None
    references: str

    @model_serializer(mode="wrap")
    def _one_of_both(self, dump: SerializerFunctionWrapHandler) -> JsonObject:
        return {name: value for name, value in dump(self).items() if value is not None}


class FaceReport(Contract):
    """What happened to one face of a photo; cosines to its person before and after."""

    box: tuple[float, ...]
    kps5: tuple[tuple[float, ...], ...]
    person: PersonRef | None = None
    outcome: str
    reason: str
    before: float | None = None
    t_star: float | None = None
    attempts: int = 0
    after: float | None = None
    verdict: Verdict | None = None


class KeptReports(Contract):
    """What is kept of editing a photo's faces once."""

    faces: tuple[FaceReport, ...] = ()


class Candidate(KeptReports):
    """One version of a photo: its faces, and the pieces that were changed (None where nothing was)."""

    seed: int
    patches: StoredRef | None = None
    key: str | None = None
    reused_from: str | None = None


class Restored(StageResult):
    """Result of `restore`; `preview` is a small JPEG of the first version, to be looked at before it is scored."""

    settings: JsonObject
    candidates: tuple[Candidate, ...]
    reused_from: dict[str, str | None] = Field(default_factory=dict)
    inversions: dict[str, int] = Field(default_factory=dict)
    seconds: float = 0.0
    preview: StoredRef | None = None


class JudgedPhoto(KeptReports):
    """The verdict on one version; `similarity` is that of the least similar face that was tried."""

    verdict: Verdict
    reason: WhyUnchanged | None = None
    similarity: float | None = None


class Previews(Contract):
    """Small JPEGs for sheets and pages."""

    before: StoredRef
    after: StoredRef


class ScoredPhoto(StageResult):
    """Result of `score_photo`; `chosen` counts the candidates."""

    candidates: tuple[JudgedPhoto, ...]
    chosen: int
    previews: Previews
    judge: str = ""
    """Which recogniser the verdict stands on, in words; empty in what was judged before it was said."""


class Published(StageResult):
    """Result of `publish_photo`: how far pixels differ where nothing was changed, and what was added to the name."""

    outside: dict[str, float] = Field(default_factory=dict)
    suffix: str = ""

"""A base of one's own as a preset: a diffusers folder, a checkpoint of one file, or either from a hub, with LoRAs.

Only the base is new. Identity adapter, ControlNet and face pack, and with them sizes and knobs, are those of a preset
that is installed already and whose base is of the same class. Nothing is opened here: `fpga_models.core.convert` looks
at every part in a process of its own and refuses what does not fit.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from orchestrator.errors import ConflictError, ModelError, NotFoundError, UsageError
from orchestrator.models import hub
from orchestrator.models.pull import (
    CONVERT,
    PICKLES,
    PinnedFile,
    Source,
    fetch,
    file_sha256,
    place,
    run,
    write_index,
)
from orchestrator.planning.presets import preset_names

NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
REMOTE = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(?:/(?P<file>[\w./-]+))?")
WEIGHT = re.compile(
    r"(?P<stem>diffusion_pytorch_model|model)(?:\.(?P<early>\w+))?(?P<shard>-\d{5}-of-\d{5})?(?:\.(?P<late>\w+))?"
    r"\.safetensors(?P<index>\.index(?:\.(?P<last>\w+))?\.json)?"
)
NETWORKS = ("unet", "vae", "text_encoder", "text_encoder_2")
WORDS = ("vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json", "tokenizer.json")
KEPT = ("id_adapter.safetensors", "hint.safetensors", "controlnet", "faces", "lora")
"""What comes from the preset that the new one is like."""
VARIANTS = ("fp16", "", "bf16")
"""Of several files of the same weights the first of these is taken: networks run in 16 bit wherever that is sound."""
SAMPLER_NAMES = ("ddim", "euler", "dpm++2m", "lcm")
SAMPLERS = {"LCMScheduler": "lcm"}
"""Schedulers of a base that say how it must be drawn with."""
REFUSED_PARTS = {
    "transformer": "a transformer base",
    "prior": "a base of two stages",
    "decoder": "a base of two stages",
}


@dataclass(frozen=True, kw_only=True)
class Part:
    """Where something is: here, or in a repository at a commit; `paths` are files below it by where they go."""

    said: str
    here: Path | None
    repo: str
    revision: str
    licence: str
    paths: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Lora:
    """A LoRA as it was asked for."""

    source: str
    weight: float


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a preset of one's own is made of.

    Attributes:
        name: of the new preset.
        source: a folder, a .safetensors file, `owner/name` on the hub, or `owner/name/file.safetensors` there.
        revision: branch, tag or commit of a hub's source.
        like: the installed preset that lends adapter, control, faces and knobs; None takes `sdxl` or `sd15` by class.
        loras: folded into the base, in this order.
        licence: of base and LoRAs, where the hub states none.
        commercial: whether that licence allows commercial use.
        sampler, steps, guidance: how the base is drawn with, where that is not as in `like`.
    """

    name: str
    source: str
    revision: str = "main"
    like: str | None = None
    loras: tuple[Lora, ...] = ()
    licence: str | None = None
    commercial: bool = False
    sampler: str | None = None
    steps: int | None = None
    guidance: float | None = None


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What was found before anything large was read: the licences are to be accepted now."""

    asked: Asked
    base: Part
    loras: tuple[tuple[Part, float], ...]
    single: bool
    like: Path

    @property
    def parts(self) -> tuple[Part, ...]:
        """The base, then the LoRAs."""
        return (self.base, *(part for part, _ in self.loras))


def read_lora(text: str) -> Lora:
    """Read FILE or FILE=WEIGHT.

    Raises:
        UsageError: the weight is no number.
    """
    source, equals, weight = text.partition("=")
    try:
        return Lora(source=source, weight=float(weight) if equals else 1.0)
    except ValueError as error:
        raise UsageError(f"--lora {text}: a number was wanted after =", code="bad_lora") from error


def look(asked: Asked, models_dir: Path) -> Plan:
    """Find everything that is asked for and refuse, by names and headers alone, what cannot become a preset.

    Raises:
        UsageError: a name, source or sampler that is none, or no licence.
        ConflictError: there is a preset of that name.
        NotFoundError: the source, or the preset that it is to be like, is not there.
        ModelError: it is of another kind, has pickles only, or is cut.
        TransientError: the hub cannot be reached.
    """
    if not NAME.fullmatch(asked.name):
        raise UsageError(f"{asked.name!r} is no name of a preset: lower case letters, digits, - and _", code="bad_name")
    if asked.sampler not in (None, *SAMPLER_NAMES):
        raise UsageError(f"sampler {asked.sampler!r}: one of {', '.join(SAMPLER_NAMES)} wanted", code="bad_sampler")
    if (models_dir / asked.name).exists():
        raise ConflictError(f"there is a preset {asked.name!r} already", code="preset_installed")
    single = asked.source.endswith((".safetensors", *PICKLES))
    base = _find(asked.source, asked, single)
    if single and base.here:
        large = any(name.startswith("conditioner.embedders.1.") for name in _tensor_names(base.here))
    else:
        large = "text_encoder_2/config.json" in base.paths or ("xl" in asked.source.lower() and single)
    like = asked.like or ("sdxl" if large else "sd15")
    if like not in preset_names(models_dir) or not (models_dir / like / "unet").is_dir():
        raise NotFoundError(
            f"identity adapter, control and faces are to come from preset {like!r}, which is not here: "
            f"`fpga model pull {like}` first, or name another by --like",
            code="unknown_preset",
        )
    if not single and large != (models_dir / like / "text_encoder_2").is_dir():
        raise ModelError(
            f"{asked.source} has {'two text encoders' if large else 'one text encoder'} and {like} has not: name a "
            "preset of the same class by --like",
            code="another_class",
        )
    loras = tuple((_find(lora.source, asked, True), lora.weight) for lora in asked.loras)
    for part in (base, *(part for part, _ in loras)):
        if not part.licence:
            raise UsageError(f"under which licence {part.said} is must be said: --licence", code="licence_missing")
    return Plan(asked=asked, base=base, loras=loras, single=single, like=models_dir / like)


def add(plan: Plan, models_dir: Path, report: hub.Report) -> dict[str, Any]:
    """Make the preset's folder and put it in place when it is whole, sealed and seen to fit; returns how it was made.

    Raises:
        ModelError: a part is damaged, of another kind, or was made for another base.
        TransientError: the hub cannot be reached; what came whole stays for the next try.
    """
    asked, partial = plan.asked, models_dir / ".partial" / plan.asked.name
    built = partial / "folder"
    shutil.rmtree(built, ignore_errors=True)
    built.mkdir(parents=True)
    _keep(plan.like, built)
    if plan.single:
        files = _bring(plan.base, partial / "files", partial / "single", asked.commercial, report)
        _take_apart(plan, partial)
    else:
        small, large = (
            {to: path for to, path in plan.base.paths.items() if to.endswith(".safetensors") == heavy}
            for heavy in (False, True)
        )
        files = _bring(plan.base, partial / "files", built, asked.commercial, report, small)
        run(CONVERT, "configs", str(built))
        files += _bring(plan.base, partial / "files", built, asked.commercial, report, large)
    made = [_made(plan.base, files)]
    loras = []
    for number, (part, weight) in enumerate(plan.loras, start=1):
        to = f"lora/{number}-{PurePosixPath(part.said).name}"
        came = _bring(part, partial / "files", built, asked.commercial, report, {to: next(iter(part.paths.values()))})
        made.append(_made(part, came))
        loras.append({"file": to, "weight": weight})
    facts = _facts(plan, built, loras)
    listed = [argument for lora in facts["loras"] for argument in ("--lora", f"{lora['file']}={lora['weight']}")]
    (built / "preset.json").write_text(json.dumps(facts, indent=1) + "\n")
    write_index(built)
    command = {"command": f"fpga model add {asked.name}", "licence": facts["licence"], "like": plan.like.name}
    (partial / "made.json").write_text(json.dumps(command | {"sources": made}))
    run(CONVERT, "seal", str(built), "--made", str(partial / "made.json"), "--networks", *listed)
    built.replace(models_dir / asked.name)
    shutil.rmtree(partial, ignore_errors=True)
    return command | {"sources": made}


def _find(source: str, asked: Asked, single: bool) -> Part:
    """Say where a source is and which of its files are wanted."""
    if source.endswith(PICKLES):
        raise ModelError(
            f"{source} is a pickle, which could run code: never opened; let its author or diffusers save it as "
            ".safetensors",
            code="pickle_refused",
        )
    here = Path(source).expanduser()
    if here.exists():
        if single != here.is_file():
            raise UsageError(f"{source}: a {'.safetensors file' if single else 'folder'} was wanted", code="bad_source")
        if single:
            _tensor_names(here)
            return Part(said=here.name, here=here, repo="", revision="", licence=asked.licence or "",
                        paths={here.name: here.name})  # fmt: skip
        below = [path.relative_to(here).as_posix() for path in here.rglob("*") if path.is_file()]
        return Part(
            said=here.name, here=here, repo="", revision="", licence=asked.licence or "", paths=chosen(here.name, below)
        )
    remote = REMOTE.fullmatch(source)
    if remote is None or bool(remote["file"]) != single or source.startswith((".", "~")):
        raise NotFoundError(
            f"{source} is not here, and is no owner/name or owner/name/file.safetensors of a hub", code="no_source"
        )
    found = hub.listing(remote["repo"], asked.revision)
    if single and remote["file"] not in found.paths:
        raise NotFoundError(f"{remote['repo']} has no {remote['file']}", code="not_on_the_hub")
    paths = {PurePosixPath(source).name: remote["file"]} if single else chosen(source, found.paths)
    return Part(
        said=source, here=None, repo=remote["repo"], revision=found.revision, paths=paths,
        licence=found.licence or asked.licence or "",
    )  # fmt: skip


def chosen(name: str, paths: Iterable[str]) -> dict[str, str]:
    """Choose, of the files below a base in diffusers' layout, those that a preset reads; by where they go.

    Raises:
        ModelError: `another_kind` (by the folders that it has), `pickles_only`, `incomplete`.
    """
    there = sorted(paths)
    folders = {path.split("/", 1)[0] for path in there if "/" in path}
    for part, kind in REFUSED_PARTS.items():
        if part in folders:
            raise ModelError(
                f"{name} is {kind} ({part}/); a UNet of the SD 1.5 or SDXL class was wanted", code="another_kind"
            )
    if "unet/config.json" not in there:
        files = [path for path in there if path.endswith(".safetensors") and "/" not in path]
        hint = f"; name one of its files, such as {name}/{files[0]}" if files else ""
        raise ModelError(
            f"{name} has no unet/config.json: a base in diffusers' layout was wanted{hint}", code="another_kind"
        )
    wanted = {"unet/config.json", "vae/config.json", "text_encoder/config.json", "scheduler/scheduler_config.json"}
    if missing := sorted(wanted - set(there)):
        raise ModelError(f"{name} has no {missing[0]}", code="incomplete")
    found = {path: path for path in there if path in wanted or path == "text_encoder_2/config.json"}
    for part in ("tokenizer", *(["tokenizer_2"] if "text_encoder_2/config.json" in found else [])):
        words = [f"{part}/{word}" for word in WORDS if f"{part}/{word}" in there]
        if not words:
            raise ModelError(f"{name} has no {part}/", code="incomplete")
        found |= {path: path for path in words}
    for part in NETWORKS:
        if f"{part}/config.json" in found:
            found |= _weights(name, part, [path for path in there if path.startswith(f"{part}/")])
    return found


def _weights(name: str, part: str, paths: Sequence[str]) -> dict[str, str]:
    """The files of one network's weights: whole or in shards, of the first variant that there is."""
    by_variant: dict[str, dict[str, str]] = {}
    for path in paths:
        if (read := WEIGHT.fullmatch(path.removeprefix(f"{part}/"))) is None:
            continue
        variant = read["early"] or read["late"] or read["last"] or ""
        to = f"{part}/{read['stem']}{read['shard'] or ''}.safetensors{'.index.json' if read['index'] else ''}"
        by_variant.setdefault(variant, {})[to] = path
    for variant in VARIANTS:
        if files := by_variant.get(variant):
            whole = {to: path for to, path in files.items() if "-of-" not in to and to.endswith(".safetensors")}
            return whole or files
    pickles = [path for path in paths if path.endswith(PICKLES)]
    if pickles:
        raise ModelError(
            f"{name} has {pickles[0]} only: pickles are never opened; let diffusers save it as safetensors "
            "(`save_pretrained` does)",
            code="pickles_only",
        )
    raise ModelError(f"{name} has no weights in {part}/, {', '.join(paths)} only", code="incomplete")


def _tensor_names(path: Path) -> list[str]:
    """Names of the tensors of a safetensors file, by its header, after its length was found right.

    Raises:
        ModelError: it is something else, or cut.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        try:
            header = json.loads(file.read(length)) if length <= size - 8 else None
        except ValueError:
            header = None
    if not isinstance(header, dict):
        raise ModelError(f"{path.name} is no safetensors file, or its beginning is damaged", code="weights_invalid")
    entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
    wanted = 8 + length + max((entry["data_offsets"][1] for entry in entries.values()), default=0)
    if size != wanted:
        raise ModelError(f"{path.name} is cut: {size} bytes of {wanted} are here", code="weights_invalid")
    return list(entries)


def _keep(like: Path, built: Path) -> None:
    """Link what the other preset lends."""
    for path in sorted(like.rglob("*")):
        below = path.relative_to(like)
        if path.is_file() and below.parts[0] in KEPT:
            _link(path, built / below)


def _link(path: Path, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    try:
        to.hardlink_to(path.resolve())
    except OSError:  # another file system, or one without links
        shutil.copyfile(path, to)


def _take_apart(plan: Plan, partial: Path) -> None:
    """Let a checkpoint of one file become a folder, by the small files of the preset that it is to be like."""
    shutil.rmtree(partial / "like", ignore_errors=True)
    for path in plan.like.glob("*/*"):
        if path.suffix in (".json", ".txt"):
            _link(path, partial / "like" / path.relative_to(plan.like))
    write_index(partial / "like")
    (partial / "like").rename(named := partial / plan.like.name)
    checkpoint = partial / "single" / next(iter(plan.base.paths))
    run(CONVERT, "single", str(checkpoint), str(partial / "folder"), "--like", str(named))
    shutil.rmtree(named)
    shutil.rmtree(partial / "single")


def _bring(
    part: Part, cache: Path, folder: Path, commercial: bool, report: hub.Report, paths: Mapping[str, str] | None = None
) -> list[dict[str, Any]]:
    """Put files of a part where they go, copied or fetched; returns their names and hashes."""
    chosen_paths = part.paths if paths is None else paths
    if part.here is None:
        files = tuple(PinnedFile(path=path, to=to, sha256=None) for to, path in chosen_paths.items())
        source = Source(
            component=part.said, repo=part.repo, revision=part.revision, licence=part.licence,
            licence_url=f"https://huggingface.co/{part.repo}", commercial=commercial, files=files,
        )  # fmt: skip
        came = [fetch(source, file, cache, report) for file in files]
        for one in came:
            place(one, folder / one.file.to)
        brought = [(one.file.path, one.file.to) for one in came]
    else:
        for to, path in chosen_paths.items():
            (folder / to).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(part.here / path if part.here.is_dir() else part.here, folder / to)
        brought = [(path, to) for to, path in chosen_paths.items()]
    made = [{"path": path, "to": to, "sha256": file_sha256(folder / to)} for path, to in brought]
    for _, to in brought:
        if to.endswith(".index.json"):
            _rename_shards(folder / to)
    return made


def _rename_shards(index: Path) -> None:
    """Let an index of shards name them as they are called here."""
    facts = json.loads(index.read_text())
    named = {}
    for key, file in facts["weight_map"].items():
        read = WEIGHT.fullmatch(file)
        named[key] = f"{read['stem']}{read['shard'] or ''}.safetensors" if read else file
    index.unlink()  # it may be a link to the file that was fetched
    index.write_text(json.dumps(facts | {"weight_map": named}))


def _made(part: Part, files: list[dict[str, Any]]) -> dict[str, Any]:
    return {"repo": part.repo or part.said, "revision": part.revision, "licence": part.licence, "files": files}


def _facts(plan: Plan, built: Path, loras: list[dict[str, Any]]) -> dict[str, Any]:
    """What `preset.json` says: as the other preset, but for the base, its licence and how it is drawn with."""
    asked = plan.asked
    facts: dict[str, Any] = json.loads((plan.like / "preset.json").read_text())
    lent = [one for one in facts["components"] if PurePosixPath(one["file"]).parts[0] in KEPT]
    licences = {lora["file"]: part.licence for lora, (part, _) in zip(loras, plan.loras, strict=True)}
    own = [
        {
            "name": f"generator of {plan.base.said}" if path.parts[0] in NETWORKS else f"LoRA {path.name}",
            "file": path.as_posix(),
            "licence": licences.get(path.as_posix(), plan.base.licence),
            "commercial": asked.commercial,
            "sha256": file_sha256(built / path),
        }
        for path in _own_weights(built, {one["file"] for one in lent})
    ]
    scheduler = json.loads((built / "scheduler" / "scheduler_config.json").read_text())
    sampler = asked.sampler or SAMPLERS.get(scheduler.get("_class_name", ""))
    chosen_defaults = {"steps": asked.steps, "guidance": asked.guidance}
    return facts | {
        "name": asked.name,
        "title": f"{plan.base.said}, otherwise as {plan.like.name}",
        "licence": "; ".join(dict.fromkeys(one["licence"] for one in [*own, *lent])),
        "components": [*own, *lent],
        "defaults": facts["defaults"] | {name: value for name, value in chosen_defaults.items() if value is not None},
        "sampler": {"name": sampler} if sampler else facts.get("sampler", {"name": "ddim"}),
        "loras": [*facts.get("loras", []), *loras],
    }


def _own_weights(built: Path, lent: set[str]) -> Iterator[PurePosixPath]:
    for path in sorted(built.glob("*/*.safetensors")):
        below = PurePosixPath(path.relative_to(built).as_posix())
        if below.as_posix() not in lent and below.parts[0] in (*NETWORKS, "lora"):
            yield below

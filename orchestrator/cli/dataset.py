"""`fpga dataset`: build data sets for training, see what is in them, compare and export them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from orchestrator.cli.common import (
    JsonOption,
    Services,
    WaitOption,
    moment,
    print_facts,
    print_json,
    print_table,
    say,
    screen,
    services,
    words,
)

if TYPE_CHECKING:
    from orchestrator.datasets.datasets import Build, Progress

app = typer.Typer(name="dataset", help="Data sets for training: build, show, compare, export.", no_args_is_help=True)
Wanted = Annotated[str, typer.Argument(help="Id of a version, NAME for its newest, or NAME@NUMBER.")]


@app.command()
def build(
    source: Annotated[str, typer.Argument(help="Folder, zip, tar, s3://bucket/prefix, or render:SEED:COUNT.")],
    name: Annotated[str, typer.Option(help="Versions of one name follow each other.")],
    preset: Annotated[str | None, typer.Option(help="Preset it is made for; its networks look at the faces.")] = None,
    people: Annotated[
        Literal["metadata", "folder", "faces"],
        typer.Option(help="Who is who: said beside the picture, by folder, or found by face."),
    ] = "metadata",
    metadata: Annotated[
        Path | None, typer.Option(help="metadata.jsonl or .csv with file_name, caption, person.")
    ] = None,
    attest: Annotated[
        str | None, typer.Option(help="Who answers for people who are not in the library, and how.")
    ] = None,
    licence: Annotated[str, typer.Option(help="Licence of the pictures.")] = "unspecified",
    split: Annotated[float, typer.Option(min=0.01, max=1.0, help="Share of the people to train on.")] = 0.9,
    seed: Annotated[int, typer.Option(help="Of the split.")] = 0,
    min_pictures: Annotated[int, typer.Option(min=1, help="People with fewer are left out.")] = 2,
    min_quality: Annotated[float, typer.Option(min=0.0, max=1.0, help="Faces below leave their picture out.")] = 0.0,
    same_person: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Cosine above which faces are one person.")
    ] = 0.75,
    near_duplicates: Annotated[bool, typer.Option(help="Count pictures that look alike as one.")] = True,
    chunk_pictures: Annotated[int, typer.Option(min=1, help="Pictures in a shard, on average.")] = 256,
    wait: WaitOption = False,
    as_json: JsonOption = False,
) -> None:
    """Build a version; the same build again answers at once, a similar one does only what is new."""
    from orchestrator.datasets import datasets

    with services() as s:
        request = datasets.BuildRequest(
            source=source if source.startswith(("s3:", "render:")) else str(Path(source).absolute()),
            name=name,
            preset=preset or s.settings.preset,
            licence=licence,
            people=people,
            metadata=metadata,
            attestation=attest,
            captioner=s.settings.captioner,
            chunk_pictures=chunk_pictures,
            arrange={
                "split": split,
                "seed": seed,
                "min_pictures": min_pictures,
                "min_quality": min_quality,
                "same_person": same_person,
                "near_duplicates": near_duplicates,
            },
        )
        with screen().status("reading the source") as status:
            begun = datasets.build(
                s.ledger,
                s.store,
                s.settings,
                request,
                owner=s.owner,
                operator=True,
                tick=lambda count: status.update(f"reading the source: {count} pictures"),
            )
        if wait:
            _wait(s, begun, as_json=as_json)
            return
    said = {"object": "dataset.build", "batch_id": begun.batch_id, "repeated": begun.repeated}
    said |= {"pictures": begun.pictures, "chunks": begun.chunks, "reused": begun.reused}
    if as_json:
        print_json(said)
    else:
        say(f"{begun.pictures} pictures in {begun.chunks} chunks, {begun.reused} of them known already")
        say(f"watch it with: fpga batch watch {begun.batch_id}")
        typer.echo(begun.batch_id)


def _wait(s: Services, begun: Build, *, as_json: bool) -> None:
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    from orchestrator.datasets import dataset_views, datasets

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Bars(*columns, console=screen()) as bars:
        task = bars.add_task("annotate", total=None)

        told: list[str | None] = [None]

        def tick(found: Progress) -> None:
            if found.paused and found.paused != told[-1]:
                bars.console.print(found.paused, markup=False)
            told.append(found.paused)
            bars.update(task, description=found.phase, completed=found.done, total=max(found.total, 1))

        version_id = datasets.wait(s.ledger, s.owner, begun.batch_id, tick=tick)
    version = dataset_views.show(s.ledger, s.owner, version_id)
    if as_json:
        print_json({**version, "reused_chunks": begun.reused, "chunks": begun.chunks})
        return
    say(f"{begun.reused} of {begun.chunks} chunks were known already")
    _print(version)


@app.command("list")
def list_(
    name: Annotated[str | None, typer.Argument(help="Only versions of this name.")] = None, as_json: JsonOption = False
) -> None:
    """List the versions, newest first within a name."""
    from orchestrator.datasets import dataset_views

    with services() as s:
        versions = dataset_views.list_versions(s.ledger, s.owner, name)
    if as_json:
        print_json(versions)
        return
    print_table(
        ["id", "name", "pictures", "people", "preset", "licence", "content", "created", ""],
        [
            (
                v["id"],
                f"{v['name']}@{v['number']}",
                words(v["pictures"]),
                words(v["people"]),
                v["preset"],
                v["licence"],
                v["content_sha256"][:12],
                moment(v["created_at"]),
                "tainted" if v["tainted_at"] else "",
            )
            for v in versions
        ],
    )


@app.command()
def show(wanted: Wanted, as_json: JsonOption = False) -> None:
    """Show a version: counts by side and face size, what was left out and why, who of the library is in it."""
    from orchestrator.datasets import dataset_views

    with services() as s:
        version = dataset_views.show(s.ledger, s.owner, wanted)
    if as_json:
        print_json(version)
    else:
        _print(version)


def _print(version: dict[str, Any]) -> None:
    facts = version["facts"]
    print_facts(
        {
            "id": version["id"],
            "name": f"{version['name']}@{version['number']}",
            "content": version["content_sha256"],
            "preset": version["preset"],
            "source": version["source"],
            "licence": version["licence"],
            "attested": version["attestation"],
            "pictures": facts.get("pictures"),
            "refused": words(facts.get("refused", {})),
            "left out": words(facts.get("left_out", {})),
            "shards": len(version["shards"]),
            "tainted": moment(version["tainted_at"]),
            "created": moment(version["created_at"]),
            "recipe": facts.get("recipe"),
        }
    )
    print_table(
        ["side", "pictures", "views", "people", "faces", "faces by size in % of the picture"],
        [
            (side, part["pictures"], part["views"], part["people"], part["faces"], words(part["strata"]))
            for side, part in facts.get("splits", {}).items()
        ],
    )
    for person in version["identities"]:
        say(f"{person['id']}: {person['pictures']} pictures")


@app.command()
def diff(
    one: Wanted,
    other: Annotated[str, typer.Argument(help="The version to compare with.")],
    as_json: JsonOption = False,
) -> None:
    """Say what the second version has that the first has not, and the other way round."""
    from orchestrator.datasets import dataset_views

    with services() as s:
        found = dataset_views.diff(s.ledger, s.store, s.owner, one, other)
    if as_json:
        print_json(found)
        return
    if found["same_content"]:
        say("the two have the same content")
    for noun in ("pictures", "people"):
        counts = {name: value["count"] for name, value in found[noun].items() if name != "same"}
        print_facts({noun: words(counts) or "no difference"})
    print_facts(
        {"shards shared": found["shards"]["shared"], **{n: f"{a} -> {b}" for n, (a, b) in found["settings"].items()}}
    )


@app.command()
def export(
    wanted: Wanted,
    folder: Annotated[Path, typer.Argument(help="New folder to write.")],
    raw: Annotated[bool, typer.Option(help="The shards as stored, for the training command.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Write WebDataset shards of each side, the parquet index, and version.json."""
    from orchestrator.datasets.export_dataset import export as write

    with services() as s, screen().status("writing") as status:
        version = write(
            s.ledger,
            s.store,
            s.owner,
            wanted,
            folder,
            raw=raw,
            tick=lambda done, total: status.update(f"writing: {done} of {total} shards"),
        )
    if as_json:
        print_json({"object": "dataset.export", "version": version["id"], "folder": str(folder)})
    else:
        say(f"{version['name']}@{version['number']} is in {folder}")


@app.command()
def register(
    preset: Annotated[Literal["mini"], typer.Argument(help="A shipped preset.")] = "mini", as_json: JsonOption = False
) -> None:
    """Enter the data set that a shipped preset was trained on: a recipe of the renderer, nothing is stored."""
    from orchestrator.datasets import dataset_views, datasets

    with services() as s:
        version = dataset_views.show(s.ledger, s.owner, datasets.ensure_mini(s.ledger, s.settings, s.owner))
    if as_json:
        print_json(version)
    else:
        _print(version)

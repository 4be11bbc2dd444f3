"""Train the networks of the mini face pack and write them as ONNX.

    python -m fpga_models.lab.mini.faces encoder_a --data var/mini --out var/mini/faces --minutes 10

Likewise `teach`, which trains encoder A on, `detector`, `encoder_b` and `traits`; `embeddings` embeds every crop with
what `teach` made. Reads rendered crops and scenes; a run that was stopped continues from its checkpoint.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np
import torch

from fpga_models.idzoom.scenes import open_scenes
from fpga_models.lab.measures.legibility import LEGIBLE
from fpga_models.lab.measures.traits import FILE_NAME, labels
from fpga_models.lab.mini.faces import detector, encoders, export, loop, traits
from fpga_models.lab.mini.faces.augment import augment
from fpga_models.lab.mini.faces.detection_report import detection_figures, held_out_scenes
from fpga_models.lab.mini.faces.embeddings import embed_crops
from fpga_models.lab.mini.faces.report import recognition
from fpga_models.lab.mini.faces.teach import open_encoder_a, teach_traits
from fpga_models.lab.synthetic.dataset import open_crops
from fpga_models.lab.synthetic.scene import drawn_fine

DET_SIZE, DET_THRESH = 256, 0.55
PARTS = ("encoder_a", "teach", "embeddings", "detector", "encoder_b", "traits")


def train_encoder(part: str, data: Path, out: Path, schedule: loop.Schedule) -> dict[str, object]:
    """Train and export one encoder; return its figures on people it never saw."""
    crops = people_by_views(data / "crops")
    split = encoders.split_of(part, len(crops))
    trainer = encoders.train_encoder_a if part == "encoder_a" else encoders.train_encoder_b
    checkpoint = out / "checkpoints" / part
    encoder = trainer(encoders.halve(crops[split.start : split.stop]), checkpoint, schedule)
    target = out / ("untaught/recogniser.onnx" if part == "encoder_a" else "eval/evaluator.onnx")
    figures = encoder_figures(encoder, encoders.halve(people_by_views(data / "crops_test")[:, :2]))
    export.export_encoder(encoder, target)
    return {"part": part, "file": str(target), **figures}


def teach_encoder(data: Path, out: Path, schedule: loop.Schedule) -> dict[str, object]:
    """Teach encoder A traits and export it to the pack; return its figures on people it never saw."""
    everybody = people_by_views(data / "crops")
    split = encoders.split_of("encoder_a", len(everybody))
    crops = encoders.halve(everybody[split.start : split.stop])
    encoder = open_encoder_a(out / "untaught" / "recogniser.onnx")
    taught = teach_traits(encoder, crops, labels(list(split)), out / "checkpoints" / "teach", schedule)
    target = out / "pack" / "recogniser.onnx"
    figures = encoder_figures(taught, encoders.halve(people_by_views(data / "crops_test")[:, :2]))
    export.export_encoder(taught, target)
    seal(out / "pack")
    return {"part": "teach", "file": str(target), **figures}


def seal(pack: Path) -> None:
    """Write the pack's settings as soon as both networks are there, so that no other file ever fits them."""
    if len(list(pack.glob("*.onnx"))) == 2:
        export.write_pack_settings(pack, det_size=DET_SIZE, det_thresh=DET_THRESH)


def write_embeddings(data: Path, out: Path, threads: int) -> dict[str, object]:
    """Embed every training crop with the exported recogniser into `embeddings.npy`, (P, V, 512) float16."""
    target = data / "embeddings.npy"
    embeddings = embed_crops(out / "pack" / "recogniser.onnx", people_by_views(data / "crops"), threads=threads)
    np.save(target, embeddings)
    return {"part": "embeddings", "file": str(target), "shape": list(embeddings.shape)}


def people_by_views(folder: Path) -> encoders.Crops:
    """Open the crops of a folder as (P, V, 112, 112, 3)."""
    crops, people = open_crops(folder)
    views = int((people == people[0]).sum())
    return crops.reshape(-1, views, *crops.shape[1:])


def train_detector(data: Path, out: Path, schedule: loop.Schedule) -> dict[str, object]:
    """Train and export the detector; return its figures on freshly rendered people, small and large pictures."""
    checkpoint, target = out / "checkpoints" / "detector", out / "pack" / "detector.onnx"
    source = detector.Source(scenes=open_scenes(data / "scenes"), decoded=np.load(data / "decoded.npy", mmap_mode="r"))
    export.export_detector(detector.train_detector(source, checkpoint, schedule), target)
    seal(out / "pack")
    figures: dict[str, object] = {"part": "detector", "file": str(target)}
    side = source.scenes.images.shape[1]
    count = min(600, len(open_scenes(data / "scenes_test")))
    for size, shown in ((side, count), (384, max(1, count // 10))):
        scenes = held_out_scenes(schedule.seed, shown, size, fine=drawn_fine(side))
        found = detection_figures(target, scenes, det_size=DET_SIZE, det_thresh=DET_THRESH)
        figures[f"{size} px"] = asdict(found)
    return figures


def train_traits(data: Path, out: Path, schedule: loop.Schedule) -> dict[str, object]:
    """Train and export the trait classifier; return its accuracy on people it never saw, faces over 48 px."""
    crops, truth = traits.large_crops(data / "crops", traits.SMALLEST_FACE)
    network = traits.train_traits(crops, truth, out / "checkpoints" / "traits", schedule)
    target = out / "eval" / FILE_NAME
    figures = traits.accuracies(network, *traits.large_crops(data / "crops_test", LEGIBLE))
    export.export_classifier(network, target)
    return {"part": "traits", "file": str(target), "accuracy": figures}


@torch.inference_mode()
def encoder_figures(encoder: encoders.AnyEncoder, unseen: encoders.Crops) -> dict[str, object]:
    """Recognition figures on two views of unseen people (P, 2, 56, 56, 3): as rendered, and degraded."""
    figures: dict[str, object] = {}
    for name, degrade in (("clean", False), ("degraded", True)):
        views = []
        for view in range(2):
            batch = encoders.to_tensor(unseen[:, view])
            if degrade:
                shuffle = np.random.default_rng(view).permutation(len(batch))
                batch[shuffle] = augment(batch[shuffle], np.random.default_rng([7, view]))
            views.append(torch.nn.functional.normalize(encoder.embed(batch)).numpy())
        figures[name] = asdict(recognition(*views))
    return figures


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line, train, print the figures as JSON."""
    parser = argparse.ArgumentParser(prog="python -m fpga_models.lab.mini.faces", description=__doc__)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--data", type=Path, default=Path("var/mini"), help="folder with crops/ and scenes/")
    parser.add_argument("--out", type=Path, default=Path("var/mini/faces"))
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    cv2.setNumThreads(1)
    muon = options.part == "detector"
    schedule = loop.Schedule(minutes=options.minutes, seed=options.seed, lr=3e-3 if muon else 2e-3, muon=muon)
    if options.part == "detector":
        figures = train_detector(options.data, options.out, schedule)
    elif options.part == "traits":
        figures = train_traits(options.data, options.out, schedule)
    elif options.part == "teach":
        figures = teach_encoder(options.data, options.out, schedule)
    elif options.part == "embeddings":
        figures = write_embeddings(options.data, options.out, options.threads)
    else:
        figures = train_encoder(options.part, options.data, options.out, schedule)
    sys.stdout.write(json.dumps(figures, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

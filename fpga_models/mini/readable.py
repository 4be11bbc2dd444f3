"""Gives the hint adapter channels in which a person's traits can be read, and room to draw them.

    python -m fpga_models.mini.readable --data var/mini --preset var/mini/mmf-6/preset --out var/mini/readable

The recogniser was taught traits, so a linear reader finds them in its embeddings, of eye colours seven in ten; but they
are a small part of an embedding's spread, and the few pixels of an iris tell the generator little of where to look. The
reader is fitted on training people and becomes more identity channels of the hint adapter [ours]. The new inputs of its
convolutions begin at zero: the preset draws the same pictures as before until it is trained on.
"""

from __future__ import annotations

import argparse
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fpga_models.hint import HintAdapter
from fpga_models.metrics.traits import ANSWERS, TRAITS, Labels, labels
from fpga_models.mini.faces.traits import trait_loss
from fpga_models.mini.preset import LICENCE
from fpga_models.mmf.start import finish_preset
from fpga_models.mmf.workbench import read_source
from fpga_models.weights import read_manifest

HELD_OUT = 500
DECAY = 1e-3
EXTRA_WIDTH = 64
FILE_NAME = "hint.safetensors"


def fit_reader(embeddings: Tensor, traits: Labels) -> nn.Linear:
    """Logistic regressions of all traits at once on embeddings (N, E) of unit length and answers (N, T).

    Its scores (N, ANSWERS) have a standard deviation of one, on average over the answers.
    """
    scale = embeddings.shape[1] ** 0.5
    centre = embeddings.mean(dim=0) * scale
    inputs, wanted = embeddings * scale - centre, torch.from_numpy(traits)
    reader = nn.Linear(embeddings.shape[1], ANSWERS)
    nn.init.zeros_(reader.weight)
    nn.init.zeros_(reader.bias)
    optimiser = torch.optim.LBFGS(reader.parameters(), max_iter=100, history_size=10, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = trait_loss(reader(inputs), wanted) + DECAY * reader.weight.square().sum() / len(TRAITS)
        torch.autograd.backward(loss)
        return loss

    optimiser.step(closure)  # type: ignore[no-untyped-call]  # torch leaves it untyped
    with torch.no_grad():
        spread = (inputs @ reader.weight.T).std(dim=0).mean()
        reader.weight.div_(spread)
        reader.bias.div_(spread).sub_(reader.weight @ centre)
    return reader


def block_diag(upper: Tensor, lower: Tensor) -> Tensor:
    """Both matrices along the diagonal, zeros elsewhere."""
    return torch.cat([F.pad(upper, (0, lower.shape[1])), F.pad(lower, (upper.shape[1], 0))])


@torch.no_grad()
def with_reader(hint: HintAdapter, reader: nn.Linear, extra_width: int) -> HintAdapter:
    """A hint adapter that says the same, with the reader's scores as its last identity channels and wider convolutions.

    The scores pass the perceptron unchanged, as SiLU(x) - SiLU(-x) = x.
    """
    config, answers = hint.config, reader.out_features
    wider = HintAdapter(
        replace(
            config,
            width=config.width + extra_width,
            identity_channels=config.identity_channels + answers,
            identity_hidden=config.identity_hidden + 2 * answers,
        )
    )
    old, new = hint.state_dict(), wider.state_dict()
    weight, bias, same = reader.weight, reader.bias, torch.eye(answers)
    new["identity.0.weight"] = torch.cat([old["identity.0.weight"], weight, -weight])
    new["identity.0.bias"] = torch.cat([old["identity.0.bias"], bias, -bias])
    new["identity.2.weight"] = block_diag(old["identity.2.weight"], torch.cat([same, -same], dim=1))
    new["identity.2.bias"] = F.pad(old["identity.2.bias"], (0, answers))
    for name in ("body.0", "body.2", "out"):
        kernel = old[f"{name}.weight"]
        new[f"{name}.weight"][: len(kernel)] = F.pad(
            kernel, (0, 0, 0, 0, 0, new[f"{name}.weight"].shape[1] - kernel.shape[1])
        )
        new[f"{name}.bias"][: len(kernel)] = old[f"{name}.bias"]
    wider.load_state_dict(new)
    return wider


@torch.no_grad()
def accuracy(reader: nn.Linear, embeddings: Tensor, traits: Labels) -> dict[str, float]:
    """Share of right answers of each trait."""
    scores = reader(embeddings * embeddings.shape[1] ** 0.5).split([len(answers) for answers in TRAITS.values()], dim=1)
    read = torch.stack([part.argmax(dim=1) for part in scores], dim=1).numpy()
    return dict(zip(TRAITS, np.round((read == traits).mean(axis=0), 3).tolist(), strict=True))


def main() -> None:
    """Command line; prints how well traits of people whom the reader was not fitted on are read."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("var/mini"))
    parser.add_argument("--preset", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    torch.manual_seed(0)
    embeddings = torch.from_numpy(np.load(options.data / "embeddings.npy").astype(np.float32))  # (P, V, E)
    traits = labels(range(len(embeddings)))
    views = embeddings.shape[1] // 2
    fitted, left = (embeddings[part, :views] for part in (slice(-HELD_OUT), slice(-HELD_OUT, None)))
    reader = fit_reader(fitted.flatten(0, 1), traits[:-HELD_OUT].repeat(views, axis=0))
    figures = accuracy(reader, left.flatten(0, 1), traits[-HELD_OUT:].repeat(views, axis=0))
    partial = options.out.with_name(f".partial-{options.out.name}")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(options.preset, partial)
    hint = with_reader(HintAdapter.load(options.preset / FILE_NAME).float(), reader, EXTRA_WIDTH)
    hint.save(partial / FILE_NAME, dtype=torch.float16, metadata={"modelspec.license": LICENCE})
    manifest = read_manifest(options.preset)
    made = {"command": "python -m fpga_models.mini.readable", "config": {"extra_width": EXTRA_WIDTH, "read": figures}}
    start = {"model_sha256": manifest["model_sha256"], "made": manifest.get("made", {})}
    facts = {"steps": 0, "data": read_source(options.data), "start": start}
    finish_preset(partial, options.out, (FILE_NAME,), made | facts)
    print(json.dumps(figures))  # noqa: T201 what was measured


if __name__ == "__main__":
    main()

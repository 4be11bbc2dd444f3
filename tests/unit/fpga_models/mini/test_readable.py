from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional as F

from fpga_models.hint import HintAdapter, HintConfig
from fpga_models.metrics.traits import ANSWERS, TRAITS
from fpga_models.mini.readable import accuracy, fit_reader, with_reader


def test_the_reader_finds_what_is_linear_and_its_scores_have_a_spread_of_one() -> None:
    generator = np.random.default_rng(0)
    traits = np.stack([generator.integers(0, len(answers), 400) for answers in TRAITS.values()], axis=1)
    told = torch.cat([F.one_hot(torch.from_numpy(traits[:, row]), len(a)) for row, a in enumerate(TRAITS.values())], 1)
    mixed = told.float() @ torch.randn(ANSWERS, 96, generator=torch.Generator().manual_seed(0)) + 1
    embeddings = F.normalize(mixed, dim=1)
    reader = fit_reader(embeddings, traits)
    assert min(accuracy(reader, embeddings, traits).values()) > 0.95
    assert accuracy(reader, embeddings.flip(0), traits)["hair_style"] < 0.4
    with torch.no_grad():
        assert abs(float(reader(embeddings * 96**0.5).std(dim=0).mean()) - 1) < 0.05


def test_a_widened_hint_says_the_same_and_hears_the_reader() -> None:
    torch.manual_seed(0)
    hint = HintAdapter(HintConfig(out_channels=8, width=12, identity_channels=6, identity_hidden=16, embedding_dim=32))
    torch.nn.init.normal_(hint.out.weight)
    wider = with_reader(hint, torch.nn.Linear(32, ANSWERS), 10)
    inputs = (
        torch.rand(2, 3, 64, 64),
        torch.tensor([[1.0, 0.0], [0.0, 1.0]]),
        F.normalize(torch.randn(2, 3, 32), dim=-1),
        torch.rand(2, 3, 8, 8),
    )
    assert torch.allclose(wider(*inputs), hint(*inputs), atol=1e-5)
    assert (wider.config.width, wider.config.identity_channels) == (22, 6 + ANSWERS)
    torch.autograd.backward(wider(*inputs).square().mean())
    heard = wider.get_parameter("body.0.weight").grad
    assert heard is not None
    assert heard[:12, -ANSWERS:].abs().amax(dim=(0, 2, 3)).min() > 0

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import nn

from fpga_models.core.adapters.hint import HintAdapter, HintConfig
from fpga_models.core.bases.network import People
from fpga_models.core.denoiser import Denoiser
from fpga_models.core.multi_id_attention import inject
from fpga_models.core.rep_controlnet import RepControlNet, RepRatio, copied_layers
from fpga_models.errors import WeightsError
from tests.unit.fpga_models.networks import tiny_adapter, tiny_unet

LAYER_TOLERANCE, OUTPUT_TOLERANCE = 1e-4, 1e-3  # method.md, float32


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def run(unet: nn.Module) -> torch.Tensor:
    generator = torch.Generator().manual_seed(4)
    latents, text = torch.randn(2, 4, 8, 8, generator=generator), torch.randn(2, 5, 16, generator=generator)
    return unet(latents, 500, encoder_hidden_states=text).sample


def shuffled(network: RepControlNet, seed: int = 5) -> RepControlNet:
    """Modal weights far from kappa W, as no training would leave them."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.modal.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return network


def trained(network: RepControlNet, steps: int = 3) -> RepControlNet:
    """A few steps towards a random target, in the branch form."""
    network.inject()
    optimizer = torch.optim.AdamW(network.modal.parameters(), lr=1e-2)
    target = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(9))
    for _ in range(steps):
        optimizer.zero_grad()
        (run(network.unet) - target).square().mean().backward()
        optimizer.step()
    network.eject()
    return network


@pytest.mark.parametrize(
    ("ratio", "same"),
    [
        (RepRatio(alpha=0.9, beta=0.1, kappa=1.0), True),
        (RepRatio(alpha=0.5, beta=1.0, kappa=0.5), True),
        (RepRatio(alpha=1.0, beta=0.1, kappa=1.0), False),
        (RepRatio(alpha=0.9, beta=0.1, kappa=0.5), False),
    ],
)
def test_the_untrained_network_is_the_base_exactly_where_the_shares_add_up(ratio: RepRatio, same: bool) -> None:
    unet = tiny_unet()
    base = run(unet)
    network = RepControlNet(unet, ratio)

    network.inject()

    assert torch.allclose(run(unet), base, atol=OUTPUT_TOLERANCE) is same
    assert (abs(ratio.alpha + ratio.beta * ratio.kappa - 1) < 1e-9) is same


def test_every_conv_and_linear_layer_gets_a_modal_copy() -> None:
    unet = tiny_unet()
    network = RepControlNet(unet, RepRatio(kappa=0.5))
    weights = {key: value for key, value in unet.state_dict().items() if value.ndim > 1}

    modal = network.modal_state()

    assert weights.keys() <= modal.keys()
    assert all(torch.equal(modal[key], 0.5 * value) for key, value in weights.items())


def test_every_merged_layer_equals_its_branch() -> None:
    unet = tiny_unet()
    network = shuffled(RepControlNet(unet))
    merged = network.merged_state()
    ratio = network.ratio
    for name, layer in copied_layers(unet).items():
        generator = torch.Generator().manual_seed(1)
        shape = (2, 3, layer.in_features) if isinstance(layer, nn.Linear) else (2, layer.in_channels, 6, 6)
        x = torch.randn(shape, generator=generator)
        branch = ratio.alpha * layer(x) + ratio.beta * network.modal[name.replace(".", "/")](x)

        state = {key.removeprefix(f"{name}."): value for key, value in merged.items() if key.startswith(f"{name}.")}

        assert (torch.func.functional_call(layer, state, x) - branch).abs().max() < LAYER_TOLERANCE, name


def test_the_merged_unet_equals_the_branch_after_training() -> None:
    unet = tiny_unet()
    base = run(unet)
    network = trained(RepControlNet(unet, RepRatio(alpha=0.5, beta=0.5)))
    network.inject()
    branch = run(unet)
    network.eject()

    network.merge()

    assert (run(unet) - branch).abs().max() < OUTPUT_TOLERANCE
    assert (run(unet) - base).abs().max() > 0.01


def test_training_moves_the_modal_network_alone() -> None:
    unet = tiny_unet()
    before = {key: value.clone() for key, value in unet.state_dict().items()}
    network = RepControlNet(unet)
    modal = network.modal_state()
    start = {key: value.clone() for key, value in modal.items()}

    trained(network)

    assert all(torch.equal(value, before[key]) for key, value in unet.state_dict().items())
    assert all(parameter.grad is None for parameter in unet.parameters())
    assert all(not torch.equal(network.modal_state()[key], start[key]) for key in start)


def test_the_base_is_frozen_while_the_branch_is_on_and_free_again_after() -> None:
    unet = tiny_unet()
    unet.conv_out.weight.requires_grad_(False)
    before = [parameter.requires_grad for parameter in unet.parameters()]
    network = RepControlNet(unet)

    network.inject()
    during = [parameter.requires_grad for parameter in unet.parameters()]
    network.eject()

    assert not any(during)
    assert [parameter.requires_grad for parameter in unet.parameters()] == before


def test_inject_then_eject_restores_the_unet_bit_for_bit() -> None:
    unet = tiny_unet()
    before, keys = run(unet), list(unet.state_dict())
    network = shuffled(RepControlNet(unet))

    network.inject()
    during = run(unet)
    network.eject()

    assert not torch.equal(during, before)
    assert torch.equal(run(unet), before)
    assert list(unet.state_dict()) == keys


def test_merge_then_unmerge_restores_the_weights_bit_for_bit() -> None:
    unet = tiny_unet()
    before = {key: value.clone() for key, value in unet.state_dict().items()}
    network = shuffled(RepControlNet(unet))

    network.merge()
    network.merge(strength=0.4)
    network.unmerge()

    assert all(torch.equal(value, before[key]) for key, value in unet.state_dict().items())


def test_strength_zero_is_the_base_bit_for_bit() -> None:
    unet = tiny_unet()
    before = {key: value.clone() for key, value in unet.state_dict().items()}
    merged = shuffled(RepControlNet(unet)).merged_state(strength=0)
    assert merged.keys() == before.keys()
    assert all(torch.equal(merged[key], before[key]) for key in before)


def test_merging_again_at_the_strength_of_training_is_the_same_merge() -> None:
    network = shuffled(RepControlNet(tiny_unet()))
    first = network.merged_state()
    network.merge(strength=0.7)

    again = network.merged_state(strength=network.ratio.beta)

    assert all(torch.allclose(again[key], first[key], atol=1e-6) for key in first)


def test_strength_moves_the_output_away_from_the_base_evenly() -> None:
    network = shuffled(RepControlNet(tiny_unet()))
    base, weak, strong = (network.merged_state(strength=value)["conv_in.weight"] for value in (0.0, 0.1, 0.2))
    assert torch.allclose(strong - base, 2 * (weak - base), atol=1e-6)


def test_a_merged_unet_has_the_parameters_of_the_base_and_loads_in_stock_diffusers(tmp_path: Path) -> None:
    unet = tiny_unet()
    count = sum(parameter.numel() for parameter in unet.parameters())
    network = shuffled(RepControlNet(unet))

    network.merge()
    unet.save_pretrained(tmp_path)
    stock = UNet2DConditionModel.from_pretrained(tmp_path, use_safetensors=True, local_files_only=True).eval()

    assert sum(parameter.numel() for parameter in stock.parameters()) == count
    assert torch.equal(run(stock), run(unet))


def test_half_precision_weights_stay_half_precision_when_merged() -> None:
    network = shuffled(RepControlNet(tiny_unet().half()))
    assert {value.dtype for value in network.merged_state().values()} == {torch.float16}


def test_identity_projections_are_neither_copied_nor_merged() -> None:
    unet = tiny_unet()
    adapter = tiny_adapter(unet)
    state: dict[str, dict[str, torch.Tensor]] = {"image_proj": {}, "ip_adapter": {}}
    for key, value in adapter.state_dict().items():
        group, name = key.split(".", 1)
        state[group][name] = value
    plain = set(copied_layers(unet))

    unet._load_ip_adapter_weights([state], low_cpu_mem_usage=False)

    assert any("to_k_ip" in key for key in unet.state_dict())
    assert set(copied_layers(unet)) == plain


def test_the_control_is_added_whole_beside_the_branch() -> None:
    """What the hint adapter adds after conv_in must not be scaled by alpha, whichever was put on first."""
    unet = tiny_unet()
    torch.manual_seed(2)
    hint = HintAdapter(HintConfig(out_channels=8, width=8, identity_channels=6, embedding_dim=32))
    nn.init.normal_(hint.out.weight, std=0.1)
    denoiser = Denoiser(unet, tiny_adapter(unet), hint).eval()
    generator = torch.Generator().manual_seed(3)
    people = People(
        embeddings=nn.functional.normalize(torch.randn(1, 1, 32, generator=generator), dim=-1),
        masks=torch.ones(1, 1, 8, 8),
        scales=torch.ones(1, 1),
    )
    with torch.no_grad():
        condition = denoiser.prepare(
            text=torch.randn(1, 5, 16, generator=generator),
            people=people,
            control=torch.rand(1, 3, 64, 64, generator=generator),
            flags=torch.tensor([[0.0, 1.0]]),
        )
        latents, when = torch.randn(1, 4, 8, 8, generator=generator), torch.tensor([300])
        plain = denoiser(latents, when, condition)
        network = RepControlNet(unet, RepRatio(alpha=0.5, beta=0.5))
        network.inject()
        untrained = denoiser(latents, when, condition)
        shuffled(network)
        branch = denoiser(latents, when, condition)
        network.eject()
        network.merge()
        merged = denoiser(latents, when, condition)

    assert (untrained - plain).abs().max() < OUTPUT_TOLERANCE
    assert (merged - branch).abs().max() < OUTPUT_TOLERANCE
    assert (merged - plain).abs().max() > 0.01


def test_branch_and_merge_exclude_each_other() -> None:
    network = RepControlNet(tiny_unet())
    network.inject()
    with pytest.raises(RuntimeError, match="eject"):
        network.merge()
    network.eject()
    network.merge()
    with pytest.raises(RuntimeError, match="unmerge"):
        network.inject()


def test_modal_weights_survive_a_file(tmp_path: Path) -> None:
    network = shuffled(RepControlNet(tiny_unet(), RepRatio(alpha=0.8, beta=0.4, kappa=0.5)))
    network.save(tmp_path / "rep.safetensors", dtype=torch.float32, metadata={"base": "tiny"})

    loaded = RepControlNet.load(tmp_path / "rep.safetensors", tiny_unet())

    assert loaded.ratio == network.ratio
    assert all(torch.equal(value, network.modal_state()[key]) for key, value in loaded.modal_state().items())


def test_modal_weights_of_another_base_are_refused(tmp_path: Path) -> None:
    RepControlNet(tiny_unet()).save(tmp_path / "rep.safetensors", dtype=torch.float32, metadata={})
    other = UNet2DConditionModel(**{**tiny_unet().config, "cross_attention_dim": 24})
    with pytest.raises(WeightsError, match=r"another base: .*24"):
        RepControlNet.load(tmp_path / "rep.safetensors", other)


def test_a_file_without_a_ratio_is_refused(tmp_path: Path) -> None:
    tiny_adapter(tiny_unet()).save(tmp_path / "id.safetensors", dtype=torch.float32, metadata={})
    with pytest.raises(WeightsError, match="ratio"):
        RepControlNet.load(tmp_path / "id.safetensors", tiny_unet())


def test_the_unet_with_the_identity_adapter_still_merges() -> None:
    unet = tiny_unet()
    inject(unet, tiny_adapter(unet))
    network = shuffled(RepControlNet(unet))
    network.inject()
    branch = run(unet)
    network.eject()
    network.merge()
    assert (run(unet) - branch).abs().max() < OUTPUT_TOLERANCE

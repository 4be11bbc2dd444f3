from pathlib import Path

import pytest
import torch

from fpga_models.core.vae import MiniVAE


@pytest.fixture
def vae() -> MiniVAE:
    torch.manual_seed(0)
    vae = MiniVAE(block_out_channels=(12, 8, 12, 16), encoder_blocks=(1, 1, 1), decoder_blocks=(1, 1, 1))
    for parameter in vae.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return vae.eval()


@torch.inference_mode()
@pytest.mark.parametrize(("height", "width"), [(64, 64), (40, 96)])
def test_sides_shrink_eightfold_and_come_back(vae: MiniVAE, height: int, width: int) -> None:
    latents = vae.encode(torch.rand(2, 3, height, width)).latent_dist.mode()
    assert latents.shape == (2, 16, height // 8, width // 8)
    assert vae.decode(latents).sample.shape == (2, 3, height, width)


def test_odd_sizes_are_refused_with_the_size(vae: MiniVAE) -> None:
    with pytest.raises(ValueError, match="60x64"):
        vae.encode(torch.zeros(1, 3, 64, 60))


@torch.inference_mode()
def test_saved_and_loaded_weights_give_the_same_latents(vae: MiniVAE, tmp_path: Path) -> None:
    vae.latent_mean.fill_(0.3)
    vae.latent_std.fill_(2.0)
    vae.save_pretrained(tmp_path)
    picture = torch.rand(1, 3, 32, 32)
    loaded = MiniVAE.from_pretrained(tmp_path)
    assert torch.equal(loaded.encode(picture).latent_dist.mode(), vae.encode(picture).latent_dist.mode())
    assert [file.suffix for file in tmp_path.iterdir() if file.suffix != ".json"] == [".safetensors"]


@torch.inference_mode()
def test_latent_statistics_shift_and_scale_the_latents(vae: MiniVAE) -> None:
    picture = torch.rand(1, 3, 32, 32)
    plain = vae.encode(picture).latent_dist.mode()
    vae.latent_mean.fill_(1.0)
    vae.latent_std.fill_(4.0)
    assert torch.allclose(vae.encode(picture).latent_dist.mode(), (plain - 1) / 4, atol=1e-6)


@torch.inference_mode()
def test_a_crop_and_the_whole_picture_agree_away_from_borders(vae: MiniVAE) -> None:
    picture = torch.rand(1, 3, 192, 192)
    whole = vae.encode(picture).latent_dist.mode()[..., 8:16, 8:16]
    crop = vae.encode(picture[..., 32:160, 32:160]).latent_dist.mode()[..., 4:12, 4:12]
    assert torch.allclose(whole, crop, atol=1e-3)


@torch.inference_mode()
def test_sampling_adds_the_small_noise_of_training(vae: MiniVAE) -> None:
    distribution = vae.encode(torch.rand(1, 3, 64, 64)).latent_dist
    noise = distribution.sample(torch.Generator().manual_seed(0)) - distribution.mode()
    assert abs(noise.std().item() - 0.1) < 0.01


def test_tuples_are_returned_when_asked_for(vae: MiniVAE) -> None:
    (distribution,) = vae.encode(torch.zeros(1, 3, 16, 16), return_dict=False)
    (pixels,) = vae.decode(distribution.mode(), return_dict=False)
    assert pixels.shape == (1, 3, 16, 16)

from __future__ import annotations

import pytest
import torch

from fpga_models.core.multi_id_attention import IdentityCondition, MultiIdAttentionProcessor, eject, inject, mask_shares
from fpga_models.errors import PlacementError
from tests.unit.fpga_models.networks import tiny_adapter, tiny_unet

SIDE = 8


def condition(people: int, masks: torch.Tensor, scale: float = 1.0, seed: int = 3) -> IdentityCondition:
    tokens = torch.randn(1, people, 4, 16, generator=torch.Generator().manual_seed(seed))
    return IdentityCondition(tokens=tokens, masks=masks, scales=torch.full((1, people), scale))


def halves() -> torch.Tensor:
    masks = torch.zeros(1, 2, SIDE, SIDE)
    masks[:, 0, :, : SIDE // 2] = 1
    masks[:, 1, :, SIDE // 2 :] = 1
    return masks


def run(unet: torch.nn.Module, identity: IdentityCondition | None) -> torch.Tensor:
    generator = torch.Generator().manual_seed(4)
    latents, text = torch.randn(1, 4, SIDE, SIDE, generator=generator), torch.randn(1, 5, 16, generator=generator)
    kwargs = {"identity": identity} if identity else None
    with torch.no_grad():
        return unet(latents, 500, encoder_hidden_states=text, cross_attention_kwargs=kwargs).sample


def term(identity: IdentityCondition) -> torch.Tensor:
    """The identity term of one layer with 16x16 cells halved once, (1, 16, 16)."""
    processor = MultiIdAttentionProcessor(tiny_adapter(tiny_unet()).layers()[0])
    query = torch.randn(1, (SIDE // 2) ** 2, 16, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        return processor.identity_term(query, 2, 0.35, identity)


def test_one_person_with_a_full_mask_is_plain_decoupled_attention() -> None:
    unet = tiny_unet()
    layer = tiny_adapter(unet).layers()[0]
    identity = condition(1, torch.ones(1, 1, SIDE, SIDE), scale=0.7)
    query = torch.randn(1, 16, 16, generator=torch.Generator().manual_seed(5))
    q = query.view(1, 16, 2, 8).transpose(1, 2)
    k = layer.to_k_ip(identity.tokens[:, 0]).view(1, 4, 2, 8).transpose(1, 2)
    v = layer.to_v_ip(identity.tokens[:, 0]).view(1, 4, 2, 8).transpose(1, 2)
    reference = 0.7 * torch.nn.functional.scaled_dot_product_attention(q, k, v, scale=0.35)

    got = MultiIdAttentionProcessor(layer).identity_term(query, 2, 0.35, identity)

    assert torch.allclose(got, reference.transpose(1, 2).reshape(1, 16, 16), atol=1e-6)


def test_the_unet_equals_stock_ip_adapter_attention_for_one_person() -> None:
    unet = tiny_unet()
    adapter = tiny_adapter(unet)
    state = {"image_proj": {}, "ip_adapter": {}}
    for key, value in adapter.state_dict().items():
        group, name = key.split(".", 1)
        state[group][name] = value
    embedding = torch.nn.functional.normalize(torch.randn(1, 32, generator=torch.Generator().manual_seed(6)), dim=-1)
    identity = IdentityCondition(
        tokens=adapter.image_proj(embedding[:, None]).detach(),
        masks=torch.ones(1, 1, SIDE, SIDE),
        scales=torch.ones(1, 1),
    )
    inject(unet, adapter)
    ours = run(unet, identity)

    stock = tiny_unet()
    stock._load_ip_adapter_weights([state], low_cpu_mem_usage=False)
    generator = torch.Generator().manual_seed(4)
    latents, text = torch.randn(1, 4, SIDE, SIDE, generator=generator), torch.randn(1, 5, 16, generator=generator)
    with torch.no_grad():
        theirs = stock(
            latents,
            500,
            encoder_hidden_states=text,
            added_cond_kwargs={"image_embeds": [embedding[:, None]]},
        ).sample

    assert torch.allclose(ours, theirs, atol=1e-5)


def test_what_was_kept_without_gradients_never_stands_in_for_what_is_learned() -> None:
    layer = tiny_adapter(tiny_unet()).layers()[0]
    identity = condition(1, torch.ones(1, 1, SIDE, SIDE))
    with torch.no_grad():
        kept = identity.key_value(layer, identity.tokens)
        assert identity.key_value(layer, identity.tokens)[0] is kept[0]
    key, value = identity.key_value(layer, identity.tokens)
    assert torch.equal(key, kept[0])
    assert key.requires_grad
    assert value.requires_grad


def test_under_disjoint_masks_another_person_changes_nothing_inside_mine() -> None:
    before = condition(2, halves())
    changed = before.tokens.clone()
    changed[:, 1] += 1
    after = IdentityCondition(tokens=changed, masks=before.masks, scales=before.scales)

    difference = (term(after) - term(before)).view(4, 4, 16).abs()

    assert difference[:, :2].max() == 0
    assert difference[:, 2:].max() > 1e-3


def test_an_all_zero_mask_gives_the_text_only_output() -> None:
    unet = tiny_unet()
    inject(unet, tiny_adapter(unet))

    masked_out = run(unet, condition(2, torch.zeros(1, 2, SIDE, SIDE)))

    assert torch.equal(masked_out, run(unet, None))


def test_a_scale_of_zero_gives_the_text_only_output() -> None:
    unet = tiny_unet()
    inject(unet, tiny_adapter(unet))
    assert torch.equal(run(unet, condition(2, halves(), scale=0.0)), run(unet, None))


def test_the_order_of_people_changes_nothing() -> None:
    identity = condition(2, halves())
    swapped = IdentityCondition(
        tokens=identity.tokens.flip(1), masks=identity.masks.flip(1), scales=identity.scales.flip(1)
    )
    assert torch.allclose(term(identity), term(swapped), atol=1e-6)


def test_padding_people_change_nothing() -> None:
    identity = condition(2, halves())
    padded = IdentityCondition(
        tokens=torch.cat([identity.tokens, torch.randn(1, 2, 4, 16)], dim=1),
        masks=torch.cat([identity.masks, torch.zeros(1, 2, SIDE, SIDE)], dim=1),
        scales=torch.ones(1, 4),
    )
    assert torch.allclose(term(identity), term(padded), atol=1e-6)


def test_inject_then_eject_restores_the_unet_bit_for_bit() -> None:
    unet = tiny_unet()
    before, keys = run(unet, None), list(unet.state_dict())

    previous = inject(unet, tiny_adapter(unet))
    with_adapter = run(unet, condition(1, torch.ones(1, 1, SIDE, SIDE)))
    eject(unet, previous)

    assert not torch.equal(with_adapter, before)
    assert torch.equal(run(unet, None), before)
    assert list(unet.state_dict()) == keys


def test_a_face_smaller_than_a_cell_still_owns_one() -> None:
    masks = torch.zeros(1, 1, 16, 16)
    masks[0, 0, 5, 9] = 1
    shares = mask_shares(masks, 2, 2)
    assert shares.sum() == 1
    assert shares[0, 0, 0, 1] == 1


def test_overlapping_people_share_a_cell_and_never_exceed_one() -> None:
    shares = mask_shares(torch.ones(1, 3, 8, 8), 4, 4)
    assert torch.allclose(shares, torch.full((1, 3, 4, 4), 1 / 3))


def test_layers_of_an_odd_grid_get_masks_of_their_own_size() -> None:
    identity = condition(1, torch.ones(1, 1, 15, 9))
    assert identity.weights(8 * 5).shape == (1, 40, 1)
    with pytest.raises(PlacementError, match="41 cells"):
        identity.weights(41)


def test_more_people_than_masks_is_refused_with_both_numbers() -> None:
    with pytest.raises(PlacementError, match=r"\(1, 3\).*\(1, 2\)"):
        IdentityCondition(tokens=torch.zeros(1, 3, 4, 16), masks=torch.ones(1, 2, 8, 8), scales=torch.ones(1, 3))

"""RepControlNet: a modal copy of every conv and linear layer beside a frozen base, merged away for inference.

    branch:  y  = alpha (W x + b) + beta (W_m x + b_m)       training, W_m = kappa W at the start   [paper]
    merged:  W' = alpha W + beta W_m,  b' likewise           inference, no extra parameter or time   [paper]
    live:    W' computed in every training step, so that W_m learns exactly as in the branch form at the cost of the
             plain network: both are one linear map of x                                             [ours]

Norms and activations are shared. The control itself enters once, through hint.py. Works on any diffusers UNet and knows
nothing of images, schedules or losses. Identity key/value projections are left alone, merged or not.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from fpga_models.core.weights import read_safetensors
from fpga_models.errors import WeightsError

NOT_COPIED = (".processor.", "encoder_hid_proj.")
"""Parts of a module name that belong to an identity adapter put on the UNet by diffusers itself."""
CONV_OPTIONS = ("kernel_size", "stride", "padding", "dilation", "groups", "padding_mode")


@dataclass(frozen=True, kw_only=True)
class RepRatio:
    """Shares of base and modal network [paper: the three coefficients; ours: their values].

    The network equals the base before training if and only if alpha + beta * kappa = 1.
    """

    alpha: float = 0.9
    beta: float = 0.1
    kappa: float = 1.0

    def at_strength(self, strength: float) -> RepRatio:
        """The ratio that merges with beta' = strength and alpha' = 1 - beta' kappa; strength 0 is the base [ours]."""
        return RepRatio(alpha=1 - strength * self.kappa, beta=strength, kappa=self.kappa)


class RepControlNet:
    """The modal network of one UNet. `modal` holds the modal layers: train `modal.parameters()` and nothing else.

    `inject` and `eject` switch the branch form on and off, `merge` and `unmerge` the merged form; each pair are exact
    inverses. The two forms exclude each other.
    """

    def __init__(self, unet: UNet2DConditionModel, ratio: RepRatio | None = None) -> None:
        self.unet = unet
        self.ratio = ratio or RepRatio()
        self._layers = copied_layers(unet)
        self.modal = nn.ModuleDict(
            {_slot(name): _scaled_copy(layer, self.ratio.kappa) for name, layer in self._layers.items()}
        )
        self._hooks: list[RemovableHandle] = []
        self._trainable: list[nn.Parameter] = []
        self._unmerged: dict[str, Tensor] | None = None

    def inject(self) -> None:
        """Run the branch form: freeze the UNet and add every modal layer's output to its base layer's.

        Raises:
            RuntimeError: a form is on already.
        """
        self._refuse_if_on()
        self._trainable = [p for p in self.unet.parameters() if p.requires_grad]
        for parameter in self._trainable:
            parameter.requires_grad_(False)
        # In front of any other hook: what the hint adapter adds after conv_in is no part of the layer's output.
        self._hooks = [
            layer.register_forward_hook(self._branch(self.modal[_slot(name)]), prepend=True, with_kwargs=True)
            for name, layer in self._layers.items()
        ]

    def eject(self) -> None:
        """Undo `inject` exactly, including which parameters were trainable."""
        for hook in self._hooks:
            hook.remove()
        for parameter in self._trainable:
            parameter.requires_grad_(True)
        self._hooks, self._trainable = [], []

    def live_state(self) -> dict[str, Tensor]:
        """Merged weights of the copied layers, differentiable in the modal ones, for `torch.func.functional_call`."""
        alpha, beta = self.ratio.alpha, self.ratio.beta
        return {
            f"{name}.{part}": alpha * layer.get_parameter(part).detach() + beta * value
            for name, layer in self._layers.items()
            for part, value in self.modal[_slot(name)].named_parameters()
        }

    def modal_state(self) -> dict[str, Tensor]:
        """Modal weights under the key names of the UNet's own state dict."""
        return {
            f"{name}.{part}": value.detach()
            for name in self._layers
            for part, value in self.modal[_slot(name)].state_dict().items()
        }

    def merged_state(self, strength: float | None = None) -> dict[str, Tensor]:
        """State dict that a stock UNet of this configuration loads, in the UNet's own dtype.

        Args:
            strength: beta' of the merge, see `RepRatio.at_strength`; None merges with the ratio of training.
        """
        ratio = self.ratio if strength is None else self.ratio.at_strength(strength)
        base = {key: value.detach() for key, value in self.unet.state_dict().items()} | (self._unmerged or {})
        return merge_states(base, self.modal_state(), ratio)

    @torch.no_grad()
    def merge(self, strength: float | None = None) -> None:
        """Put the merged weights into the UNet in place; may be called again with another strength.

        The base weights of the copied layers are kept on the CPU, for `unmerge` and for merging again.

        Raises:
            RuntimeError: the branch form is on.
        """
        if self._hooks:
            raise RuntimeError("eject the branch form before merging: both together would count the control twice")
        merged = self.merged_state(strength)
        state = self.unet.state_dict()
        if self._unmerged is None:
            self._unmerged = {key: state[key].detach().cpu().clone() for key in self.modal_state()}
        for key in self._unmerged:
            state[key].copy_(merged[key])

    @torch.no_grad()
    def unmerge(self) -> None:
        """Undo `merge` bit for bit."""
        state = self.unet.state_dict()
        for key, value in (self._unmerged or {}).items():
            state[key].copy_(value)
        self._unmerged = None

    def save(self, path: Path, *, dtype: torch.dtype, metadata: Mapping[str, str]) -> None:
        """Write the modal weights and the ratio as one safetensors file, keys as in the UNet."""
        header = dict(metadata) | {"format": "pt", "ratio": json.dumps(asdict(self.ratio), sort_keys=True)}
        save_file({key: value.to(dtype).contiguous() for key, value in self.modal_state().items()}, path, header)

    @classmethod
    def load(cls, path: Path, unet: UNet2DConditionModel) -> RepControlNet:
        """Read what `save` wrote for this UNet.

        Raises:
            WeightsError: no ratio in the header, or the layers are those of another base.
        """
        state, metadata = read_safetensors(path)
        ratio = metadata.get("ratio")
        if ratio is None:
            raise WeightsError(f"{path.name} has no 'ratio' in its header: modal weights of RepControlNet were wanted.")
        try:
            network = cls(unet, RepRatio(**{name: float(share) for name, share in json.loads(ratio).items()}))
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise WeightsError(f"{path.name} has no readable 'ratio' in its header: {error}.") from error
        wanted = {key: tuple(value.shape) for key, value in network.modal_state().items()}
        got = {key: tuple(value.shape) for key, value in state.items()}
        if wanted != got:
            differing = sorted(key for key in wanted.keys() | got.keys() if wanted.get(key) != got.get(key))
            raise WeightsError(
                f"{path.name} was made for another base: {differing[0]} is {got.get(differing[0])}, "
                f"this UNet wants {wanted.get(differing[0])} ({len(differing)} keys differ)."
            )
        for key, value in state.items():
            layer, part = key.rsplit(".", 1)
            network.modal[_slot(layer)].get_parameter(part).data.copy_(value)
        return network

    def _branch(self, modal: nn.Module) -> Callable[..., Tensor]:
        def add(_layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> Tensor:
            result: Tensor = self.ratio.alpha * output + self.ratio.beta * modal(*args, **kwargs)
            return result

        return add

    def _refuse_if_on(self) -> None:
        if self._hooks or self._unmerged is not None:
            raise RuntimeError("the modal network is on the UNet already: eject or unmerge it first")


def copied_layers(unet: UNet2DConditionModel) -> dict[str, nn.Conv2d | nn.Linear]:
    """Every conv and linear layer of the UNet proper, by module name."""
    return {
        name: layer
        for name, layer in unet.named_modules()
        if isinstance(layer, nn.Conv2d | nn.Linear) and not any(part in f"{name}." for part in NOT_COPIED)
    }


def merge_states(base: Mapping[str, Tensor], modal: Mapping[str, Tensor], ratio: RepRatio) -> dict[str, Tensor]:
    """W' = alpha W + beta W_m for every key of `modal`; the other keys of `base` as they are.

    Computed in float32 and returned in the base's dtype. beta 0 with alpha 1 gives the base bit for bit.
    """
    merged = {key: value.clone() for key, value in base.items()}
    if (ratio.alpha, ratio.beta) == (1, 0):
        return merged
    for key, value in modal.items():
        weight = base[key]
        merged[key] = (ratio.alpha * weight.float() + ratio.beta * value.to(weight.device).float()).to(weight.dtype)
    return merged


def _scaled_copy(layer: nn.Conv2d | nn.Linear, kappa: float) -> nn.Conv2d | nn.Linear:
    """kappa W and kappa b as a trainable layer of its own; a deep copy would take the layer's hooks along."""
    copied: nn.Conv2d | nn.Linear
    if isinstance(layer, nn.Linear):
        copied = nn.Linear(layer.in_features, layer.out_features, bias=layer.bias is not None)
    else:
        shape: dict[str, Any] = {name: getattr(layer, name) for name in CONV_OPTIONS}
        copied = nn.Conv2d(layer.in_channels, layer.out_channels, bias=layer.bias is not None, **shape)
    copied.to(layer.weight.device, layer.weight.dtype)
    copied.load_state_dict({key: kappa * value for key, value in layer.state_dict().items()})
    return copied


def _slot(name: str) -> str:
    """Module names may not hold dots."""
    return name.replace(".", "/")

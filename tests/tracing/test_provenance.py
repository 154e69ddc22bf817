"""The hash of weights: any kind of weights has one, and whatever changes what the model computes changes it."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import vico_lens as vl
from vico_lens.testing import tiny_pipeline
from vico_lens.tracing.provenance import weights_hash


def quantised(layer: nn.Module) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return torch.ao.quantization.quantize_dynamic(layer, {nn.Linear}, dtype=torch.qint8)


@pytest.mark.filterwarnings("ignore:.*(torch.ao.quantization|TypedStorage|quantize).*")
def test_dynamic_quantisation_has_a_hash_of_its_values() -> None:
    torch.manual_seed(0)
    layers = [nn.Sequential(nn.Linear(4, 4), nn.ReLU()) for _ in range(2)]
    hashes = [weights_hash({"unet": quantised(layer)}) for layer in (layers[0], layers[0], layers[1])]
    assert hashes[0] == hashes[1] != hashes[2] and hashes[0].startswith("sha256:")
    with torch.no_grad():
        layers[0][0].weight.mul_(2)  # the same integers at another scale
    assert weights_hash({"unet": quantised(layers[0])}) != hashes[0]


class Packed(Tensor):
    """A weight as torchao keeps it: a tensor in name, several in fact, with few operations."""

    @staticmethod
    def __new__(cls, values: Tensor, scale: Tensor) -> Any:
        return Tensor._make_wrapper_subclass(cls, values.shape, dtype=torch.float32)  # type: ignore[attr-defined]

    def __init__(self, values: Tensor, scale: Tensor) -> None:
        self.values, self.scale = values, scale

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ["values", "scale"], None

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.detach.default:
            return Packed(args[0].values, args[0].scale)
        raise NotImplementedError(f"{func} of a packed weight")


def test_a_packed_weight_has_a_hash_of_its_parts() -> None:
    def layer(value: int, scale: float) -> nn.Module:
        linear = nn.Linear(2, 2, bias=False)
        linear.weight = nn.Parameter(
            Packed(torch.full((2, 2), value, dtype=torch.int8), torch.tensor(scale)), requires_grad=False
        )
        return linear

    hashes = [weights_hash({"unet": layer(*parts)}) for parts in ((1, 0.5), (1, 0.5), (2, 0.5), (1, 0.25))]
    assert hashes[0] == hashes[1] and len(set(hashes)) == 3


class Adapted(nn.Linear):
    """A layer with an adapter as peft makes it."""

    def __init__(self) -> None:
        super().__init__(2, 2)
        self.lora_A = nn.ModuleDict({"style": nn.Linear(2, 1, bias=False)})
        self.scaling, self.active_adapters, self.disable_adapters = {"style": 1.0}, ["style"], False


def test_weight_strength_and_switch_of_an_adapter_count() -> None:
    layer = Adapted()
    hashes = [weights_hash({"unet": layer})]
    layer.scaling["style"] = 0.3
    hashes.append(weights_hash({"unet": layer}))
    layer.disable_adapters = True
    hashes.append(weights_hash({"unet": layer}))
    with torch.no_grad():
        layer.lora_A["style"].weight.add_(1)
    hashes.append(weights_hash({"unet": layer}))
    assert len(set(hashes)) == 4


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_a_dynamically_quantised_denoiser_is_traced() -> None:
    tiny = tiny_pipeline("latte-t2v")
    tiny.pipe.transformer = quantised(tiny.pipe.transformer)
    with vl.trace(tiny.pipe, capture=vl.Capture(kinds="cross", steps=0)) as run:
        tiny.run(seed=0)
    assert run.coverage["recorded"] and str(run.tree.attrs["weights_hash"]).startswith("sha256:")

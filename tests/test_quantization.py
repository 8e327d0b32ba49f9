"""Weights in 8 bits."""

import pytest
import torch
from safetensors.torch import save_file

from unlearnable.engine.models import build_model
from unlearnable.engine.quantization import (
    dequantized,
    load_weights,
    quantized,
    save_quantized,
)


@pytest.fixture(params=["tiny", "resnet9", "tiny-resnet"])
def state(request):
    return build_model(request.param, 10, 3, seed=0).state_dict()


def test_weights_are_kept_to_a_127th_of_their_channels_largest(state):
    found = dequantized(quantized(state))
    assert found.keys() == state.keys()
    for name, value in state.items():
        assert found[name].shape == value.shape
        if value.dim() >= 2:
            largest = value.flatten(1).abs().amax(1).view(-1, *[1] * (value.dim() - 1))
            assert ((found[name] - value).abs() <= 0.505 * largest / 127).all()
        else:
            assert torch.equal(found[name], value)


def test_nothing_is_lost_twice(state):
    once = dequantized(quantized(state))
    twice = dequantized(quantized(once))
    assert all(torch.equal(once[name], twice[name]) for name in state)


def test_the_file_has_about_a_byte_for_a_weight(state, tmp_path):
    file = tmp_path / "small.safetensors"
    save_quantized(file, {name: value.contiguous() for name, value in state.items()})
    weights = sum(value.numel() for value in state.values())
    assert file.stat().st_size < 1.05 * weights + 12_000
    found = load_weights(file)
    assert all(
        torch.equal(found[name], value) for name, value in dequantized(quantized(state)).items()
    )


@pytest.mark.parametrize("size", [1.0, 1e-6, 1e-30, 1e30])
def test_scale_does_not_matter(size):
    weights = torch.randn((4, 3, 2, 2), generator=torch.Generator().manual_seed(0))
    found = dequantized(quantized({"weight": size * weights}))["weight"]
    torch.testing.assert_close(found / size, weights, rtol=0, atol=0.02)


def test_channels_of_zeros_stay_zero():
    weights = torch.tensor([[0.0, 0.0], [1.0, -2.0]])
    found = dequantized(quantized({"weight": weights}))["weight"]
    assert not found[0].any()
    torch.testing.assert_close(found[1], weights[1], rtol=0, atol=0.01)


@pytest.mark.parametrize(
    "other",
    [
        {"weight": torch.randn(2, 3)},
        {"table": torch.tensor([[1, -3]], dtype=torch.int8)},
        {"norm:scale": torch.ones(3), "norm": torch.zeros(3, dtype=torch.int8)},
        {"alone:scale": torch.ones(3)},
        {"half": torch.ones(2, 2).half(), "steps": torch.tensor(3)},
    ],
)
def test_other_files_are_read_as_they_are(other, tmp_path):
    save_file(other, tmp_path / "x.safetensors")
    found = load_weights(tmp_path / "x.safetensors")
    assert found.keys() == other.keys()
    for name, value in other.items():
        assert torch.equal(found[name], value) and found[name].dtype == value.dtype


@pytest.mark.parametrize(
    "value",
    [torch.zeros(3, 0), torch.tensor(3), torch.tensor([7e4, -1e-9]), torch.eye(3).long()],
)
def test_what_is_not_a_table_of_floats_stays_exact(value):
    found = dequantized(quantized({"x": value}))["x"]
    assert torch.equal(found, value) and found.dtype == value.dtype


def test_weights_in_another_layout_are_written(tmp_path):
    weights = torch.randn(4, 3, 2, 2).to(memory_format=torch.channels_last)
    save_quantized(tmp_path / "x.safetensors", {"weight": weights})
    found = load_weights(tmp_path / "x.safetensors")["weight"]
    assert torch.equal(found, dequantized(quantized({"weight": weights}))["weight"])


@pytest.mark.parametrize("scale", [torch.ones(3), torch.ones(2, 1), torch.tensor(1.0)])
def test_scales_of_another_shape_are_refused(scale):
    state = {"weight": torch.zeros((2, 3), dtype=torch.int8), "weight:scale": scale}
    with pytest.raises(ValueError, match="2 scales for weight"):
        dequantized(state)

"""Weights in 8 bits."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from unlearnable.engine.models import build_model
from unlearnable.engine.quantization import dequantized, quantized


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
            torch.testing.assert_close(found[name].to(value.dtype), value, rtol=1e-3, atol=1e-7)


def test_nothing_is_lost_twice(state):
    once = dequantized(quantized(state))
    twice = dequantized(quantized(once))
    assert all(torch.equal(once[name], twice[name]) for name in state)


def test_the_file_has_about_a_byte_for_a_weight(state, tmp_path):
    save_file(quantized(state), tmp_path / "small.safetensors")
    weights = sum(value.numel() for value in state.values())
    assert (tmp_path / "small.safetensors").stat().st_size < 1.05 * weights + 8000
    found = dequantized(load_file(tmp_path / "small.safetensors"))
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
        {"norm.scale": torch.ones(3), "norm": torch.zeros(3)},
        {"half": torch.ones(2, 2).half(), "steps": torch.tensor(3)},
    ],
)
def test_other_states_stay_as_they_are(other):
    found = dequantized(other)
    assert found.keys() == other.keys()
    assert all(found[name] is value for name, value in other.items())


@pytest.mark.parametrize("scale", [torch.ones(3), torch.ones(2, 1), torch.tensor(1.0)])
def test_scales_of_another_shape_are_refused(scale):
    state = {"weight": torch.zeros((2, 3), dtype=torch.int8), "weight:scale": scale}
    with pytest.raises(ValueError, match="2 scales for weight"):
        dequantized(state)

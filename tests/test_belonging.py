"""Rows belong to the images, classes and parameters that they were learned with."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import Subset, TensorDataset

import unlearnable as ue
from unlearnable.datasets import Shapes


def test_duplicates_with_other_labels_have_rows_of_their_own_wherever_they_are():
    images = np.random.default_rng(0).integers(0, 256, (20, 3, 8, 8), dtype=np.uint8)
    images = torch.from_numpy(np.concatenate([images, images]))
    labels = torch.tensor([i % 10 for i in range(20)] + [(i + 1) % 10 for i in range(20)])
    whole = TensorDataset(images, labels)
    perturbation = ue.RandomNoise().fit(whole, progress=False).perturbation_
    rows = ue.ProtectedDataset(whole, perturbation).to_tensors()[0]
    assert not torch.equal(rows[:20], rows[20:])
    order = torch.randperm(40, generator=torch.Generator().manual_seed(1)).tolist()
    for part in (range(20, 40), range(20), order):
        found = ue.ProtectedDataset(Subset(whole, part), perturbation).to_tensors()[0]
        assert torch.equal(found, rows[list(part)])


def test_classes_that_were_not_seen_are_named():
    data = Shapes(size=100)
    seen = Subset(data, [i for i in range(100) if data.targets[i] < 7])
    method = ue.EM.preset("demo", granularity="class-wise", max_rounds=1, stop_error=1.0)
    unseen = ", ".join(data.classes[7:])
    with pytest.warns(UserWarning, match=f"no images of: {unseen}; EM learned no change"):
        method.fit(seen, progress=False)
    assert method.protect(seen).change().linf > 0
    ue.RandomNoise(granularity="class-wise").fit(seen, progress=False)  # has one for all classes


@pytest.mark.parametrize(
    "changed", [{"epsilon": 32 / 255}, {"steps": 7}, {"seed": 9}, {"augment": {"grayscale": 0.5}}]
)
def test_new_rows_are_made_as_the_others_were(changed, tmp_path):
    data, more = Shapes(size=40), Shapes(size=10, seed=5)
    method = ue.TAP.preset("demo", train_epochs=1, steps=2).fit(data, progress=False)
    before = method.extend(more, progress=False).digest
    kept = method.get_params()
    method.set_params(**changed)
    (name,) = changed
    with pytest.raises(ValueError, match=f"expected {name}=.* as in the fit, got"):
        method.extend(more, progress=False)
    loaded = ue.TAP.from_pretrained(method.save_pretrained(tmp_path / "saved"))
    with pytest.raises(ValueError, match="as in the fit"):
        loaded.extend(more, progress=False)
    method.set_params(**{name: kept[name]}, batch_size=16)
    assert method.extend(more, progress=False).config["epsilon"] == 8 / 255
    method.set_params(batch_size=kept["batch_size"])
    assert method.extend(more, progress=False).digest == before


def test_a_network_that_is_frozen_as_a_whole_is_refused():
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10)).requires_grad_(False)
    for options in ({}, {"pretrained_surrogate": True}):
        method = ue.TAP.preset("demo", surrogate=network, train_epochs=1, steps=2, **options)
        with pytest.raises(ValueError, match="weights are all frozen"):
            method.fit(Shapes(size=40), progress=False)


def test_the_step_that_is_too_short_is_named():
    method = ue.MIUE.preset("demo", norm="L2", epsilon=1.0, step_size=100.0, train_epochs=1)
    with pytest.raises(ValueError, match="step_size= and first_step_size="):
        method.fit(Shapes(size=40), progress=False)

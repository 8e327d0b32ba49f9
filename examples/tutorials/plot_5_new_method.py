"""
Write a method of your own
==========================

You have an idea for a perturbation and want to know what it is worth. A method is one
class: it declares its parameters and writes down the paper's algorithm box. The base
class takes care of rounding, the budget, seeds, checkpoints, several processes, saving
and loading. Here is a method of twenty lines that trains nothing, then one that trains
a surrogate.
"""

# %%
# Twenty lines
# ------------
# The idea: networks like simple features, so give each class its own number of light
# and dark stripes. Class attributes say what kind of method it is, fields with defaults
# are its parameters, and ``_learn`` hands over the result. Rows are floats in [0, 1]
# units, one for each class.
import tempfile
from dataclasses import KW_ONLY, dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import unlearnable as ue
from unlearnable.engine.pgd import pgd
from unlearnable.engine.run import Run
from unlearnable.engine.train import sgd, to_float
from unlearnable.methods.parameters import Untrained, count, length


@dataclass(kw_only=True, repr=False, eq=False)
class Stripes(Untrained, ue.Method):
    """Stripes: one pair for the first class, two for the second, and so on."""

    granularities = ("class-wise",)
    seeded = False

    epsilon: float = 8 / 255
    norm: str = "Linf"
    granularity: str = "class-wise"
    seed: int = 0

    def _learn(self, run: Run) -> None:
        channels, height, width = run.images.shape[1:]
        periods = 1 + torch.arange(run.num_classes, device=run.device)[:, None]
        down = torch.arange(height, device=run.device)
        stripes = 1 - 2 * (2 * periods * down // height % 2)  # (K, H), 1 and -1
        shape = (run.num_classes, channels, height, width)
        run.result(
            "class-wise", rows=self.epsilon * stripes[:, None, :, None].expand(shape)
        )


# %%
# Fit it and look
# ---------------
# It is now a method like any other: it has ``fit``, ``protect`` and the rest.
trainset = ue.datasets.Shapes(size=1500)
testset = ue.datasets.Shapes(train=False, size=500)

stripes = Stripes().fit(trainset, progress=False)
protected = stripes.protect(trainset)
print(stripes.perturbation_)
print(protected.change())

# %%
# Rows of the first five classes, amplified, and an image of each class with and without
# its own.
fig, axes = plt.subplots(3, 5, figsize=(7, 4.3), layout="constrained")
for label, column in enumerate(axes.T):
    index = trainset.targets.index(label)
    row = np.asarray(stripes.perturbation_.rows[label]).astype(int).transpose(1, 2, 0)
    column[0].imshow(np.clip(128 + 15 * row, 0, 255).astype(np.uint8))
    column[1].imshow(protected.clean(index)[0])
    column[2].imshow(protected[index][0])
    column[0].set_title(trainset.classes[label])
for axis, name in zip(axes[:, 0], ("row x15", "clean", "protected"), strict=True):
    axis.set_ylabel(name)
for axis in axes.flat:
    axis.set_xticks([])
    axis.set_yticks([])
plt.show()

# %%
# Does it keep the contract?
# --------------------------
# Every method of the package promises the same things, and tests hold all of them to
# it. The ones that matter most here: it stays within the budget, gives the same bytes
# each time, and comes back from the disk as it was.
moved = np.abs(np.asarray(stripes.perturbation_.rows).astype(int)).max()
print("largest value:", moved, "of 255")
assert moved <= 255 * stripes.epsilon

again = Stripes().fit(trainset, progress=False)
assert again.perturbation_.info()["digest"] == stripes.perturbation_.info()["digest"]

folder = Path(tempfile.mkdtemp(prefix="unlearnable-")) / "stripes"
stripes.save_pretrained(folder)
loaded = ue.Perturbation.from_pretrained(folder)
assert loaded.info()["digest"] == stripes.perturbation_.info()["digest"]

# %%
# Parameters are checked before anything is learned. An ``epsilon`` in the wrong unit,
# which is an easy mistake to make, says so:
try:
    Stripes(epsilon=8).fit(trainset)
except ValueError as error:
    print(error)

# %%
# A method that learns
# --------------------
# Most methods train a surrogate network and search for perturbations against it. Such a
# method names its surrogate, counts its work in ``passes``, and loops only over
# ``run.batches`` and ``run.sweep``. These divide the images among processes, show
# progress and save checkpoints. Therefore everything that changes is registered with
# ``run.track`` before the first loop, and weights are updated only in
# ``run.train_step``.
#
# This one is error-minimising noise with a single step per visit: each batch moves the
# rows of its images down the surrogate's loss, then the surrogate learns from the
# result.


@dataclass(repr=False, eq=False)
class OneStep(ue.Method):
    """Error-minimising noise (arXiv:2101.04898) with one step per visit."""

    granularities = ("sample-wise",)

    surrogate: str | nn.Module = "tiny"
    _: KW_ONLY
    epsilon: float = 8 / 255
    norm: str = "Linf"
    step_size: float = length(4 / 255)
    train_steps: int = count(150)
    granularity: str = "sample-wise"
    batch_size: int = 128
    seed: int = 0

    def passes(self, num_images: int) -> int:
        return 2 * self.train_steps * self.batch_size + num_images

    def _learn(self, run: Run) -> nn.Module:
        surrogate = self._build_surrogate(run)
        optimizer = sgd(surrogate)
        run.track(surrogate=surrogate, optimizer=optimizer)
        for index in run.batches(self.train_steps, self.batch_size):
            run.rows[index] = self._perturb(run, index, surrogate)
            images = (to_float(run.images[index]) + run.rows[index]).clamp(0, 1)
            labels = run.labels[index]
            loss = run.train_step(
                surrogate,
                optimizer,
                lambda model, x=images, y=labels: F.cross_entropy(model(x), y),
            )
            run.log(loss=loss)
        for index in run.sweep(
            self.batch_size
        ):  # every image once, for the surrogate as it is now
            run.rows[index] = self._perturb(run, index, surrogate)
        return surrogate

    def _perturb(self, run: Run, index: Tensor, surrogate: nn.Module) -> Tensor:
        labels = run.labels[index]
        with run.frozen(surrogate) as network:
            return pgd(
                lambda x: F.cross_entropy(network(x), labels, reduction="sum"),
                to_float(run.images[index]),
                run.rows[index],
                epsilon=self.epsilon,
                step_size=self.step_size,
                steps=1,
                norm=self.norm,
            )


one_step = OneStep(train_steps=80).fit(trainset, progress=False)
print(one_step.perturbation_)

# %%
# Do they protect?
# ----------------
# The same victim, trained on clean images and on what each method made of them. Without
# the clean baseline the other figures would say nothing.
settings = {"victim": "tiny", "epochs": 12, "seeds": 1, "progress": False}
results = {
    "clean images": ue.evaluate(trainset, testset, **settings),
    "Stripes": ue.evaluate(protected, testset, **settings),
    "OneStep": ue.evaluate(one_step.protect(trainset), testset, **settings),
}
fig, axis = plt.subplots(figsize=(6, 3.2), layout="constrained")
for name, result in results.items():
    print(
        f"{name:12} test {result.mean('last'):6.1%}, "
        f"training {result.mean('train'):6.1%}"
    )
    axis.plot(range(1, len(result.curves[0]) + 1), result.curves[0], "o-", label=name)
axis.axhline(0.1, color="0.6", linestyle=":", linewidth=1)
axis.set(xlabel="epoch", ylabel="accuracy on clean test images", ylim=(0, None))
axis.set_title("Victims of two methods of our own")
axis.legend(frameon=False)
plt.show()

# %%
# What to expect
# --------------
# One seed of a small network on generated images is a first look, not evidence. A
# method that is to be taken seriously needs real images, several seeds, victims of
# other kinds than the surrogate, and victims that fight back: anyone who averages the
# images of a class sees its stripes and can subtract them.
#
# To make a method part of the package, put the class into a file in
# ``unlearnable/methods`` and add its name to the list there. The command line then has
# it, and the contract tests run on it:
#
# .. code-block:: console
#
#    $ pytest tests/test_contract.py -k OneStep
#
# What to read next
# -----------------
# - ``CONTRIBUTING.md`` in the repository goes through all of ``_learn``, step by step.
# - :doc:`plot_4_compare_methods` puts a method beside others, with random noise as the
#   control.
# - :doc:`plot_3_audit` lets victims fight back.

"""
Load a pre-made perturbation of CIFAR-10
========================================

Research often needs a protected CIFAR-10, but no new way of making one. Some
perturbations are small enough to be part of the package: they work by class, or are
computed, and cover all 50,000 images. This page loads some of them by name, looks at
them, and trains on images that carry one.
"""

# %%
# What is available
# -----------------
# ``list_pretrained`` lists what can be loaded by name. None of it has to be downloaded.
import os

import matplotlib.pyplot as plt
import numpy as np
from torch.utils.data import Subset
from torchvision.datasets import CIFAR10

import unlearnable as ue

for entry in ue.list_pretrained():
    print(
        f"{entry.name:26} {entry.method:17} "
        f"{entry.images:,} images, {entry.bytes:7,} bytes"
    )

# %%
# CIFAR-10, or something shaped like it
# -------------------------------------
# If you have CIFAR-10, name its folder in the environment variable ``CIFAR10_ROOT``:
# this script then uses its first images. Otherwise, as when this page was made,
# generated shapes under the names of CIFAR-10's classes take their place. The names
# matter: a perturbation finds the row of a class by its name, and refuses images of
# other classes.
root = os.environ.get("CIFAR10_ROOT")


def stand_in(**options):
    """Shapes that go by the names of CIFAR-10's classes."""
    shapes = ue.datasets.Shapes(**options)
    shapes.classes = ue.Perturbation.from_pretrained("cifar10-ops").config["classes"]
    shapes.class_to_idx = {name: index for index, name in enumerate(shapes.classes)}
    return shapes


if root is None:
    trainset, testset = stand_in(size=1500), stand_in(train=False, size=400)
else:
    trainset = Subset(CIFAR10(root), range(1500))
    testset = Subset(CIFAR10(root, train=False), range(400))

# %%
# Five perturbations of one image
# -------------------------------
# ``from_pretrained`` takes the name, ``ProtectedDataset`` adds the perturbation to the
# pixels of a dataset. The upper row shows what each changes, amplified around grey; the
# lower one the protected image.
kinds = ("ops", "em-class-wise", "lsp", "ar", "class-convolution")
names = [f"cifar10-{kind}" for kind in kinds]
protected = {
    name: ue.ProtectedDataset(trainset, ue.Perturbation.from_pretrained(name))
    for name in names
}

AMPLIFY, IMAGE = 4, 5
fig, axes = plt.subplots(2, len(names), figsize=(9, 4.1), layout="constrained")
for (upper, lower), (name, dataset) in zip(axes.T, protected.items(), strict=True):
    before = np.asarray(dataset.clean(IMAGE)[0]).astype(int)
    after = np.asarray(dataset[IMAGE][0]).astype(int)
    upper.imshow(np.clip(128 + AMPLIFY * (after - before), 0, 255).astype(np.uint8))
    lower.imshow(after.astype(np.uint8))
    upper.set_title(name.removeprefix("cifar10-"), fontsize=10)
    for axis in (upper, lower):
        axis.set_xticks([])
        axis.set_yticks([])
axes[0, 0].set_ylabel(f"change x{AMPLIFY}")
axes[1, 0].set_ylabel("protected")
plt.show()

# %%
# They differ in kind. ``OPS`` overwrites one pixel, a different one for each class
# (look for it in the lower row). ``EM``, here class-wise, adds the same row to all
# images of a class. ``LSP`` and ``AR`` compute a pattern of the class for each image,
# and ``ClassConvolution`` blurs each class with a kernel of its own. The figures of the
# change say how visible that is:
for name, dataset in protected.items():
    print(f"{name:26} {dataset.change(images=64)}")

# %%
# Train on them
# -------------
# ``evaluate`` trains a victim and tests it on clean images. The same network trained on
# unprotected images is the baseline to compare the others with.
settings = {"victim": "tiny", "epochs": 12, "seeds": 1, "progress": False}
results = {"unprotected": ue.evaluate(trainset, testset, **settings)}
for name in ("cifar10-ops", "cifar10-em-class-wise"):
    results[name] = ue.evaluate(protected[name], testset, **settings)
for name, result in results.items():
    print(
        f"{name:22} test {result.mean('last'):6.1%}, "
        f"training {result.mean('train'):6.1%}"
    )

# %%
# The accuracy on clean test images after each epoch:
fig, axis = plt.subplots(figsize=(6, 3.2), layout="constrained")
for name, result in results.items():
    axis.plot(range(1, len(result.curves[0]) + 1), result.curves[0], "o-", label=name)
axis.axhline(0.1, color="0.6", linestyle=":", linewidth=1)
axis.set(xlabel="epoch", ylabel="accuracy on clean test images", ylim=(0, None))
axis.set_title("Victims of pre-made perturbations")
axis.legend(frameon=False)
plt.show()

# %%
# What to expect
# --------------
# These figures are for a small number of generated shapes. They show that the victim
# prefers a pixel or a pattern of the class to the outline of a shape; they say nothing
# about CIFAR-10. For that you need the real set and all of its images, a network of the
# size that people train, such as ``"resnet18"``, and the protocol's 60 epochs.
#
# Rows for 50,000 images are too large to ship. For ``cifar10-sem``, ``cifar10-em``,
# ``cifar10-tap`` and some others the package has the networks that learned them
# instead, and ``from_pretrained("cifar10-sem", dataset=trainset)`` computes rows for
# the images at hand. People who have made other perturbations can share them on the
# Hugging Face Hub.
#
# What to read next
# -----------------
# - :doc:`/how-to/hub` loads and shares perturbations by ``owner/name``.
# - :doc:`/how-to/interop` imports the noise files that papers have published.
# - :doc:`/reference/leaderboard` has methods against countermeasures on the real
#   CIFAR-10.

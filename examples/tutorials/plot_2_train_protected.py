"""
Two lines in a training script
==============================

You have a training script, and want to know what would become of it if its data were
protected. Or you curate a dataset, and want to see what those who train on it would
see. Both take two lines: one imports ``unlearnable``, the other wraps the training set.
This page trains the same small network twice, with and without the second line, and
compares the two runs epoch by epoch.
"""

# %%
# An ordinary training script
# ---------------------------
# A dataset with its transforms, a loader, a network, an optimiser and a schedule:
# nothing here knows of any protection. ``Shapes`` stands in for your own dataset. It
# draws ten classes of shapes on textured backgrounds. Its test images are clean.
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from torch import nn
from torch.utils.data import DataLoader, Subset
from torchvision import transforms

import unlearnable as ue  # line 1
from unlearnable.engine.models import build_model

EPOCHS, BATCH_SIZE, LEARNING_RATE = 6, 32, 3e-3

augmented = transforms.Compose(
    [transforms.RandomHorizontalFlip(), transforms.ToTensor()]
)
testset = ue.datasets.Shapes(train=False, size=500, transform=transforms.ToTensor())
trainset = ue.datasets.Shapes(size=1500, transform=augmented)


def run(trainset):
    """Accuracy on training images and on clean test images, after each epoch."""
    torch.manual_seed(0)
    loader = DataLoader(trainset, BATCH_SIZE, shuffle=True)
    model = build_model("tiny", num_classes=10)
    optimizer = torch.optim.AdamW(model.parameters(), LEARNING_RATE)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, LEARNING_RATE, total_steps=EPOCHS * len(loader)
    )
    curves = {"training images": [], "clean test images": []}
    for epoch in range(EPOCHS):
        model.train()
        right = 0
        for images, labels in loader:
            logits = model(images)
            optimizer.zero_grad()
            nn.functional.cross_entropy(logits, labels).backward()
            optimizer.step()
            scheduler.step()
            right += int((logits.argmax(1) == labels).sum())
        curves["training images"].append(right / len(trainset))
        curves["clean test images"].append(accuracy(model, DataLoader(testset, 500)))
        print(
            f"epoch {epoch + 1}: training {curves['training images'][-1]:6.1%}, "
            f"clean test {curves['clean test images'][-1]:6.1%}"
        )
    return curves


@torch.no_grad()
def accuracy(model, loader):
    model.eval()
    right = sum(
        int((model(images).argmax(1) == labels).sum()) for images, labels in loader
    )
    return right / len(loader.dataset)


clean = run(trainset)

# %%
# The second line
# ---------------
# ``fit`` takes the training set and makes a perturbation, and ``protect`` wraps the
# set, so that each image carries what was made for it. The dataset's transforms run
# after that, as before. The original dataset is not changed, and the rest of the script
# stays the same. ``Gratings`` gives each class stripes or checks of its own period, 12
# of 255 levels up or down; it trains nothing, so the line takes only a moment.
trainset = ue.Gratings().fit(trainset, progress=False).protect(trainset)  # line 2

protected = run(trainset)

# %%
# What the network got to see
# ---------------------------
# The first six images of the set: clean, what was added to them, amplified 8 times
# around grey, and protected. ``trainset.clean(i)`` gives an image without its
# perturbation.
fig, axes = plt.subplots(3, 6, figsize=(7, 3.8), layout="constrained")
still = trainset.without_transforms()
for index, column in enumerate(axes.T):
    before = transforms.functional.pil_to_tensor(still.clean(index)[0]).int()
    after = transforms.functional.pil_to_tensor(still[index][0]).int()
    change = (128 + 8 * (after - before)).clamp(0, 255)
    for place, pixels in zip(column, (before, change, after), strict=True):
        place.imshow(pixels.byte().permute(1, 2, 0).numpy())
        place.set_xticks([])
        place.set_yticks([])
for axis, name in zip(axes[:, 0], ("clean", "change x8", "protected"), strict=True):
    axis.set_ylabel(name)
fig.suptitle("Images, clean and protected")
plt.show()

# %%
# Two runs of one script
# ----------------------
# On protected images the training accuracy rises sooner and higher than on clean ones,
# and anyone who looks only at the training curve sees a run that goes well. The clean
# test images tell the truth: the network has learned to read the perturbation, which
# they lack, and little about the shapes.
fig, axes = plt.subplots(1, 2, figsize=(8, 3.2), sharey=True, layout="constrained")
for axis, name in zip(axes, clean, strict=True):
    axis.plot(range(1, EPOCHS + 1), clean[name], "o-", label="trained on clean images")
    axis.plot(
        range(1, EPOCHS + 1), protected[name], "s-", label="trained on protected images"
    )
    axis.axhline(0.1, color="0.6", linestyle=":", linewidth=1)
    axis.set(title=f"accuracy on {name}", xlabel="epoch", ylim=(0, 1))
axes[0].legend(frameon=False)
axes[1].text(EPOCHS, 0.09, "guessing", ha="right", va="top", color="0.4")
plt.show()

# %%
# Learn once, load anywhere
# -------------------------
# The perturbation can be saved, and loaded in another script or on another day. The
# second line is then the one marked below. Images find their perturbation by content,
# so that a shuffled copy or a subset of the dataset is protected all the same.
saved = Path(tempfile.mkdtemp(prefix="unlearnable-")) / "my-perturbation"
trainset.perturbation.save_pretrained(saved)

perturbation = ue.Perturbation.from_pretrained(saved)
fewer = Subset(ue.datasets.Shapes(size=1500), range(100, 200))
fewer = ue.ProtectedDataset(fewer, perturbation)  # line 2
print(fewer)

# %%
# What to expect
# --------------
# Both runs here are short, and the images are toys: a network that trains longer gets
# further on clean images, and how far it gets on protected ones depends on the method,
# the data and what the trainer does to counter it. The :doc:`leaderboard
# </reference/leaderboard>` has such figures for CIFAR-10. Methods that learn, such as
# ``SEM``, take longer than a moment: ``fit`` estimates how long before it starts.
#
# What to read next
# -----------------
# - :doc:`/how-to/training` has the two lines for Lightning, timm, accelerate, Hugging
#   Face's Trainer and others.
# - :doc:`/how-to/wrapping` says which datasets can be wrapped.
# - :doc:`plot_3_audit` asks whether the protection holds when the trainer fights back.

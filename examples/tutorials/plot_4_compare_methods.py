"""
Compare methods
===============

There are many ways to make a dataset unlearnable, and they look and work quite
differently: some change one pixel, some blur, some search for a pattern for each image.
This page puts nine of them side by side on the same images, then trains the same victim
on some of them, on clean images, and on random noise as the control without which no
comparison is worth anything.
"""

# %%
# Nine methods, one interface
# ---------------------------
# All methods are fitted and used alike, so a comparison is a loop. Those that train
# nothing take only a moment. ``SEM`` trains a surrogate network, here a small one for a
# few steps.
import matplotlib.pyplot as plt
import numpy as np

import unlearnable as ue

trainset = ue.datasets.Shapes(size=1500)
testset = ue.datasets.Shapes(train=False, size=400)

methods = [
    ue.OPS(),
    ue.ClassConvolution(),
    ue.ColourShift(),
    ue.LSP(),
    ue.AR(),
    ue.SmoothFields(),
    ue.Gratings(),
    ue.SEM.preset("demo", train_steps=80),
    ue.RandomNoise(),
]
protected = {
    type(method).__name__: method.fit(trainset, progress=False).protect(trainset)
    for method in methods
}

# %%
# What they do to an image
# ------------------------
# Two images, as each method changes them: the protected image, and the change amplified
# 4 times around grey. ``SEM``, ``SmoothFields`` and ``RandomNoise`` change no value by
# more than 8 of 255 levels. ``LSP``, ``AR`` and ``Gratings`` have a budget in the L2
# norm and may go further in places. ``OPS`` has no budget and takes a whole pixel,
# ``ColourShift`` tints the image, and ``ClassConvolution`` blurs it, so that its change
# follows the edges.
AMPLIFY, IMAGES = 4, (3, 8)


def pixels(dataset, index):
    before = np.asarray(dataset.clean(index)[0]).astype(int)
    after = np.asarray(dataset[index][0]).astype(int)
    change = np.clip(128 + AMPLIFY * (after - before), 0, 255)
    return after.astype(np.uint8), change.astype(np.uint8)


fig, axes = plt.subplots(4, len(protected), figsize=(11, 5.2), layout="constrained")
for column, (name, dataset) in zip(axes.T, protected.items(), strict=True):
    column[0].set_title(name, fontsize=8)
    for pair, index in zip((column[:2], column[2:]), IMAGES, strict=True):
        for axis, picture in zip(pair, pixels(dataset, index), strict=True):
            axis.imshow(picture)
            axis.set_xticks([])
            axis.set_yticks([])
for axis, name in zip(axes[:, 0], ("protected", f"change x{AMPLIFY}") * 2, strict=True):
    axis.set_ylabel(name, fontsize=8)
plt.show()

# %%
# ``change`` measures how visible that is, on some of the images: the largest change of
# a value, the L2 norm, the number of pixels, and the similarity to the clean image.
for name, dataset in protected.items():
    print(f"{name:17} {dataset.change(images=64)}")

# %%
# What they do to a victim
# ------------------------
# ``evaluate`` trains the same network by the same protocol on each, and tests it on
# clean images. Of its figures, ``last`` is the accuracy after the last epoch and
# ``peak`` the best of any epoch, which is what somebody who knows when to stop gets.
# Two of the methods are enough for a first look.
settings = {"victim": "tiny", "epochs": 12, "seeds": 1, "progress": False}
compared = ("RandomNoise", "OPS", "SEM")
results = {"clean images": ue.evaluate(trainset, testset, **settings)}
results |= {
    name: ue.evaluate(protected[name], testset, **settings) for name in compared
}
for name, result in results.items():
    print(
        f"{name:13} last {result.mean('last'):6.1%}, peak {result.mean('peak'):6.1%}, "
        f"training {result.mean('train'):6.1%}"
    )

# %%
# A bar that ends near the dotted line belongs to a victim that does no better than
# guessing.
fig, axis = plt.subplots(figsize=(7, 3.2), layout="constrained")
colours = ["0.35", "0.6"] + ["tab:blue"] * (len(results) - 2)
last = [result.mean("last") for result in results.values()]
peak = [result.mean("peak") for result in results.values()]
axis.barh(list(results), last, color=colours)
axis.plot(peak, list(results), "|", color="black", markersize=14, label="peak")
axis.axvline(0.1, color="0.4", linestyle=":", linewidth=1)
axis.invert_yaxis()
axis.set(xlabel="accuracy on clean test images", xlim=(0, None))
axis.set_title("Victims trained on what each method made")
axis.legend(frameon=False)
plt.show()

# %%
# Random noise of the same size has to leave the victim about where clean images do. If
# it does not, something else is at work, such as too short a training or too few
# images, and the other bars cannot be trusted either.
#
# What to expect
# --------------
# One seed, few epochs and toy images: expect figures to move by several points with the
# seed, and the order of methods to be different on real data. And a bar says nothing
# about victims that fight back, which decide what a method is worth.
#
# What to read next
# -----------------
# - :doc:`/explanation/methods` helps you choose; there are more methods than these.
# - :doc:`/reference/leaderboard` compares them on CIFAR-10, against countermeasures.
# - :doc:`plot_3_audit` lets a victim fight back.

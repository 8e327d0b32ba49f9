"""
Protect a folder of photos
==========================

You are about to publish a collection of photos, sorted into folders by what they show,
and would rather not have a stranger train a classifier on them. ``unlearnable protect``
writes a copy of the folder that looks the same and is meant to teach such a classifier
little that it can use. This page runs it on five photos, looks at what it changed, and
checks the copies before they go out.
"""

# %%
# A folder of photos
# ------------------
# Your photos need a folder for each kind of picture, as in ``photos/animals`` and
# ``photos/people``. They may have any size and format. Here we write five photos that
# come with scikit-image, all of them free to use, into a temporary folder.
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image
from skimage import data
from torchvision.datasets import ImageFolder

import unlearnable as ue

folder = Path(tempfile.mkdtemp(prefix="unlearnable-"))

photos = {
    "animals": {"cat": data.chelsea()},
    "people": {"astronaut": data.astronaut(), "photographer": data.camera()},
    "things": {"coffee": data.coffee(), "rocket": data.rocket()},
}
for kind, pictures in photos.items():
    (folder / "photos" / kind).mkdir(parents=True)
    for name, pixels in pictures.items():
        Image.fromarray(pixels).save(folder / f"photos/{kind}/{name}.jpg", quality=95)

# %%
# One command
# -----------
# In a terminal you would type the line after the dollar sign, in the folder that holds
# ``photos``. This helper does the same from a script.


def shell(command):
    print("$", command)
    words = [sys.executable, "-m", *shlex.split(command)]
    done = subprocess.run(
        words, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    print(done.stdout)
    if done.returncode:
        print("exit status:", done.returncode)


shell("unlearnable protect photos out --image-size 64 --set train_steps=20")

# %%
# The command first says what it is going to do, then learns a perturbation and writes
# the copies to ``out``. Leave out both options for photos of your own: they keep this
# page short, at the price of a coarser pattern and a shorter search than the plan would
# choose.
#
# Two folders are new. ``out`` is what you publish. ``out-key`` is what was learned;
# anyone who has it can remove the protection, so keep it to yourself.
for path in sorted([*folder.glob("out/**/*.*"), *folder.glob("out-key/**/*.*")]):
    print(path.relative_to(folder))

# %%
# What changed
# ------------
# The same piece of each photo: before, after, and the difference, amplified 16 times
# around grey. The changes gather in fur, in hair and along edges. In smooth areas, such
# as the background of the portrait, where the eye would notice them, hardly anything
# moves.
AMPLIFY, SIDE = 16, 160
shown = {
    "animals/cat": (60, 130),
    "people/astronaut": (20, 150),
    "things/coffee": (80, 250),
}

fig, axes = plt.subplots(len(shown), 3, figsize=(7.2, 7.4), layout="constrained")
for row, (name, (top, left)) in zip(axes, shown.items(), strict=True):
    before = np.asarray(
        Image.open(folder / f"photos/{name}.jpg").convert("RGB")
    ).astype(int)
    after = np.asarray(Image.open(folder / f"out/{name}.png").convert("RGB")).astype(
        int
    )
    change = np.clip(128 + AMPLIFY * (after - before), 0, 255)
    for axis, pixels in zip(row, (before, after, change), strict=True):
        axis.imshow(pixels[top : top + SIDE, left : left + SIDE].astype(np.uint8))
        axis.set_xticks([])
        axis.set_yticks([])
    row[0].set_ylabel(name)
for axis, title in zip(axes[0], ("before", "after", f"change x{AMPLIFY}"), strict=True):
    axis.set_title(title)
plt.show()

# %%
# The same in figures: the largest change of any value, in levels of 255, and the
# similarity to the originals, as a signal-to-noise ratio (PSNR) and as structural
# similarity (SSIM, at most 1).
perturbation = ue.Perturbation.from_pretrained(folder / "out-key")
copies = ue.ProtectedDataset(
    ImageFolder(folder / "photos"), perturbation, full_size=True
)
print(copies.change())

# %%
# Check before you publish
# ------------------------
# ``verify`` compares the files of a folder with the key. Run it on what you are going
# to upload.
shell("unlearnable verify out out-key")

# %%
# Much can happen to files on their way. Suppose that an original has slipped in among
# the copies: the command names it, and its exit status is 1, so that a script can stop
# there.
Image.open(folder / "photos/things/rocket.jpg").save(folder / "out/things/rocket.png")
shell("unlearnable verify out out-key")

# %%
# What to expect
# --------------
# Five photos are enough to see what is done, and far too few to measure what it does:
# as a rule of thumb, that takes about a hundred in each folder. The protection is meant
# for classifiers that are trained from scratch on your copies. It does not stop image
# generators, face search or networks that have already learned from other pictures, and
# anyone who tries can remove it.
#
# What to read next
# -----------------
# - :doc:`/how-to/photos` has everything else about folders: visibility, sizes, JPEG,
#   metadata, one kind of picture, photos that you add later.
# - :doc:`plot_3_audit` measures whether a protection holds.
# - :doc:`/explanation/limits` lists what breaks it.

"""
Audit a protection and read the report
======================================

A protection that holds against a trainer who suspects nothing is not worth much if
saving the images as JPEG undoes it. An audit trains victims that fight back, on
protected images and on clean ones beside them, and reports the worst case first: the
countermeasure that gives a trainer most of what clean images would have given. This
page runs a small audit and goes through what it says.
"""

# %%
# Something to audit
# ------------------
# ``SmoothFields`` gives each class large patches of light and colour. It trains nothing
# and takes only a moment, and it has one strength and one weakness that an audit should
# find.
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt

import unlearnable as ue

trainset = ue.datasets.Shapes(size=1500)
testset = ue.datasets.Shapes(train=False, size=300)
perturbation = ue.SmoothFields().fit(trainset, progress=False).perturbation_
folder = Path(tempfile.mkdtemp(prefix="unlearnable-")) / "audit"

# %%
# Run it
# ------
# By default an audit tries some twenty countermeasures with a ResNet-18, which is work
# for a GPU. Here it tries two of them beside plain training, with a network of a few
# layers and twelve epochs. With ``folder=``, every finished cell is kept: an audit that
# was interrupted continues there, and so does one that is given more countermeasures.
report = ue.audit(
    trainset,
    perturbation,
    testset,
    victims=["tiny"],
    countermeasures=["none", "jpeg-30", "class-mean-subtraction"],
    epochs=12,
    folder=folder,
    progress=False,
)
print(report.verdict())

# %%
# The headline and the worst case
# -------------------------------
# A report begins with a few words that follow from one figure: the share of what clean
# images give that a trainer recovers. Guessing counts as nothing recovered, and what
# the same victim learns from clean images as everything. Up to 30 %, the protection
# held; from 70 % on, it did not hold.
print(report.headline())

# %%
# There are two worst cases, since there are two kinds of trainer. The **standard** one
# tries what is generally known and knows nothing of the method. The **adaptive** one
# has read the paper and knows the kind of perturbation, but has neither its seed nor
# clean images. ``SmoothFields`` adds the same row to all images of a class, so this
# trainer averages the images of each class and subtracts the differences.
for name, row in (
    ("standard", report.worst_standard),
    ("adaptive", report.worst_adaptive),
):
    print(
        f"{name}: {row.countermeasure} reaches {row.protected.peak:.1%}, "
        f"clean images give {report.clean:.1%}; recovered {report.recovered(row):.0%}"
    )

# %%
# The countermeasures, side by side
# ---------------------------------
# The chart shows, for each countermeasure, the victim's best epoch on clean test
# images, after training on protected and on clean images. Read the bars in pairs: a
# countermeasure that brings the blue bar up undoes the protection, and one that brings
# the grey bar down costs the trainer something, whether images are protected or not.
fig, axis = plt.subplots(figsize=(7, 3), layout="constrained")
rows = report.rows()
for offset, colour, name in ((-0.2, "tab:blue", "protected"), (0.2, "0.7", "clean")):
    peaks = [getattr(row, name).peak for row in rows]
    places = [place + offset for place in range(len(rows))]
    axis.barh(places, peaks, 0.4, color=colour, label=f"trained on {name} images")
names = [row.countermeasure + " *" * report.adaptive(row) for row in rows]
axis.set_yticks(range(len(rows)), names)
axis.axvline(report.chance, color="0.4", linestyle=":", linewidth=1)
axis.invert_yaxis()
axis.set(
    xlabel="best accuracy on clean test images (* knows the method)", xlim=(0, 0.8)
)
axis.set_title("Victims with and without countermeasures")
axis.legend(frameon=False)
plt.show()

# %%
# Expect JPEG to cost more than it gains here: in so short a training run the network
# learns little from such images, clean or not. Subtracting the class means brings the
# blue bar up to the grey one: this victim gets what clean images would have given it.

# %%
# The page that it writes
# -----------------------
# ``report.html`` has all of this on one page that needs no other file: the verdict, the
# table, curves, images before and after, how much they changed, and *who can undo it*,
# which says what somebody has to know to undo this kind of perturbation. ``report.md``
# and ``report.json`` are for other programs.
for path in sorted(folder.iterdir()):
    print(path.name)

print(*report.perturbation["who_can_undo"], sep="\n")

# %%
# .. figure:: /images/audit.webp
#    :alt: The top of a report: the verdict, the worst case, a table of countermeasures
#
#    The top of such a page: an audit of what ``unlearnable demo`` learns.
#
# What to expect
# --------------
# On generated images, in twelve epochs, victims are far from what they could reach, and
# so are those that fight back. An audit of this size shows which countermeasures hurt,
# but not how much they would give a trainer with patience. For figures to rely on,
# audit your own images with the full standard and adaptive sets, more than one victim
# and several seeds. That a protection held means only that nothing tried here undid it.
#
# What to read next
# -----------------
# - :doc:`/how-to/audit` explains every figure of the report, and audits without test
#   images.
# - :doc:`/explanation/countermeasures` lists the countermeasures, and who can undo
#   what.
# - :doc:`/reference/leaderboard` has the worst cases of all methods on CIFAR-10.

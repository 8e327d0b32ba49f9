"""
Stop a fit and resume it
========================

A method that learns a row for each of a million images runs for hours, and hours are
long enough for a reboot, a full disk or a queue that wants its machine back. With
``checkpoint=`` a fit keeps its state in a folder, and the same call continues from
there. On a CPU it ends with the same bytes as a fit that nobody stopped. This page
shows it.
"""

# %%
# A fit that nobody stops
# -----------------------
# First the fit as it should be. ``progress=`` takes a function that is called after
# each step with the share of the work done; ours keeps what it hears. The digest is a
# hash of everything that was learned.
import contextlib
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import unlearnable as ue

folder = Path(tempfile.mkdtemp(prefix="unlearnable-"))
trainset = ue.datasets.Shapes(size=200)
settings = {"train_steps": 40, "batch_size": 32, "seed": 0}

undisturbed = []
whole = ue.SEM.preset("demo", **settings).fit(trainset, progress=undisturbed.append)
print("digest:", whole.perturbation_.info()["digest"])

# %%
# A fit that breaks down
# ----------------------
# Now the same with a checkpoint, and with a failure in the middle of the work. Unless
# told otherwise, a fit saves its state every five minutes. This one takes only seconds,
# so ``checkpoint_every=0`` makes it save after every step.


class PowerCut(Exception):
    pass


first = []


def fail_halfway(share):
    first.append(share)
    if share > 0.5:
        raise PowerCut


checkpoint = {"checkpoint": folder / "checkpoint", "checkpoint_every": 0}
try:
    ue.SEM.preset("demo", **settings).fit(trainset, progress=fail_halfway, **checkpoint)
except PowerCut:
    print(f"the power went at {first[-1]:.0%}")

for path in sorted((folder / "checkpoint").iterdir()):
    print(f"{path.stat().st_size:9,} bytes  {path.name}")

# %%
# Everything that the fit needs is in these files: the surrogate, its optimiser and
# schedule, the position in each loop, the state of the random draws, and the rows so
# far. Nothing in them is pickled.
#
# Call it again
# -------------
# It is the same call, and nothing in it says that it resumes. It finds the checkpoint,
# does the rest, and removes the folder when it is done.
second = []
resumed = ue.SEM.preset("demo", **settings).fit(
    trainset, progress=second.append, **checkpoint
)
print("digest:", resumed.perturbation_.info()["digest"])
print("checkpoint left:", (folder / "checkpoint").exists())

same = np.array_equal(whole.perturbation_.rows, resumed.perturbation_.rows)
print("same rows:", same)

# %%
# The two attempts together took the steps of the undisturbed fit, and the row of the
# first image is the same as in that fit, value for value.
fig = plt.figure(figsize=(8, 3.2), layout="constrained")
grid = fig.add_gridspec(1, 4, width_ratios=[3, 1, 1, 1])
axis = fig.add_subplot(grid[0])
axis.plot(undisturbed, color="0.75", linewidth=6, label="undisturbed")
axis.plot(first, label="first attempt")
axis.plot(
    range(len(undisturbed) - len(second), len(undisturbed)),
    second,
    label="second attempt",
)
axis.set(xlabel="step", ylabel="share of the work done")
axis.legend(frameon=False)

rows = [
    np.asarray(p.rows[0]).astype(int)
    for p in (whole.perturbation_, resumed.perturbation_)
]
pictures = {"undisturbed": rows[0], "resumed": rows[1], "difference": rows[1] - rows[0]}
for place, (title, row) in enumerate(pictures.items(), 1):
    axis = fig.add_subplot(grid[place])
    axis.imshow(np.clip(128 + 15 * row, 0, 255).astype(np.uint8).transpose(1, 2, 0))
    axis.set_title(title)
    axis.axis("off")
plt.show()

# %%
# A checkpoint belongs to one fit
# -------------------------------
# Continuing with other parameters or other images would give something that no fit
# could have given. It is refused, and the message says which of them differs.
with contextlib.suppress(PowerCut):
    ue.SEM.preset("demo", **settings).fit(trainset, progress=fail_halfway, **checkpoint)
try:
    ue.SEM.preset("demo", **settings | {"train_steps": 60}).fit(trainset, **checkpoint)
except ValueError as error:
    print(str(error).replace(str(folder), "…"))

# %%
# On the command line
# -------------------
# ``unlearnable fit`` and ``protect`` take ``--checkpoint FOLDER``. Ctrl-C and SIGTERM,
# which clusters send before they end a job, finish the step and save first.
#
# .. code-block:: console
#
#    $ unlearnable fit photos my-perturbation --checkpoint my-checkpoint
#
# What to expect
# --------------
# The same bytes are promised for one machine's CPU with the same number of threads. A
# GPU sums in an order of its own, so there a resumed fit is as good as an undisturbed
# one, but not identical. An audit can be resumed too: give ``ue.audit`` a ``folder=``.
#
# What to read next
# -----------------
# - :doc:`/explanation/engine` says what a checkpoint costs, and how sets larger than
#   memory are streamed.
# - :doc:`plot_8_processes` shares a fit between processes. Its checkpoints may be
#   continued by more or fewer of them.
# - :doc:`plot_3_audit` measures what was learned.

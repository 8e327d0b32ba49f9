"""
Share a fit between several processes
=====================================

The search for perturbations of a million images divides well: images do not depend on
one another, and only the surrogate has to be kept in step. ``fit`` works with
``torchrun``: start the script that you have under it, with a process for each GPU, and
the processes share the images. On this page two processes share the CPU of one machine,
which is slower than one process but goes through the same motions.
"""

# %%
# A script that knows nothing of processes
# ----------------------------------------
# It makes a dataset, fits a method and saves the result. Under ``torchrun``, each
# process runs all of it. ``fit`` finds the others by itself, and ends in every process
# with the whole result. So the only thing to take care of is that one of them saves it.
import subprocess
import sys
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import unlearnable as ue

folder = Path(tempfile.mkdtemp(prefix="unlearnable-"))
script = folder / "fit.py"
source = """import os
import sys

import unlearnable as ue

trainset = ue.datasets.Shapes(size=200)
method = ue.SEM.preset("demo", train_steps=30, batch_size=32)
method.fit(trainset, progress=False)

rank, processes = os.environ.get("RANK", "0"), os.environ.get("WORLD_SIZE", "1")
digest = method.perturbation_.info()["digest"]
# In one piece, which print is not: the processes share the output.
sys.stdout.write(f"process {rank} of {processes}: {digest}\\n")
if rank == "0":
    method.save_pretrained(sys.argv[1])
"""
_ = script.write_text(source)

# %%
# One process, two processes
# --------------------------
# First as always, then under ``torchrun``, which is short for ``python -m
# torch.distributed.run``. In a terminal the second command would be ``torchrun
# --standalone --nproc-per-node 2 fit.py two``.


def run(*command):
    result = subprocess.run(
        [sys.executable, *command], cwd=folder, capture_output=True, text=True
    )
    print(result.stdout, end="")
    if result.returncode:
        raise RuntimeError(result.stderr)


run("fit.py", "one")

# %%
torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
run(*torchrun, "fit.py", "two")

# %%
# Both processes end with the same digest: they hold the same result. It is not the
# result of a single process, though.
#
# How much differs
# ----------------
# The images are divided into eight shards, and random draws depend on the shard, so
# that one process and two see the same batches and the same draws. What differs is
# rounding: sums are taken in another order, and BatchNorm sees the images of its own
# process. A search turns such small differences into different values of the same kind.
one, two = (ue.Perturbation.from_pretrained(folder / name) for name in ("one", "two"))
rows = [np.asarray(perturbation.rows).astype(int) for perturbation in (one, two)]
print(f"equal values: {(rows[0] == rows[1]).mean():.0%}")
print(f"largest value: {abs(rows[0]).max()} and {abs(rows[1]).max()} of 255")
print(
    "images without a row:",
    *(int((abs(row).max((1, 2, 3)) == 0).sum()) for row in rows),
)

# %%
# The rows of four images, amplified 15 times around grey, from one process and from
# two:
fig, axes = plt.subplots(2, 4, figsize=(6.4, 3.4), layout="constrained")
for line, name, found in zip(axes, ("one process", "two processes"), rows, strict=True):
    line[0].set_ylabel(name)
    for axis, row in zip(line, found, strict=False):
        axis.imshow(np.clip(128 + 15 * row, 0, 255).astype(np.uint8).transpose(1, 2, 0))
        axis.set_xticks([])
        axis.set_yticks([])
fig.suptitle("Rows of four images")
plt.show()

# %%
# On GPUs and on a cluster
# ------------------------
# On one machine, start as many processes as it has GPUs. The command line needs no
# script at all:
#
# .. code-block:: console
#
#    $ torchrun --nproc-per-node 8 -m unlearnable fit photos out --checkpoint c
#
# On several machines the same command runs on each. With Slurm that is a job such as
# this one, which has not been run here:
#
# .. code-block:: bash
#
#    #!/bin/bash
#    #SBATCH --nodes=2
#    #SBATCH --ntasks-per-node=1
#    #SBATCH --gpus-per-node=8
#    host=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
#    srun torchrun --nnodes 2 --nproc-per-node 8 \
#        --rdzv-backend c10d --rdzv-endpoint "$host:29500" \
#        -m unlearnable fit photos /shared/out --checkpoint /shared/checkpoint
#
# The checkpoint lies on a file system that all machines see. When the job runs out of
# time, submit it again: it continues, and may have more or fewer processes than before.
#
# What to expect
# --------------
# Any number of processes will do. Two on one core, as here, are slower than one; what
# several GPUs gain depends on the surrogate and the batch. As for strength,
# :doc:`/explanation/engine` has victims trained on what one, two and four processes
# made.
#
# What to read next
# -----------------
# - :doc:`/explanation/engine` has the rules for file systems, shards and several
#   machines.
# - :doc:`plot_7_resume` stops a fit and resumes it.
# - :doc:`/how-to/training` has the two lines for training code with
#   ``DistributedSampler``.

"""Fits in any number of processes: who has which images, and that all come to one result."""

import functools
import os
import socket
import subprocess
import sys

import numpy as np
import pytest
import torch
from fit_everything import RESUMED, SIZE
from test_contract import HERE, SUPPORTED, images_of, make, one_thread, run_script  # noqa: F401
from test_engine import make_run
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from unlearnable.datasets import Shapes
from unlearnable.engine import distributed, sampler
from unlearnable.engine.distributed import Group
from unlearnable.engine.models import build_model
from unlearnable.engine.sampler import Shards, dealt
from unlearnable.methods.row_buffer import RowFile

SCRIPT = str(HERE / "fit_everything.py")

# --- shards --------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", range(1, 14))
@pytest.mark.parametrize("shards", [8, 12, 13])
def test_shards_are_dealt_out_in_order_and_as_evenly_as_they_can_be(shards, size):
    parts = [dealt(shards, rank, size) for rank in range(min(size, shards))]
    assert [shard for part in parts for shard in part] == list(range(shards))
    assert len({len(part) for part in parts}) <= 2 and len(parts[0]) - len(parts[-1]) <= 1


def test_three_processes_have_three_three_and_two_shards():
    assert [list(dealt(8, rank, 3)) for rank in range(3)] == [[0, 1, 2], [3, 4, 5], [6, 7]]


@pytest.mark.parametrize(("size", "count"), [(1, 8), (3, 8), (8, 8), (9, 9), (12, 12), (64, 64)])
def test_there_are_eight_shards_or_as_many_as_processes(size, count):
    parts = [Shards(100, group=Group(rank, size)) for rank in range(size)]
    assert {part.count for part in parts} == {count}
    assert sum(part.weight for part in parts) == pytest.approx(size)
    for part in parts:
        assert part.weight == pytest.approx(len(part.own) * size / count)
        assert part.weight == 1 or count % size  # where all have the same, nothing is multiplied


def test_a_resumed_run_keeps_its_number_of_shards(tmp_path, monkeypatch):
    def batches(run, number):
        return [index.tolist() for index, _ in zip(run.batches(9, 24), range(number), strict=False)]

    with monkeypatch.context() as patch:
        patch.setattr(sampler, "SHARDS", 12)  # as in a run of 12 processes
        expected = batches(make_run(100), 9)
        for index in (run := make_run(100, folder=tmp_path)).batches(9, 24):
            assert index.tolist() == expected[run._loops.path[-1][1]]
            if run._loops.path[-1][1] == 4:
                break
    assert len(expected[0]) == 24
    assert batches(make_run(100, folder=tmp_path), 5) == expected[4:]
    with pytest.raises(ValueError, match=r"at most as many processes as the 12 shards .* got 13"):
        make_run(100, folder=tmp_path, group=Group(0, 13))


def test_batches_of_a_resumed_run_are_those_of_the_processes_it_began_with():
    twelve = [Shards(100, group=Group(rank, 12)) for rank in range(12)]
    for size in (1, 5, 11):
        others = [Shards(100, group=Group(rank, size), count=12) for rank in range(size)]
        for position in range(20):
            for part in ("batch", "sweep"):
                arguments = ("train", position, 40) if part == "batch" else (position % 3, 40)
                expected = [b for shards in twelve for b in getattr(shards, part)(*arguments)]
                found = [b for shards in others for b in getattr(shards, part)(*arguments)]
                assert len(found) == len(expected) == 12
                assert all(map(torch.equal, found, expected))


@pytest.mark.parametrize("size", [1, 3, 8, 12])
def test_every_flag_of_an_image_is_one_processs(size):
    flags = torch.arange(53) % 3 > 0
    parts = [Shards(53, group=Group(rank, size)) for rank in range(size)]
    assert torch.equal(sum(part.own_of(flags).int() for part in parts), flags.int())
    for part in parts:
        swept = torch.cat([torch.cat(part.sweep(step, 16)) for step in range(9)])
        assert torch.equal(part.own_of(flags).nonzero()[:, 0], swept[flags[swept]].sort().values)


def test_what_cannot_be_shared_is_refused():
    with pytest.raises(ValueError, match="at least 12 images for 12 processes, got 11"):
        Shards(11, group=Group(0, 12))
    with pytest.raises(ValueError, match="at least 8 images for 2 processes, got 5"):
        Shards(5, group=Group(0, 2))
    with pytest.raises(ValueError, match=r"at most as many processes as the 12 shards .* got 13"):
        Shards(100, group=Group(0, 13), count=12)
    assert Shards(5).count == 1


def test_fewer_processes_bring_back_the_rows_of_all_that_wrote_them(tmp_path):
    def rows(value, index):
        return np.full((len(index), 1, 2, 2), value, dtype=np.int8)

    path, images = tmp_path / "rows", np.arange(20)
    files = [RowFile(path, (20, 1, 2, 2), rank=rank) for rank in range(12)]
    for rank, file in enumerate(files):
        own = images[images % 12 == rank]
        file.write(own, rows(rank + 1, own))
        file.start_journal(1)
        file.write(own[:1], rows(100, own[:1]))  # after the checkpoint, and not all of them
        file.close()
    one, other = (RowFile(path, (20, 1, 2, 2), rank=rank) for rank in range(2))
    one.roll_back(1)
    assert np.array_equal(one.rows[:, 0, 0, 0], images % 12 + 1)
    for file in (one, other):
        file.start_journal(1)
        file.close()
    found = sorted(file.name for file in tmp_path.iterdir())
    assert found == ["rows", "rows.journal-1-0", "rows.journal-1-1"]


# --- running statistics --------------------------------------------------------------------------


def float_buffers(model):
    return [buffer for buffer in model.buffers() if buffer.is_floating_point()]


@pytest.mark.parametrize("size", [2, 3, 12])
def test_running_statistics_are_weighted_by_shards(size, monkeypatch):
    total = torch.zeros(())

    def others_have_added(flat):
        total.add_(flat[0])
        flat.copy_(flat.roll(1))

    monkeypatch.setattr(distributed.dist, "all_reduce", others_have_added)
    for rank in range(size):
        model = nn.Sequential(nn.BatchNorm2d(3), nn.BatchNorm2d(2))
        for buffer in float_buffers(model):
            buffer.fill_(rank + 1)
        model[1].running_var.zero_()
        weight = Shards(40, group=Group(rank, size)).weight
        Group(rank, size).mean_buffers(model, weight)
        share = (rank + 1) * weight / size
        assert model[0].running_mean.tolist() == pytest.approx([0, share, share])
        assert model[1].running_var.tolist() == pytest.approx([share, 0])
    shards = max(8, size)
    of_shards = [rank + 1 for rank in range(size) for _ in dealt(shards, rank, size)]
    assert total.item() == pytest.approx(sum(of_shards) / shards)


class Launches(TorchDispatchMode):
    """Operators that do work on a GPU."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if not function.is_view and "split" not in str(function):
            self.names.append(str(function))
        return function(*args, **(kwargs or {}))


def test_the_mean_of_many_buffers_takes_a_few_launches(monkeypatch):
    monkeypatch.setattr(distributed.dist, "all_reduce", lambda flat: None)
    model = build_model("resnet18", 10, 3, seed=0)
    assert len(float_buffers(model)) == 40
    with Launches() as launches:
        Group(0, 2).mean_buffers(model)
    assert launches.names == ["aten.cat.default", "aten.mul_.Tensor", "aten._foreach_copy_.default"]


# --- whole fits ----------------------------------------------------------------------------------


def arrays(path):
    with np.load(path) as found:
        return dict(found)


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    folder = tmp_path_factory.mktemp("learned")
    for processes in (1, 2, 3, 5):
        run_script(sys.executable, SCRIPT, "learn", str(folder), str(processes))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 3, 5])
def test_gradients_statistics_and_tallies_are_means_over_all_images(learned, processes):
    expected = arrays(learned / "1-0.npz")
    first = arrays(learned / f"{processes}-0.npz")
    assert set(first) >= {"norm.running_mean", "linear.weight", "loss", "accuracy"}
    for rank in range(processes):
        found = arrays(learned / f"{processes}-{rank}.npz")
        for name in set(expected) - {"norm.running_var"}:  # without the variance of batches' means
            assert np.allclose(found[name], expected[name], rtol=1e-4, atol=1e-6), name
        assert all(np.array_equal(found[name], first[name]) for name in first)


@pytest.mark.slow
def test_a_loss_that_couples_the_images_of_a_batch_sees_all_of_them(tmp_path):
    """Without BatchNorm, which sees one process's images, only the order of sums differs."""
    for processes in (1, 2, 3):
        run_script(sys.executable, SCRIPT, "couple", str(tmp_path), str(processes))
    alone = arrays(tmp_path / "1-0.npz")
    assert alone["rows"].any((1, 2, 3)).all()
    for processes in (2, 3):
        for rank in range(processes):
            found = arrays(tmp_path / f"{processes}-{rank}.npz")
            assert found.keys() == alone.keys()
            assert (found["rows"] == alone["rows"]).mean() > 0.995
            for name in set(alone) - {"rows"}:
                assert np.allclose(found[name], alone[name], rtol=1e-2, atol=1e-4), name


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of what a number of processes fits when nobody disturbs them."""

    @functools.cache
    def fit(processes):
        folder = tmp_path_factory.mktemp("whole")
        run_script(sys.executable, SCRIPT, "share", str(folder), str(processes))
        return folder

    return fit


def check_whole(folder, processes, case):
    """All processes end with one result, of the form that one process gives; returns both."""
    name = f"{case[0].__name__}-{case[1]}"
    first, *others = (arrays(folder / f"{name}-{rank}.npz") for rank in range(processes))
    for other in others:
        assert first.keys() == other.keys()
        assert all(np.array_equal(first[n], other[n]) for n in first)
    dataset = Shapes(size=SIZE)
    fitted = make(*case).fit(dataset, precision="float32", progress=False)
    alone = fitted.perturbation_
    assert first.keys() == {*alone.tensors, "images"}
    assert all(first[n].shape == tensor.shape for n, tensor in alone.tensors.items())
    if alone.kind == "additive":
        assert np.array_equal(first["rows"].any(axis=(1, 2, 3)), alone.rows.any(axis=(1, 2, 3)))
    passes = {int((folder / f"{name}-{rank}.passes").read_text()) for rank in range(processes)}
    if processes <= 8:
        assert passes == {alone.config["history"]["passes"]}
        if not any(passes):  # without a network nothing depends on how the work is shared
            assert all(np.array_equal(first[n], tensor) for n, tensor in alone.tensors.items())
            assert np.array_equal(first["images"], images_of(fitted, dataset))
    assert len(passes) == 1 and list(folder.glob("checkpoint-*")) == []


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("case", SUPPORTED, ids=lambda case: f"{case[0].__name__}-{case[1]}")
@pytest.mark.parametrize("processes", [3, 12])
def test_unequal_and_many_processes_share_the_work(processes, case, whole):
    check_whole(whole(processes), processes, case)


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after"), [(3, 2), (2, 3), (12, 5), (12, 1)])
def test_a_fit_goes_on_with_another_number_of_processes(before, after, whole, tmp_path):
    run_script(sys.executable, SCRIPT, "resume", str(tmp_path), str(before), str(after))
    undisturbed = whole(12 if before == 12 else 3)
    for name in RESUMED:
        messages = [path.read_text() for path in (tmp_path / name).glob("message-*")]
        assert len(messages) == before - 1
        assert all(f"expected {before} processes to continue together" in m for m in messages)
        found = arrays(tmp_path / name / f"{name}.npz")
        expected = arrays(undisturbed / f"{name}-0.npz")
        if "rows" in found:  # of every image, or of every class that there is
            assert np.array_equal(found["rows"].any((1, 2, 3)), expected["rows"].any((1, 2, 3)))
        if name.startswith(("RandomNoise", "OPS")):  # no network amplifies rounding
            assert all(np.array_equal(found[n], expected[n]) for n in expected | found)
        assert not (tmp_path / name / "checkpoint").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_processes_on_two_hosts_share_the_work(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    path = os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    agents = []
    for host, processes in enumerate((2, 1)):
        options = ["--nnodes", "2", "--node-rank", str(host), "--nproc-per-node", str(processes)]
        options += ["--master-addr", "127.0.0.1", "--master-port", str(port)]
        command = [sys.executable, "-m", "torch.distributed.run", *options, SCRIPT, "join"]
        command += [str(tmp_path), "SEM", "OPS"]
        agents.append(subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True))
    messages = [agent.communicate(timeout=300)[1] for agent in agents]
    assert [agent.returncode for agent in agents] == [0, 0], messages
    for case in SUPPORTED:
        if case[0].__name__ in ("SEM", "OPS"):
            check_whole(tmp_path, 3, case)


@pytest.mark.slow
def test_machines_without_a_file_system_in_common_are_refused(tmp_path):
    run_script(sys.executable, SCRIPT, "apart", str(tmp_path))
    messages = {(tmp_path / f"message-{rank}").read_text() for rank in range(2)}
    assert len(messages) == 1 and "expected a folder that all 2 processes can see" in messages.pop()
    assert list(tmp_path.glob("*/checkpoint/*.partial")) == []

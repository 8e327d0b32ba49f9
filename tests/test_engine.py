"""Checkpoints, streaming and sharding: the machinery below every method."""

import errno
import functools
import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import unlearnable as ue
from unlearnable.datasets import Shapes
from unlearnable.engine import checkpoint as checkpoint_module
from unlearnable.engine import folding
from unlearnable.engine.checkpoint import Checkpoint, load_tree, save_tree
from unlearnable.engine.distributed import Group
from unlearnable.engine.prefetch import StreamedImages
from unlearnable.engine.random import CPU
from unlearnable.engine.run import Run
from unlearnable.engine.sampler import Shards, batches_for
from unlearnable.methods import fit_session as fitting
from unlearnable.methods import row_buffer as rows_module
from unlearnable.methods.checkpoint_folder import _flat, remove_checkpoint
from unlearnable.methods.row_buffer import RowBuffer, RowFile
from unlearnable.perturbation.quantize import encode


class Crash(Exception):
    pass


def make_run(count=40, folder=None, group=None, **options):
    images = torch.arange(count * 3 * 4 * 4).reshape(count, 3, 4, 4).remainder(256).to(torch.uint8)
    checkpoint = None if folder is None else Checkpoint(folder, None, Group(), every=0)
    labels = torch.arange(count) % 5
    return Run(images, labels, 5, checkpoint=checkpoint, group=group, **options)


def sem(**overrides):
    small = {"train_steps": 3, "final_steps": 1, "steps": 1, "batch_size": 16}
    return ue.SEM.preset("demo", **(small | overrides))


def bytes_of(method):
    return method.perturbation_.rows.tobytes()


# --- loops ---------------------------------------------------------------------------------------


def algorithm(run, seen):
    """Nested loops of every kind, a stop, something kept, and code between the loops."""
    total = torch.zeros((), dtype=torch.float64)
    run.track(total=total)
    for outer in run.steps(3):
        start = run.cached(f"start-{outer}", lambda: sum_of_batches(run))
        for index in run.batches(3, 16):
            total += index.sum() * run.rng("x").uniform((len(index),), 0, 1).sum()
            run.tally("index", index.sum(), len(index))
            seen.append((outer, "batch", index.tolist()))
        for index in run.sweep(16):
            total += index.sum() + start
            seen.append((outer, "sweep", index.tolist()))
        run.log(mean=run.mean("index"), total=total)
        run.stop(outer == 1)
    for index in run.batches(2, 16):
        total -= index.sum()
    return total.item()


def sum_of_batches(run):
    found = torch.zeros((), dtype=torch.float64)
    run.track(**{f"found-{len(run.history)}": found})
    for index in run.batches(2, 16, stream="other"):
        found += index.sum()
    return found


def stop_after(number, monkeypatch, *, saved):
    """Crashes a run at one of its checkpoints, after or before it is written."""
    after_step, calls = Checkpoint.after_step, []

    def crash(self, save):
        calls.append(None)
        if saved or len(calls) < number:
            after_step(self, save)
        if len(calls) == number:
            raise Crash

    monkeypatch.setattr(Checkpoint, "after_step", crash)


@pytest.mark.parametrize("saved", [True, False])
def test_a_run_resumed_anywhere_does_what_an_unbroken_one_does(saved, tmp_path, monkeypatch):
    unbroken, steps = make_run(), []
    expected = algorithm(unbroken, steps)
    crashes = 0
    while True:
        folder = tmp_path / str(crashes)
        folder.mkdir()
        with monkeypatch.context() as patch:
            stop_after(crashes + 1, patch, saved=saved)
            seen = []
            try:
                algorithm(make_run(folder=folder), seen)
                break
            except Crash:
                crashes += 1
        resumed = make_run(folder=folder)
        assert algorithm(resumed, seen) == expected
        assert resumed.history == unbroken.history
        # Only a step whose checkpoint was not written is done twice.
        twice = [step for step, before in zip(seen[1:], seen, strict=False) if step == before]
        assert len(twice) <= (not saved)
        assert [s for i, s in enumerate(seen) if i == 0 or s != seen[i - 1]] == steps
    assert crashes == 2 * (2 + 3 + 3 + 1) + 2  # two rounds of all loops, then the last one


def test_loops_that_differ_from_the_checkpoints_are_not_resumed_in_silence(tmp_path, monkeypatch):
    stop_after(2, monkeypatch, saved=True)
    run = make_run(folder=tmp_path)
    with pytest.raises(Crash):
        for _ in run.steps(2):
            list(run.steps(2))
    resumed = make_run(folder=tmp_path)
    with pytest.raises(RuntimeError, match="got others"):
        list(resumed.steps(2))
        list(resumed.steps(2))


def test_batches_among_a_part_of_the_images_hold_the_same_ones_each_epoch():
    def drawn(among, group=None, seed=0):
        run = make_run(85, group=group, seed=seed)
        return [index.tolist() for index in run.batches(6, 16, among=among)]

    batches = drawn(35)  # 4 of each of the 8 shards: two batches an epoch
    epochs = [sorted(batches[first] + batches[first + 1]) for first in (0, 2, 4)]
    assert epochs[0] == epochs[1] == epochs[2]
    assert len(set(epochs[0])) == 32 and {image % 8 for image in epochs[0]} == set(range(8))
    assert len({tuple(batch) for batch in batches}) == 6
    assert drawn(35, seed=1) != batches
    parts = [drawn(35, Group(rank, 2)) for rank in range(2)]
    assert [a + b for a, b in zip(*parts, strict=True)] == batches
    assert drawn(85) == drawn(1000) == drawn(None) != batches
    run = make_run(85)
    swept = list(run.sweep(20, among=35))
    assert [len(index) for index in swept] == [16, 16]
    assert sorted(torch.cat(swept).tolist()) == epochs[0]


@pytest.mark.parametrize(
    ("visits", "images", "among", "expected"),
    [
        (12.8, 50_000, None, 5000),
        (30, 50_000, 5000, 1172),
        (30, 2000, 5000, 469),
        (0.1, 64, 8, 1),
        (12.8, 20, 15, 13),
    ],
)
def test_visits_are_counted_in_batches(visits, images, among, expected):
    assert batches_for(visits, images, 128, among) == expected


@pytest.mark.parametrize("size", [2, 3, 4, 7, 8])
def test_batches_and_draws_are_the_same_for_any_number_of_processes(size):
    def record(group):
        run, found = make_run(85, group=group), []
        for loop in (run.batches(9, 24), run.sweep(20)):
            for index in loop:
                found.append((index, run.rng("x").uniform((2 * len(index), 3), 0, 1)))
        return found

    alone = record(Group())
    parts = [record(Group(rank, size)) for rank in range(size)]
    assert all(len(part) == len(alone) for part in parts)
    for step, (index, draws) in enumerate(alone):
        assert torch.equal(torch.cat([part[step][0] for part in parts]), index)
        assert torch.equal(torch.cat([part[step][1] for part in parts]), draws)


def test_a_part_of_torchruns_variables_starts_no_group(monkeypatch, caplog):
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WORLD_SIZE", "4")
    with caplog.at_level("WARNING"):
        group = Group.join()
    assert (group.rank, group.size) == (0, 1)
    assert "WORLD_SIZE=4 is ignored without RANK, MASTER_ADDR, MASTER_PORT" in caplog.text
    sem().fit(Shapes(size=43), progress=False)


def test_batches_of_a_sweep_are_made_once(monkeypatch):
    made, sweep = [], Shards.sweep

    def counted(self, step, batch_size, among):
        made.append(step)
        return sweep(self, step, batch_size, among)

    monkeypatch.setattr(Shards, "sweep", counted)
    for run in (make_run(), Run(StreamedImages(make_run().images, CPU), torch.arange(40) % 5, 5)):
        made.clear()
        assert sum(len(index) for index in run.sweep(16)) == 40
        assert made == [0, 1, 2]


def test_streamed_batches_are_read_ahead_by_one_and_no_further():
    asked = []

    class Images(StreamedImages):
        def prefetch(self, index, rows):
            asked.append(rows.tolist())
            super().prefetch(index, rows)

    images = Images(make_run().images, CPU)
    run = Run(images, torch.arange(40) % 5, 5)
    seen = [index.tolist() for index in run.batches(3, 16)]
    assert asked == seen[1:]
    images.close()


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # torch looks at it while compiling
def test_a_compiled_network_is_compiled_a_few_times_and_left_as_it_was(monkeypatch):
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=backend))
    method = sem(train_steps=6)
    method.fit(Shapes(size=43), progress=False, compile=True)
    assert 2 <= len(graphs) <= 4  # searching and training, with and without gradients of weights
    assert "forward" not in vars(method.surrogate_)
    monkeypatch.setattr(folding, "foldable", lambda network: [])  # what is compiled is not folded
    expected = sem(train_steps=6).fit(Shapes(size=43), progress=False)
    assert list(method.surrogate_.state_dict()) == list(expected.surrogate_.state_dict())
    assert bytes_of(method) == bytes_of(expected)


def test_what_a_resumed_run_would_do_twice_is_refused_at_once():
    run = make_run()
    for act in (
        lambda: run.log(x=1),
        lambda: run.rng("x"),
        lambda: run.tally("x", torch.tensor(1.0), 1),
    ):
        with pytest.raises(RuntimeError, match="would repeat"):
            for _ in run.steps(1):
                act()
                list(run.steps(1))


@pytest.mark.parametrize("number", range(1, 7))
def test_loops_inside_batches_are_resumed_with_their_batch(number, tmp_path, monkeypatch):
    def algorithm(run):
        found = []
        for index in run.batches(2, 16):
            for step in run.steps(2):
                found.append((index.tolist(), step))
        return found

    expected = algorithm(make_run())
    with monkeypatch.context() as patch:
        stop_after(number, patch, saved=True)
        with pytest.raises(Crash):
            algorithm(make_run(folder=tmp_path))
    rest = algorithm(make_run(folder=tmp_path))
    assert rest == expected[len(expected) - len(rest) :]
    assert len(rest) == 4 - number + (number > 2) + (number > 5)


def test_layers_with_randomness_of_their_own_repeat_and_leave_the_global_state():
    def fit():
        surrogate = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(3 * 32 * 32, 10))
        return ue.SEM.preset("demo", surrogate=surrogate, train_steps=3, batch_size=16).fit(
            Shapes(size=43), progress=False
        )

    torch.manual_seed(0)
    first = fit()
    torch.manual_seed(1)
    state = torch.get_rng_state()
    assert bytes_of(first) == bytes_of(fit_after_state(fit, state))


def fit_after_state(fit, state):
    """Fits, and checks that only building the caller's own network moved the global generator."""
    torch.set_rng_state(state)
    nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(3 * 32 * 32, 10))
    built = torch.get_rng_state()
    torch.set_rng_state(state)
    fitted = fit()
    assert torch.equal(torch.get_rng_state(), built)
    return fitted


# --- what a checkpoint holds ----------------------------------------------------------------------


def test_a_tree_comes_back_as_it_was(tmp_path):
    tree = {
        "weights": torch.randn(4, 3, 2, 2).to(memory_format=torch.channels_last),
        "state": {0: {"momentum": torch.arange(3), "lr": 0.1}, 1: None},
        "list": [True, "text", -1, float("inf"), torch.tensor(2.5, dtype=torch.float64)],
    }
    save_tree(tmp_path / "tree", tree)
    found = load_tree(tmp_path / "tree")
    assert torch.equal(found["weights"], tree["weights"])
    assert found["weights"].is_contiguous(memory_format=torch.channels_last)
    assert found["state"][0]["momentum"].tolist() == [0, 1, 2]
    assert found["state"][0]["lr"] == 0.1 and found["state"][1] is None
    assert found["list"] == tree["list"]
    with pytest.raises(TypeError, match="plain values"):
        save_tree(tmp_path / "tree", {"function": print})
    assert load_tree(tmp_path / "tree")["list"] == tree["list"]


def make_file(folder, count=6):
    file = RowFile(folder / "rows.bin", (count, 1, 2, 2))
    return file, RowBuffer((count, 1, 2, 2), 8 / 255, "Linf", torch.device("cpu"), file=file)


def levels(value, count):
    return np.full((count, 1, 2, 2), value, dtype=np.int8)


def test_rows_go_back_to_their_checkpoint(tmp_path):
    file, _ = make_file(tmp_path)
    file.start_journal(0)
    file.write(np.array([0, 1]), levels(1, 2))
    file.start_journal(1)
    file.write(np.array([1, 2]), levels(2, 2))
    file.write(np.array([1, 3]), levels(3, 2))
    file.close()
    again, _ = make_file(tmp_path)
    again.roll_back(1)
    assert again.rows[:, 0, 0, 0].tolist() == [1, 1, 0, 0, 0, 0]
    again.start_journal(1)
    again.write(np.array([0]), levels(5, 1))
    again.roll_back(2)  # a later checkpoint: what was noted for the one before does not count
    assert again.rows[0, 0, 0, 0] == 5
    assert list(tmp_path.glob("*journal*")) == []


def test_a_half_written_journal_record_is_left_alone(tmp_path):
    file, _ = make_file(tmp_path)
    file.start_journal(0)
    file.write(np.array([0, 1]), levels(1, 2))
    file.close()
    (journal,) = tmp_path.glob("*journal*")
    whole = journal.read_bytes()
    for cut in range(len(whole) // 2 + 1, len(whole)):
        journal.write_bytes(whole[:cut])
        again, _ = make_file(tmp_path)
        again.write(np.array([0, 1]), levels(1, 2))
        again.roll_back(0)
        assert again.rows[:2, 0, 0, 0].tolist() == [0, 1]
        again.close()


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_rows_that_are_not_finite_are_an_error_and_never_a_clean_image(tmp_path, norm):
    file, _ = make_file(tmp_path)
    rows = RowBuffer((6, 1, 2, 2), 8 / 255, norm, torch.device("cpu"), file=file)
    delta = torch.full((3, 1, 2, 2), 0.01)
    rows[torch.arange(3)] = delta
    rows.flush()
    delta[1, 0, 0, 0], delta[2] = float("nan"), float("inf")
    rows[torch.arange(3)] = delta
    rows[torch.arange(3)] = torch.zeros_like(delta)
    for ask in (rows.flush, rows.levels):
        with pytest.raises(ValueError, match="got 2 rows with NaN"):
            ask()
    with pytest.raises(ValueError, match="got 1 kernels with NaN"):
        encode("convolution", {"kernels": delta[1]}, None, None)


def test_streamed_rows_are_resident_rows(tmp_path):
    file, resident = make_file(tmp_path)
    streamed = RowBuffer(
        (6, 1, 2, 2), 8 / 255, "Linf", torch.device("cpu"), file=file, resident=False
    )
    index = torch.tensor([4, 1])
    delta = torch.tensor([0.5, -0.01]).view(2, 1, 1, 1).expand(2, 1, 2, 2)
    streamed[index] = delta
    resident[index] = delta
    assert torch.equal(streamed[index], resident[index])
    assert np.array_equal(streamed.levels(), resident.levels())
    assert streamed.written.tolist() == [False, True, False, False, True, False]
    with pytest.raises(ValueError, match="file"):
        RowBuffer((6, 1, 2, 2), 8 / 255, "Linf", torch.device("cpu"), resident=False)


def test_streamed_images_are_the_images():
    images = torch.randint(0, 256, (40, 3, 4, 4), dtype=torch.uint8)
    streamed = StreamedImages(images, torch.device("cpu"))
    run = Run(streamed, torch.arange(40) % 5, 5)
    for index in [*run.batches(7, 16), *run.sweep(16)]:
        assert torch.equal(streamed[index], images[index])
        assert torch.equal(streamed[index[:3]], images[index[:3]])
    for index in run.sweep(16):
        assert torch.equal(streamed[index], images[index])
    streamed.close()


# --- fits ----------------------------------------------------------------------------------------


def test_streaming_changes_no_byte(tmp_path):
    dataset = Shapes(size=43)
    expected = sem().fit(dataset, progress=False)
    for options in (
        {"resident": False},
        {"store": tmp_path / "store"},
        {"store": tmp_path / "store", "resident": False},
        {"resident": False, "checkpoint": tmp_path / "checkpoint", "checkpoint_every": 0},
    ):
        found = sem().fit(dataset, progress=False, **options)
        assert bytes_of(found) == bytes_of(expected)
        assert ue.ProtectedDataset(dataset, found.perturbation_)[42][1] == dataset[42][1]
    assert not (tmp_path / "checkpoint").exists()
    assert (tmp_path / "store").is_dir()


def test_rows_that_stay_on_disk_go_with_their_perturbation(monkeypatch):
    dataset = Shapes(size=20)
    monkeypatch.setattr(fitting, "_ROWS_IN_MEMORY", 0)
    method = ue.RandomNoise().fit(dataset, progress=False)
    folder = method.perturbation_._path
    assert folder.is_dir() and method.protect(dataset)[0][1] == dataset[0][1]
    del method
    assert not folder.exists()


def crash_in_fit(method, folder, monkeypatch, number=2, **options):
    with monkeypatch.context() as patch:
        stop_after(number, patch, saved=True)
        with pytest.raises(Crash):
            method.fit(
                Shapes(size=43), progress=False, checkpoint=folder, checkpoint_every=0, **options
            )


def test_a_checkpoint_of_another_fit_is_refused(tmp_path, monkeypatch):
    crash_in_fit(sem(), tmp_path / "c", monkeypatch)
    options = {"progress": False, "checkpoint": tmp_path / "c"}
    with pytest.raises(ValueError, match="train_steps: 3 there, 4 here"):
        sem(train_steps=4).fit(Shapes(size=43), **options)
    with pytest.raises(ValueError, match="dataset: "):
        sem().fit(Shapes(size=43, seed=1), **options)
    with pytest.raises(ValueError, match="'SEM' there, 'REM' here"):
        ue.REM.preset("demo").fit(Shapes(size=43), **options)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    with pytest.raises(FileExistsError, match="other files"):
        sem().fit(Shapes(size=43), progress=False, checkpoint=tmp_path / "mine")
    with pytest.raises(ValueError, match="checkpoint_every"):
        sem().fit(Shapes(size=43), **options, checkpoint_every=-1)


def test_a_checkpoint_knows_size_and_network_and_release(tmp_path, monkeypatch):
    crash_in_fit(sem(), tmp_path / "c", monkeypatch)
    with pytest.raises(ValueError, match="fit: None there, \\[16, 16\\] here"):
        sem().fit(Shapes(size=43), progress=False, checkpoint=tmp_path / "c", image_size=16)
    with monkeypatch.context() as patch:
        patch.setattr(fitting, "__version__", "9.9")
        with pytest.raises(ValueError, match=r"version: '.*' there, '9.9' here"):
            sem().fit(Shapes(size=43), progress=False, checkpoint=tmp_path / "c")
    linear = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10))
    crash_in_fit(sem(surrogate=linear), tmp_path / "d", monkeypatch)
    other = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10, bias=False))
    with pytest.raises(ValueError, match="surrogate: "):
        sem(surrogate=other).fit(Shapes(size=43), progress=False, checkpoint=tmp_path / "d")


def test_a_finished_fit_leaves_no_checkpoint_and_takes_nobodys_files(tmp_path):
    options = {"progress": False, "checkpoint_every": 0}
    sem().fit(Shapes(size=43), checkpoint=tmp_path / "c", **options)
    assert not (tmp_path / "c").exists()

    def add(record):
        (tmp_path / "d" / "notes.txt").write_text("mine")

    sem().fit(Shapes(size=43), checkpoint=tmp_path / "d", callback=add, **options)
    assert [path.name for path in (tmp_path / "d").iterdir()] == ["notes.txt"]


def test_two_fits_do_not_share_a_checkpoint(tmp_path):
    options = {"progress": False, "checkpoint": tmp_path / "c"}
    others = []

    def start_another(record):
        with pytest.raises(RuntimeError, match="no other process") as caught:
            sem().fit(Shapes(size=43), **options)
        others.append(caught.value)

    sem().fit(Shapes(size=43), callback=start_another, checkpoint_every=0, **options)
    assert others and not (tmp_path / "c").exists()
    sem().fit(Shapes(size=43), **options)  # the lock is gone with its owner


def test_a_kept_checkpoint_ends_at_once(tmp_path, monkeypatch):
    options = {"progress": False, "checkpoint": tmp_path / "c", "keep_checkpoint": True}
    first = sem().fit(Shapes(size=43), **options)
    monkeypatch.setattr(Run, "train_step", None)  # nothing is learned again
    second = sem().fit(Shapes(size=43), **options)
    assert bytes_of(first) == bytes_of(second) and first.history_ == second.history_
    remove_checkpoint(tmp_path / "c")
    assert not (tmp_path / "c").exists()


def test_what_a_kill_at_the_very_end_leaves_is_not_taken_for_rows(tmp_path):
    method = ue.EM.preset("demo", max_rounds=1, stop_error=1.0, round_steps=2)
    expected = bytes_of(method.fit(Shapes(size=43), progress=False))
    options = {"progress": False, "checkpoint": tmp_path / "c"}
    method.fit(Shapes(size=43), **options, keep_checkpoint=True)
    (tmp_path / "c" / "state.safetensors").unlink()
    (tmp_path / "c" / ".state.safetensors.partial").write_bytes(b"half")
    assert bytes_of(method.fit(Shapes(size=43), **options)) == expected
    assert not (tmp_path / "c").exists()


def test_a_checkpoint_without_its_rows_is_refused(tmp_path, monkeypatch):
    crash_in_fit(sem(), tmp_path / "c", monkeypatch)
    (tmp_path / "c" / "rows.bin").unlink()
    with pytest.raises(ValueError, match="damaged or missing"):
        sem().fit(Shapes(size=43), progress=False, checkpoint=tmp_path / "c")


def test_rows_stay_in_memory_where_no_disk_takes_them(monkeypatch, caplog):
    monkeypatch.setattr(fitting, "_ROWS_IN_MEMORY", 0)
    monkeypatch.setattr(ue.Perturbation, "save_pretrained", full)
    method = ue.RandomNoise().fit(Shapes(size=20), progress=False)
    assert method.perturbation_._path is None and "stay in memory" in caplog.text
    with pytest.raises(OSError, match="No space left"):
        ue.RandomNoise().fit(Shapes(size=20), progress=False, resident=False)


def test_ctrl_c_saves_and_says_how_to_go_on(tmp_path):
    expected = sem().fit(Shapes(size=43), progress=False)
    handler = signal.getsignal(signal.SIGINT)
    method = sem()
    with pytest.raises(KeyboardInterrupt, match="to continue"):
        method.fit(
            Shapes(size=43),
            progress=False,
            checkpoint=tmp_path / "c",
            callback=lambda record: signal.raise_signal(signal.SIGINT),
        )
    assert signal.getsignal(signal.SIGINT) is handler
    assert not hasattr(method, "perturbation_")
    method.fit(Shapes(size=43), progress=False, checkpoint=tmp_path / "c")
    assert bytes_of(method) == bytes_of(expected)


def test_a_second_ctrl_c_does_not_wait():
    checkpoint = Checkpoint(None, None, Group())
    with pytest.raises(KeyboardInterrupt), checkpoint:
        signal.raise_signal(signal.SIGINT)
        assert checkpoint.wanted() == (True, True)
        signal.raise_signal(signal.SIGINT)


def test_ctrl_c_after_the_last_step_is_not_swallowed():
    with pytest.raises(KeyboardInterrupt), Checkpoint(None, None, Group()):
        signal.raise_signal(signal.SIGINT)


def full(*args, **options):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


FULL = {
    "state": lambda patch: patch.setattr(checkpoint_module, "save_file", full),
    "rename": lambda patch: patch.setattr(Path, "replace", full),
    "journal": lambda patch: patch.setattr(rows_module.os, "write", full),
    "rows": lambda patch: patch.setattr(rows_module.os, "pwrite", full),
}


@pytest.mark.parametrize("resident", [True, False])
@pytest.mark.parametrize("where", FULL)
@pytest.mark.slow
def test_a_full_disk_ends_clearly_and_the_last_checkpoint_resumes(
    where, resident, tmp_path, monkeypatch
):
    expected = sem().fit(Shapes(size=43), progress=False)
    folder = tmp_path / "c"
    crash_in_fit(sem(), folder, monkeypatch, resident=resident)
    options = {"progress": False, "checkpoint": folder, "checkpoint_every": 0, "resident": resident}
    with monkeypatch.context() as patch:
        FULL[where](patch)
        with pytest.raises(OSError, match=r"No space left|checkpoint \d is whole"):
            sem().fit(Shapes(size=43), **options)
    assert bytes_of(sem().fit(Shapes(size=43), **options)) == bytes_of(expected)


def test_no_room_for_rows_is_said_before_anything_is_learned(tmp_path, monkeypatch):
    monkeypatch.setattr(rows_module.os, "posix_fallocate", full)
    with pytest.raises(OSError, match="not enough space for 132,096 bytes of rows"):
        sem().fit(Shapes(size=43), progress=False, checkpoint=tmp_path / "c")


def test_a_damaged_checkpoint_is_not_believed(tmp_path, monkeypatch):
    crash_in_fit(sem(), tmp_path / "c", monkeypatch)
    state = tmp_path / "c" / "state.safetensors"
    state.write_bytes(state.read_bytes()[:-100])
    with pytest.raises(ValueError, match="damaged"):
        sem().fit(Shapes(size=43), progress=False, checkpoint=tmp_path / "c")


def test_profile_says_where_the_time_went():
    method = sem().fit(Shapes(size=43), progress=False, profile=True)
    assert {"surrogate steps", "perturbation steps", "everything else"} <= set(method.seconds_)
    assert all(seconds >= 0 for seconds in method.seconds_.values())
    assert not hasattr(sem().fit(Shapes(size=43), progress=False), "seconds_")


def test_checkpoints_hold_json_and_safetensors_alone(tmp_path, monkeypatch):
    crash_in_fit(sem(), tmp_path / "c", monkeypatch)
    found = sorted(path.name for path in (tmp_path / "c").iterdir())
    assert found == ["checkpoint.json", "rows.bin", "rows.bin.journal-2-0", "state.safetensors"]
    described = json.loads((tmp_path / "c" / "checkpoint.json").read_text())
    assert described["format"] == "unlearnable-checkpoint" and described["method"] == "SEM"


def test_rows_are_written_at_their_place_without_the_files_offset(tmp_path, monkeypatch):
    file = RowFile(tmp_path / "rows", (4, 1, 2, 2))
    monkeypatch.setattr(rows_module.os, "lseek", None)
    pwrite = os.pwrite
    monkeypatch.setattr(rows_module.os, "pwrite", lambda f, data, at: pwrite(f, data[:3], at))
    levels = np.arange(8, dtype=np.int8).reshape(2, 1, 2, 2)
    file.write(np.array([3, 1]), levels)
    assert np.array_equal(file.rows[[3, 1]], levels) and not file.rows[[0, 2]].any()
    file.close()


def test_differences_of_checkpoints_have_their_whole_name():
    assert _flat({"a": {"b": {"c": 1}}, "d": 2}) == {"a.b.c": 1, "d": 2}


def test_a_disturbance_is_the_adversary_of_the_subclass(monkeypatch):
    class Mild(ue.REM):
        def _adversary(self, run, surrogate, images, labels):
            return "mild"

    assert Mild()._disturbance(None, None, None, None) == "mild"

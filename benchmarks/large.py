"""Perturbations that are larger than memory: opened, written, read, saved; and what a row costs.

    python benchmarks/large.py --images 130000

There are three cells. "rows": int8 rows of 224x224 images, 20 GB for 130,000 of them, as a sparse
artefact that is opened; written by two processes into one row file; read at random; saved to
shards; verified. It measures the highest anonymous memory (the program's own, not the system's
cache of files) of all processes together, counting shared pages once, and how much of it importing
torch and this package takes. It needs room for the rows twice, and exits with code 3 if the disk
has less. "random row": processor time for applying random rows of 50,000 images of 32x32 that are
in files, each read and compared with its checksum. "worker": how much more memory a spawned
DataLoader worker takes for the protected dataset than for the plain one.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from record import RESULTS, Record

NO_ROOM = 3  # the exit code where the disk is too small
SIDE, CLASSES, BATCH = 224, 100, 32
SMALL = 50_000  # images of the other two cells
PROCESSES = 2


def shape_of(images: int) -> tuple[int, int, int, int]:
    return images, 3, SIDE, SIDE


def row(number: int) -> np.ndarray[Any, Any]:
    """What is written as this row, so that it can be compared when it is read."""
    rng = np.random.default_rng(number)
    return rng.integers(-8, 9, (3, SIDE, SIDE), dtype=np.int8)


def config_of(images: int) -> dict[str, Any]:
    return {
        "method": "RandomNoise",
        "parameters": {},
        "kind": "additive",
        "granularity": "sample-wise",
        "epsilon": 8 / 255,
        "norm": "Linf",
        "image_shape": [3, SIDE, SIDE],
        "classes": None,
        "num_classes": CLASSES,
        "source": {"name": "Noise", "images": images, "digest": ""},
        "preprocessing": None,
        "strength": None,
    }


def small_tensors(images: int) -> dict[str, np.ndarray[Any, Any]]:
    return {
        "keys": np.arange(images, dtype=np.uint64),
        "labels": np.arange(images, dtype=np.int64) % CLASSES,
        "thumbnails": np.zeros((images, 3, 4, 4), np.uint8),
    }


# --- rows ----------------------------------------------------------------------------------------


def anonymous() -> int:
    """Anonymous memory of this process and its children in bytes, shared pages counted once."""
    total, own = 0, str(os.getpid())
    for process in Path("/proc").glob("[0-9]*"):
        try:
            status = dict(line.split(":", 1) for line in (process / "status").open())
            if own not in (status["Pid"].strip(), status["PPid"].strip()):
                continue
            pages = (process / "smaps_rollup").read_text()
        except (OSError, KeyError, ValueError):
            continue  # it ended meanwhile
        total += int(pages.partition("Pss_Anon:")[2].split()[0]) * 1024
    return total


def write_rows(path: Path, images: int, rank: int) -> None:
    """One process's share: every second row."""
    from unlearnable.methods.row_buffer import RowFile

    file = RowFile(path, shape_of(images), rank=rank)
    own = np.arange(rank, images, PROCESSES)
    for index in np.array_split(own, math.ceil(len(own) / BATCH)):
        file.write(index, np.stack([row(number) for number in index.tolist()]))
    file.sync()
    file.close()


def write_sparse(folder: Path, images: int) -> None:
    """An artefact whose rows are all zero and take no room."""
    from unlearnable.io.safetensors import header_of
    from unlearnable.perturbation.serialization import digest_of

    rows = np.broadcast_to(np.int8(0), shape_of(images))
    small = small_tensors(images)
    checksum = zlib.crc32(bytes(math.prod(rows.shape[1:])))
    tensors = {
        "keys": small["keys"],
        "labels": small["labels"],
        "checksums": np.full(images, checksum, np.uint32),
        "thumbnails": small["thumbnails"],
    }
    config = config_of(images)
    described = config | {"format": "unlearnable-perturbation", "format_version": 1}
    folder.mkdir()
    (folder / "config.json").write_text(
        json.dumps(described | {"digest": digest_of(tensors, config)})
    )
    with (folder / "perturbation.safetensors").open("wb") as file:
        file.write(header_of(tensors | {"rows": rows}, "unlearnable-perturbation"))
        file.writelines(tensors.values())
        file.truncate(file.tell() + rows.nbytes)


def rows_cell(images: int, folder: Path, shard_size: int) -> dict[str, Any]:
    """Opens, writes, reads, saves and verifies; what each took, and the highest memory."""
    import unlearnable as ue

    seconds: dict[str, float] = {}
    imports = highest = anonymous()
    done = threading.Event()

    def watch() -> None:
        nonlocal highest
        while not done.wait(0.1):
            highest = max(highest, anonymous())

    def timed(name: str, call: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        result = call()
        seconds[name] = round(time.perf_counter() - start, 3)
        return result

    def read(perturbation: ue.Perturbation) -> None:
        grey = np.full((3, SIDE, SIDE), 128, np.uint8)
        for number in np.random.default_rng(0).integers(0, images, 200).tolist():
            added = perturbation.apply(grey, number).astype(int) - 128
            if not np.array_equal(added, row(number)):
                raise SystemExit(f"expected row {number} as it was written, got another one")

    def write() -> None:
        children = []
        for rank in range(PROCESSES):
            child = os.fork()
            if not child:
                code = 1
                try:
                    write_rows(path, images, rank)
                    code = 0
                finally:
                    os._exit(code)
            children.append(child)
        if any([os.waitpid(child, 0)[1] for child in children]):  # noqa: C419
            raise SystemExit("a writing process failed")

    path = folder / "rows.bin"
    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        write_sparse(folder / "sparse", images)
        timed("open a sparse one", lambda: ue.Perturbation.from_pretrained(folder / "sparse"))
        timed("write", write)
        rows = np.memmap(path, np.int8, "r", shape=shape_of(images)).view(np.ndarray)
        made = timed(
            "checksums",
            lambda: ue.Perturbation(rows, config_of(images), **small_tensors(images)),
        )
        timed("read 200 rows", lambda: read(made))
        timed("save", lambda: made.save_pretrained(folder / "p", max_shard_size=shard_size))
        loaded = timed("open", lambda: ue.Perturbation.from_pretrained(folder / "p"))
        timed("read 200 rows of shards", lambda: read(loaded))
        timed("verify", loaded.verify)
    finally:
        done.set()
        watcher.join()
    return {
        "images": images,
        "gigabytes": round(math.prod(shape_of(images)) / 1e9, 2),
        "shards": len(list((folder / "p").glob("*.safetensors"))),
        "anonymous_mb": round(highest / 1e6, 1),
        "anonymous_mb_of_imports": round(imports / 1e6, 1),
        "under_500_mb": highest < 500e6,
        "seconds": seconds,
    }


# --- small ones ----------------------------------------------------------------------------------


def fake() -> Any:
    """A plain torchvision dataset that takes no memory."""
    from torchvision.datasets import FakeData
    from torchvision.transforms import PILToTensor

    return FakeData(SMALL, (3, 32, 32), 10, PILToTensor())


def row_cell(repeats: int, folder: Path) -> dict[str, Any]:
    """Microseconds of processor time to apply a random row, from one file and from shards."""
    import unlearnable as ue

    made = ue.Perturbation.from_pretrained(folder / "small")
    made.save_pretrained(folder / "shards", max_shard_size=made.nbytes // 4)
    pixels = np.full((3, 32, 32), 128, np.uint8)
    order = np.random.default_rng(0).integers(0, SMALL, 20_000).tolist()
    taken: dict[str, list[float]] = {}
    for _ in range(repeats):
        for name in ("small", "shards"):
            loaded = ue.Perturbation.from_pretrained(folder / name)
            loaded.verify()  # the system has the files in its memory
            rows, checksums = loaded.rows, loaded.tensors["checksums"]
            start = time.process_time()
            for number in order:
                zlib.crc32(rows[number].tobytes()) == checksums[number]  # noqa: B015
            read = time.process_time() - start
            start = time.process_time()
            for number in order:
                loaded.apply(pixels, number)
            applied = time.process_time() - start
            where = "one file" if name == "small" else "shards"
            taken.setdefault(f"read and checksum, {where}", []).append(read)
            taken.setdefault(f"apply, {where}", []).append(applied)
    medians = {name: statistics.median(all_) / len(order) * 1e6 for name, all_ in taken.items()}
    return {
        "microseconds": {name: round(value, 2) for name, value in medians.items()},
        "apply_under_20_us": max(v for name, v in medians.items() if "apply" in name) < 20,
    }


def worker(folder: str, protected: bool) -> None:
    """Prints the memory of a spawned worker after 3,000 images."""
    from torch.utils.data import DataLoader

    dataset = fake()
    if protected:
        import unlearnable as ue

        dataset = ue.ProtectedDataset(dataset, ue.Perturbation.from_pretrained(folder))
    loader = DataLoader(dataset, 100, num_workers=1, multiprocessing_context="spawn")
    batches = iter(loader)
    for _ in range(30):
        next(batches)
    status = Path(f"/proc/{batches._workers[0].pid}/status").read_text()  # type: ignore[attr-defined]
    lines = dict(line.split(":", 1) for line in status.splitlines())
    found = {name: int(lines[name].split()[0]) * 1024 for name in ("RssAnon", "VmRSS")}
    print(json.dumps(found))


def worker_cell(repeats: int, folder: Path) -> dict[str, Any]:
    """How much more memory the worker of a protected dataset takes."""
    found: dict[bool, list[dict[str, int]]] = {False: [], True: []}
    for _ in range(repeats):
        for protected in found:
            # Without a file of its own, __main__ is not imported again by the worker.
            code = f"import large; large.worker({str(folder / 'small')!r}, {protected})"
            done = subprocess.run(
                [sys.executable, "-c", code],
                stdout=subprocess.PIPE,
                text=True,
                check=True,
                cwd=Path(__file__).parent,
            )
            found[protected].append(json.loads(done.stdout))
    medians = {
        name: {
            protected: statistics.median(one[name] for one in all_) / 1e6
            for protected, all_ in found.items()
        }
        for name in ("RssAnon", "VmRSS")
    }
    more = {name: round(both[True] - both[False], 1) for name, both in medians.items()}
    return {
        "plain_mb": {name: round(both[False], 1) for name, both in medians.items()},
        "more_mb": more,
        "under_20_mb": more["RssAnon"] < 20,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=130_000)
    parser.add_argument("--shard-size", type=int, default=2 * 10**9, help="bytes")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--temporary", default=tempfile.gettempdir(), help="twice the rows fit in")
    parser.add_argument("--out", type=Path, default=RESULTS / "large-cpu.json")
    args = parser.parse_args()
    record = Record(args.out, {"repeats": args.repeats}, "cpu")
    with tempfile.TemporaryDirectory(dir=args.temporary) as temporary:
        folder = Path(temporary)
        cell = f"rows, {args.images} images"
        if cell not in record.cells:
            needed, free = 2.02 * math.prod(shape_of(args.images)), shutil.disk_usage(folder).free
            if free < needed:
                print(
                    f"expected {needed / 1e9:.1f} GB of room in {args.temporary}, got "
                    f"{free / 1e9:.1f}; pass --temporary, or fewer --images",
                    file=sys.stderr,
                )
                raise SystemExit(NO_ROOM)
            record.put(cell, rows_cell(args.images, folder, args.shard_size))
            print(cell, record.cells[cell], flush=True)
        if "random row" in record.cells and "worker" in record.cells:
            return
        import unlearnable as ue

        method = ue.RandomNoise().fit(fake(), device="cpu", progress=False)
        method.save_pretrained(folder / "small")
        cells = {"random row": row_cell, "worker": worker_cell}
        for name, measure in cells.items():
            if name not in record.cells:
                record.put(name, measure(args.repeats, folder))
                print(name, record.cells[name], flush=True)


if __name__ == "__main__":
    main()

"""What protecting many large photos takes: memory, time, and work that a kill repeats.

    python benchmarks/photos.py
    python benchmarks/photos.py --kill
    python benchmarks/photos.py --table

Makes JPEG photos of 12 megapixels in a temporary folder (smooth gradients, texture and sensor
noise; each differs from one of four by a few changes). It runs `unlearnable protect` on them in its
own process, as a user would, and samples it twice a second: the memory of the process and its
children, their processor time, and when learning is finished. With --kill, it kills the process
with SIGKILL when half of the copies are written, and runs it again; the result says how many copies
were written twice. What the processor time of a photo is spent on is measured on one photo in this
process. Copies as PNG take about 25 MB each: --format jpeg --quality 95 takes a fifth of that.
Wall-clock times are only comparable on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from record import DOCS, RESULTS, Record, fill, where

import unlearnable as ue
from unlearnable.data.fingerprint import image_key
from unlearnable.data.image import pixels_of, to_pil
from unlearnable.data.photo import load_photo
from unlearnable.protected.export.encoding import Encoding
from unlearnable.protected.metrics import compare

PAGE = DOCS / "how-to" / "photos.md"
CLASSES = ("coast", "forest", "market", "portrait")
QUALITY = 92  # of the photos
EVERY = 0.5  # seconds between two looks at the process
TICKS = 100  # of /proc, per second


def base(number: int, width: int, height: int) -> np.ndarray[Any, Any]:
    """A picture with something of all sizes: float32 (H, W, 3), before the noise."""
    draws = np.random.default_rng(number)
    picture = np.full((height, width, 3), 110, np.float32)
    for cells, strength in ((3, 70), (12, 30), (60, 14), (300, 8), (1500, 5)):
        shape = (max(2, cells * height // width), cells, 3)
        coarse = np.clip(128 + draws.normal(0, 48, shape), 0, 255).astype(np.uint8)
        layer = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
        picture += (np.asarray(layer, np.float32) - 128) * (strength / 48)
    return picture


def generate(folder: Path, count: int, megapixels: float) -> None:
    """Writes the photos into class folders; each one takes less time than protecting it."""
    width, height = (2 * round((megapixels * 1e6 * ratio) ** 0.5 / 2) for ratio in (4 / 3, 3 / 4))
    draws = np.random.default_rng(0)
    noise = draws.normal(0, 3, (height, width, 1)).astype(np.float32)
    for number, name in enumerate(CLASSES):
        (folder / name).mkdir(parents=True)
        picture = base(number, width, height)
        picture += noise
        pixels = np.clip(picture, 0, 255, out=picture).astype(np.uint8)
        for index in range(number, count, len(CLASSES)):
            shift = (int(draws.integers(height)), int(draws.integers(width)))
            levels = np.linspace(0, 1, 256) ** draws.uniform(0.7, 1.4)
            table = np.rint(255 * levels).astype(np.uint8)
            own = np.roll(pixels, shift, (0, 1))[:, :: int(draws.choice([-1, 1]))]
            photo = Image.fromarray(np.ascontiguousarray(table[own]))
            photo.save(folder / name / f"IMG_{index:04d}.jpg", quality=QUALITY)


class Watched:
    """A process, its children, and what they take."""

    def __init__(self, command: list[str]) -> None:
        self.start = time.monotonic()
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.peak = 0  # kilobytes, of all together
        self._busy: dict[int, float] = {}

    def look(self) -> None:
        """Takes note of memory and processor time."""
        total = 0
        for pid in self._family(self.process.pid):
            try:
                stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                status = Path(f"/proc/{pid}/status").read_text()
            except OSError:  # it has just ended
                continue
            self._busy[pid] = (int(stat[11]) + int(stat[12])) / TICKS
            # The most that the process had; of children, what they have.
            field = "VmHWM:" if pid == self.process.pid else "VmRSS:"
            found = [line.split()[1] for line in status.splitlines() if line.startswith(field)]
            total += int(found[0]) if found else 0
        self.peak = max(self.peak, total)

    def _family(self, pid: int) -> list[int]:
        try:
            text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
        except OSError:
            return [pid]
        return [pid, *(own for child in text.split() for own in self._family(int(child)))]

    def times(self) -> dict[str, float]:
        """Since its start."""
        busy = round(sum(self._busy.values()), 1)
        return {"seconds": round(time.monotonic() - self.start, 1), "processor seconds": busy}


def finished(out: Path) -> int:
    """Copies that an unfinished export notes as finished."""
    journals = list(out.parent.glob(f".{out.name}.unfinished-*/journal.jsonl"))
    return sum(journal.read_bytes().count(b"\n") for journal in journals)


def begun(out: Path) -> int:
    """Copies that it has written, wholly or not."""
    return sum(p.is_file() for p in out.parent.glob(f".{out.name}.unfinished-*/files/*/*"))


def protect(command: list[str], out: Path, kill_at: int | None) -> dict[str, Any]:
    """Runs the command, or kills it; what it took, by stage."""
    watched = Watched(command)
    key = out.with_name(f"{out.name}-key") / "config.json"
    there, learned, killed = key.exists(), None, None
    while watched.process.poll() is None:
        watched.look()
        if learned is None and not there and key.exists():
            learned = watched.times()
        if kill_at is not None and finished(out) >= kill_at:
            watched.process.send_signal(signal.SIGKILL)
            watched.process.wait()
            killed = {"finished": finished(out), "begun": begun(out)}
            break
        time.sleep(EVERY)
    assert watched.process.stdout is not None
    said = watched.process.stdout.read().decode(errors="replace")
    if killed is None and watched.process.returncode:
        raise SystemExit(said)
    whole = watched.times()
    stages = {"all": whole}
    if learned is not None:
        stages["learning"] = learned
        stages["writing"] = {name: round(whole[name] - learned[name], 1) for name in whole}
    return {"stages": stages, "peak megabytes": round(watched.peak / 1024), "killed": killed}


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Generates photos and protects them."""
    with tempfile.TemporaryDirectory(dir=args.scratch, prefix="unlearnable-photos-") as place:
        photos, out = Path(place) / "photos", Path(place) / "protected"
        generate(photos, args.photos, args.megapixels)
        originals = sum(path.stat().st_size for path in photos.rglob("*.jpg"))
        logging.info("generated %d photos of %d MB", args.photos, originals / 1e6)
        command = [sys.executable, "-m", "unlearnable", "protect", str(photos), str(out), "--quiet"]
        command += ["--format", args.format]
        command += [] if args.quality is None else ["--quality", args.quality]
        command += args.options.split()
        first = protect(command, out, args.photos // 2 if args.kill else None)
        cell: dict[str, Any] = {"photos": args.photos, **first}
        if first["killed"] is not None:
            marks = {p: p.stat().st_mtime_ns for p in out.parent.glob(".protected.un*/files/*/*")}
            again = protect(command, out, None)
            names = {f"{path.parent.name}/{path.name}": mark for path, mark in marks.items()}
            same = sum((out / name).stat().st_mtime_ns == mark for name, mark in names.items())
            cell |= {"again": again, "written twice": first["killed"]["begun"] - same}
        copies = [path for path in out.rglob("*.*") if path.parent != out]
        assert len(copies) == args.photos
        cell["megabytes of originals"] = round(originals / 1e6)
        cell["megabytes of copies"] = round(sum(path.stat().st_size for path in copies) / 1e6)
        cell["processor seconds of one"] = parts(next(photos.rglob("*.jpg")), args, Path(place))
    return cell


def parts(path: Path, args: argparse.Namespace, place: Path) -> dict[str, float]:
    """What writing one photo takes, by what it goes to."""
    found: dict[str, float] = {}

    def timed(name: str, work: Callable[[], Any]) -> Any:
        start = time.process_time()
        result = work()
        found[name] = round(time.process_time() - start, 2)
        return result

    pixels = timed("decoding", lambda: pixels_of(load_photo(path)))
    noise = ue.RandomNoise(granularity="class-wise")
    small = np.asarray(Image.fromarray(pixels.transpose(1, 2, 0)).resize((224, 224)))
    fitted = noise.fit(([small], [0]), image_size=224, visibility="low", progress=False)
    added = fitted.perturbation_
    changed = timed("enlarging and mask", lambda: added.apply(pixels, 0, full_size=True))
    timed("two keys", lambda: (image_key(pixels), image_key(changed)))
    encoding = Encoding.of(args.format, None if args.quality is None else int(args.quality))
    target = place / f"one.{encoding.ending}"
    timed("encoding", lambda: encoding.save(to_pil(changed), target, None))
    timed("figures (of 8 photos in all)", lambda: compare(pixels, changed))
    return found


def table(result: dict[str, Any]) -> str:
    """Memory and time of each run, for the page."""
    head = ["photos", "copies", "memory at most", "processor time a photo", "time in all", "rate"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    notes = []
    for name, cell in result["cells"].items():
        count, stages = cell["photos"], cell["stages"]
        if cell["killed"] is not None:
            notes.append(
                f"Killed by SIGKILL after {cell['killed']['finished']:,} of {count:,} copies and "
                f"run again: {cell['written twice']} written twice."
            )
            continue
        whole, writing = stages["all"], stages.get("writing", stages["all"])
        spent = f"{writing['processor seconds'] / count:.1f} s"
        rate = f"{60 * count / writing['seconds']:.0f} photos a minute"
        memory = f"{cell['peak megabytes'] / 1000:.1f} GB"
        minutes = f"{whole['seconds'] / 60:.0f} min"
        copies = f"{name.partition(', ')[2]}, {cell['megabytes of copies'] / 1000:.1f} GB"
        lines.append(f"| {count:,} | {copies} | {memory} | {spent} | {minutes} | {rate} |")
        if "beside" in cell:
            notes.append(f"{count:,} photos beside {cell['beside']}: the clock says little.")
    settings = result["settings"]
    notes.append(
        f"Generated photos of {settings['megapixels']:g} megapixels; processor time and rate are "
        f"of the writing. {result['date']}, {where(result)}."
    )
    return "\n".join([*lines, "", " ".join(notes)])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", type=int, default=1000)
    parser.add_argument("--megapixels", type=float, default=12)
    parser.add_argument("--format", default="png")
    parser.add_argument("--quality", help="of the copies, for lossy formats")
    parser.add_argument("--options", default="", help="further words for the command")
    parser.add_argument("--beside", help="what else the machine did, for the table's caption")
    parser.add_argument("--kill", action="store_true", help="in the middle, and run it again")
    parser.add_argument("--scratch", type=Path, help="folder for the photos and their copies")
    parser.add_argument("--out", type=Path, default=RESULTS / "photos-cpu.json")
    parser.add_argument("--table", action="store_true", help=f"write the table of {PAGE.name}")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if args.table:
        fill(PAGE, "photos.py", table(json.loads(args.out.read_text())))
        return
    room = shutil.disk_usage(args.scratch or tempfile.gettempdir()).free
    needed = round(args.photos * args.megapixels * 1e6 * (3.2 if args.format == "png" else 1.5))
    if room < needed:
        parser.error(f"expected {needed:,} bytes free for photos and copies, got {room:,}")
    settings = {"megapixels": args.megapixels, "options": args.options}
    record = Record(args.out, settings, "cpu")
    name = f"{args.photos} photos, {args.format}" + (f" {args.quality}" if args.quality else "")
    name += ", killed" if args.kill else ""
    if name not in record.cells:
        beside = {} if args.beside is None else {"beside": args.beside}
        record.put(name, run(args) | beside)
    print(name, json.dumps(record.cells[name], indent=2))


if __name__ == "__main__":
    main()

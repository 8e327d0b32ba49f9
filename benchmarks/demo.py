"""What `unlearnable demo` prints, over several seeds.

python benchmarks/demo.py
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

from record import RESULTS, Record

from unlearnable.cli.demo import run_demo


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULTS / "demo-cpu.json")
    args = parser.parse_args()
    record = Record(args.out, {}, "cpu")
    for seed in range(args.seeds):
        if f"seed {seed}" not in record.cells:
            with tempfile.TemporaryDirectory() as folder:
                shown = run_demo(folder, seed=seed, device="cpu")
            victims = {
                name: {"last": victim["last"][0], "peak": victim["peak"][0]}
                for name, victim in shown["victims"].items()
            }
            record.put(f"seed {seed}", {"victims": victims, "seconds": shown["seconds"]})
    cells = [cell for name, cell in record.cells.items() if name.startswith("seed")]
    for name in cells[0]["victims"]:
        for which in ("last", "peak"):
            values = [100 * cell["victims"][name][which] for cell in cells]
            shown_values = ", ".join(f"{value:.1f}" for value in values)
            print(f"{name}, {which}: mean {statistics.mean(values):.1f} % ({shown_values})")


if __name__ == "__main__":
    main()

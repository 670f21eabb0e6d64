"""What importing the packages adds to importing torch: median seconds of fresh processes.

    python benchmarks/import_time.py

The goal for titans_ts is at most 1.5 s.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys

import _record

CODE = "import time, torch; begun = time.perf_counter(); {}; print(time.perf_counter() - begun)"
IMPORTS = (
    "import titans_core",
    "import titans_ts",
    "from titans_ts import TitansForecaster",
    "import sklearn.base",  # for comparison: what inheriting from BaseEstimator would add
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="3 processes each instead of 9")
    repeats = 3 if parser.parse_args().quick else 9
    seconds: dict[str, list[float]] = {statement: [] for statement in IMPORTS}
    for _ in range(repeats):  # alternating, so that a slow spell hits all alike
        for statement in IMPORTS:
            command = [sys.executable, "-c", CODE.format(statement)]
            answer = subprocess.run(command, capture_output=True, text=True, check=True)
            seconds[statement].append(float(answer.stdout))
    rows = []
    for statement, values in seconds.items():
        median = statistics.median(values)
        print(f"{statement:38} after torch: {median:.2f} s (slowest {max(values):.2f} s)")
        rows.append(
            {
                "case": "import after torch",
                "provider": statement,
                "metric": f"median of {repeats} processes",
                "value": f"{median:.3g}",
                "unit": "s",
                "seed": 0,
            }
        )
    print(f"wrote {_record.record('import_time', rows)}")


if __name__ == "__main__":
    main()

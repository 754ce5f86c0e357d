"""What sweeps start in tests instead of a training: takes its overrides, writes its run folder, saves when asked.

Only the standard library, so that it starts at once. weight_decay 0.1 raises, 0.2 waits at step 3 until somebody ends
it, 0.3 ends as a preempted run does, once; 0.4 gets worse with every step.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

STEPS = 8
asked: list[int] = []


def main() -> None:
    """Train for 8 steps; every step is a checkpoint."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, frame: asked.append(130 if number == signal.SIGINT else 85))
    given = dict(item.split("=", 1) for item in sys.argv[1:])
    assert given["resume"] == "auto"
    decay = float(given["optimizer.weight_decay"])
    run = Path(given["paths.runs"].strip('"'), given["name"])
    run.mkdir(parents=True, exist_ok=True)
    with (run / "starts").open("a") as starts:
        starts.write(f"{os.getpid()} {given['optimizer.weight_decay']}\n")
    metrics = run / "metrics.jsonl"
    done = len(metrics.read_text().splitlines()) if metrics.is_file() else 0
    if decay == 0.1:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")
    for step in range(done + 1, STEPS + 1):
        time.sleep(float(os.environ.get("FAKE_STEP_SECONDS", "0.02")))
        while ((decay == 0.2 and step == 3) or (run / "WAIT").is_file()) and not asked:
            time.sleep(0.02)
        with metrics.open("a") as file:
            file.write(json.dumps({"step": step, "loss": step if decay == 0.4 else decay + 1 / step}) + "\n")
        if asked:
            print("saved", file=sys.stderr)
            raise SystemExit(asked[0])
        if decay == 0.3 and step == 4:
            raise SystemExit(85)


if __name__ == "__main__":
    main()

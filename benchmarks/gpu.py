"""Everything that a GPU has to show, as tables and as JSON that is written as it goes.

    benchmarks/gpu.sh --output results                  # on a GPU, all parts
    benchmarks/gpu.sh --parts environment profile steps
    benchmarks/gpu.sh --tiny --device cpu               # tries the script itself, in a minute

Parts, in this order: ``environment`` (what the machine is and can do at best), ``correctness``
(stacks on the device against the CPU), ``profile`` (kernels of a step), ``steps`` (its time by
the number of students), ``checkpoints`` (their cost), ``plain`` (the plain script at its best
number of processes), ``searches`` (whole searches of kdsearch and of the plain script, which
need Ray) and ``quality`` (BeatGAN at the published size and length). Results are in
``gpu.json``, kernels in ``profile.txt`` too.

The parts run in a process of their own, which is started again after a part that failed or
took too long, so that the next one is not harmed. What a part found until then is kept.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

# Seconds after which each part is stopped; those of the whole budget come on top.
PARTS = {
    "environment": 30,
    "correctness": 90,
    "profile": 40,
    "steps": 120,
    "checkpoints": 40,
    "plain": 60,
    "searches": 200,
    "quality": 3600,
}
# A part looks at the clock itself; so much later it is taken to hang.
PATIENCE_S = 20


def main() -> None:
    options = parsed()
    file = options.output / "gpu.json"
    options.output.mkdir(parents=True, exist_ok=True)
    file.unlink(missing_ok=True)
    until = time.time() + options.budget
    parts = [part for part in PARTS if part in options.parts]
    while parts and time.time() < until:
        run_in_process(parts, until, options)
        done = read(file)
        for part in parts:
            if done.get(part, {}).get("state") == "running":
                done[part]["state"] = "stopped"
                file.write_text(json.dumps(done, indent=2))
                print(f"\n{part}: stopped: out of time, or its process died", flush=True)
        # A process that does not even come to its first part is not started again for it.
        started = [part for part in parts if part in done] or parts[:1]
        parts = [part for part in parts if part not in started]
    done = read(file)
    states = {part: done.get(part, {}).get("state", "missing") for part in options.parts}
    print("\n" + ", ".join(f"{part} {state}" for part, state in states.items()))
    sys.exit(0 if set(states.values()) <= {"done", "skipped"} else 1)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--output", type=Path, default=Path("gpu"), help="folder of the results"
    )
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda")
    parser.add_argument("--data", default="simulated", help="as of run_search.py, with fold 0")
    parser.add_argument("--budget", type=float, default=460, help="seconds, all parts together")
    parser.add_argument("--tiny", action="store_true", help="sizes that a CPU can do")
    parser.add_argument("--epochs", type=int, help="of quality; default: 100")
    parser.add_argument("--seeds", type=int, default=8, help="of quality, in one stack")
    parser.add_argument(
        "--precision", choices=["fp32", "bf16"], default="bf16", help="likewise"
    )
    parser.add_argument("--trials", type=int, default=64, help="of kdsearch's search")
    parser.add_argument(
        "--plain-processes", type=int, help="of the plain search; default: the best of plain"
    )
    parser.add_argument("--plain-trials", type=int, default=16, help="of the plain search")
    return parser.parse_args()


def run_in_process(parts: list[str], until: float, options: argparse.Namespace) -> None:
    """Run parts until they are done, one fails, or one takes far more than its share."""
    settings = vars(options) | {"output": str(options.output), "until": until}
    settings["parts"] = {part: PARTS[part] for part in parts}
    command = [sys.executable, "-m", "gpu_parts", json.dumps(settings)]
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path}
    process = subprocess.Popen(command, process_group=0, env=environment)
    while process.poll() is None:
        time.sleep(0.2)
        running = [
            (part, found["started"])
            for part, found in read(options.output / "gpu.json").items()
            if found["state"] == "running"
        ]
        ends = [started + PARTS[part] + PATIENCE_S for part, started in running]
        if time.time() > min([until + PATIENCE_S, *ends]):
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def read(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text()) if file.exists() else {}


if __name__ == "__main__":
    main()

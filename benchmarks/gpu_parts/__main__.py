"""Run parts one after the other: `gpu.py` starts this with its options as JSON."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
import time
import traceback
from pathlib import Path

from gpu_parts.against import plain_script, searches
from gpu_parts.checkpoints import checkpoints
from gpu_parts.correctness import correctness
from gpu_parts.environment import environment
from gpu_parts.part import Part
from gpu_parts.quality import quality
from gpu_parts.steps import profile, steps

RUN = {
    "environment": environment,
    "correctness": correctness,
    "steps": steps,
    "profile": profile,
    "checkpoints": checkpoints,
    "plain": plain_script,
    "searches": searches,
    "quality": quality,
}


def main() -> None:
    options = argparse.Namespace(**json.loads(sys.argv[1]))
    threading.Thread(target=end_with, args=(os.getppid(),), daemon=True).start()
    file = Path(options.output) / "gpu.json"
    found = json.loads(file.read_text()) if file.exists() else {}
    for name, seconds in options.parts.items():
        part = Part(name, found, file, min(time.time() + seconds, options.until))
        try:
            RUN[name](part, options)
            part.put(state="skipped" if "skipped" in found[name] else "done")
        except Exception:  # noqa: BLE001  # it is in the results, and the next part follows
            # An error of CUDA harms whatever follows in this process, so that it ends here.
            part.put(state="failed", error=traceback.format_exc())
            traceback.print_exc()
            sys.exit(1)
        finally:
            part.put(seconds=round(time.time() - found[name]["started"], 1))


def end_with(parent: int) -> None:
    """End this process and those it started when its parent is gone, to free the device."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main()

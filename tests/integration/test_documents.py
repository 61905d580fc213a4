"""The Python of the documents, run from top to bottom as a reader would."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from small import run_python

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# In a thread, where no signal can be caught: whoever writes a service does it so.
IN_A_THREAD = """
import sys, threading
source = open(sys.argv[1]).read()
failed = []

def run():
    try:
        exec(compile(source, sys.argv[1], "exec"), {"__name__": "document"})
    except BaseException:
        failed.append(1)
        raise

thread = threading.Thread(target=run)
thread.start()
thread.join()
sys.exit(len(failed))
"""
SMALL = {
    "train_limit: 1000": "train_limit: 128\n  simulated: {patients: 6, beats: 900}",
    "width: 4": "width: 2",
    "num_samples: 8": "num_samples: 3\n  max_concurrent: 1",
    "top: 1": "top: 0",
}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder in which the smoke test's space is smaller still: a file goes before a name."""
    text = (ROOT / "search_spaces" / "smoke.yaml").read_text()
    for old, new in SMALL.items():
        assert old in text
        text = text.replace(old, new)
    (tmp_path / "smoke").write_text(text)
    return tmp_path


def test_the_page_on_python_does_what_it_says(place: Path):
    blocks = BLOCK.findall((ROOT / "docs" / "python.md").read_text())
    assert len(blocks) >= 6
    (place / "document.py").write_text("\n".join(blocks) + CHECKS)
    (place / "thread.py").write_text(IN_A_THREAD)
    done = run_python(place, "thread.py", "document.py", PYTHONPATH=str(ROOT))
    assert "trial 4" in done.stderr
    assert "Traceback" not in done.stderr


# What the page shows as comments.
CHECKS = """
assert len(run.leaderboard()) == 5
assert kdsearch.open_run("runs/smoke").verdict == {}
assert student.score(beats).shape == student.flag(beats).shape == (5,)
assert set(run.trials()["trial"]) == set(range(5))
assert "loss.distillation" in run.trials()
assert "<table" in run._repr_html_()
assert not __import__("ray").is_initialized()
"""

"""All benchmarks in one run (`make bench`): ratios only, since absolute times tell of the machine.

Each runs in a process of its own: a host can be loaded only once, and peak memory is counted per process.
"""

import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
BENCHMARKS = {
    "hypernetwork": "Hypernetwork: folded form against the straightforward one",
    "apply": "Patching: Apply Adaptive LoRA against ComfyUI's Load LoRA",
    "sampling": "Sampling: a step with the adaptive LoRA against one without",
    "training_step": "Training: a step against the bare frozen model",
    "preparation": "Training: fitting frames, encoding in one and two processes, starting on a full cache",
}


def main() -> int:
    """Run every benchmark, also after one has failed; returns 1 if any did."""
    failed = []
    for module, title in BENCHMARKS.items():
        print(f"\n{title}", flush=True)
        command = [sys.executable, "-m", f"benchmarks.{module}"]
        if subprocess.run(command, cwd=CHECKOUT).returncode:
            failed.append(module)
    if failed:
        print(f"\nfailed: {', '.join(failed)}")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())

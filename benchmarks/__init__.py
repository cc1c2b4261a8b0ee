"""Measures catalogger against MLflow's documented way, side by side: `python -m benchmarks` from the repository's root.

The synthetic checkpoints and the loopback Hub are those of the tests.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

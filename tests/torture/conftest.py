"""The scenarios use the projects and nodes of the process tests."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "process"))

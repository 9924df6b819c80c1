"""The boxes that are damaged here are those of the tests of the tasks."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent.parent / "tasks"))

"""The processes of tests/engine are those of these tests too."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent.parent / "engine"))

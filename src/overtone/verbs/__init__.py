"""One module per verb of the command line; each is imported when its verb is called."""

import os
from pathlib import Path

# matplotlib keeps a list of the fonts; not among the user's own files, but in the folder that is ours.
_CACHE = os.environ.get("XDG_CACHE_HOME", "")
_BASE = Path(_CACHE) if os.path.isabs(_CACHE) else Path("~/.cache").expanduser()
os.environ.setdefault("MPLCONFIGDIR", str(_BASE / "overtone" / "matplotlib"))

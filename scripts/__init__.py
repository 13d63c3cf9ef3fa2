"""Tools for maintainers, `python -m scripts.NAME`; nothing here ships in the wheel.

What they call by name (ruff, mypy, ...) is the one that is installed beside the Python that runs them.
"""

import os
import sys
from pathlib import Path

os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])

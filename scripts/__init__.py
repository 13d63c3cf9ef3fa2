"""Tools for maintainers, `python -m scripts.NAME`; nothing here ships in the wheel.

The programs that they call by name (ruff, mypy, ...) are those installed beside the running Python.
"""

import os
import sys
from pathlib import Path

os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])

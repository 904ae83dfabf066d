"""A stand-in for srun: a step that ends with CODE, ARGUMENTS."""

import os
import sys
from pathlib import Path

Path("srun").write_text("\n".join(sys.argv[2:]))
Path("cores").write_text(os.environ.get("SRUN_CPUS_PER_TASK", ""))
sys.exit(int(sys.argv[1]))

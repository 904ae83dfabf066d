"""Time lines of videos, CHECKPOINT PATHS: prints the number of windows and the peak memory in MB after each."""

import resource
import sys
from pathlib import Path

from aim.data.windows import Windows
from aim.engine.trained.recogniser import load
from aim.engine.trained.timeline import timeline

recogniser = load(Path(sys.argv[1]))
for path in sys.argv[2:]:
    found = timeline(recogniser, Path(path), Windows(2, 1), precision="fp32", batch_size=8)
    print(len(found.spans), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)

"""A stand-in for scontrol: shows a job and host names, and notes all other calls."""

import sys
from pathlib import Path

if sys.argv[1:3] == ["show", "job"]:
    print("PreemptEligibleTime=2026-01-01T00:00:00", end=" ")
    print("PreemptTime=2026-01-01T00:05:00" if Path("preempted").exists() else "PreemptTime=None")
elif sys.argv[1] == "show":
    print("node1\nnode2")
else:
    with Path("scontrol").open("a") as file:
        file.write(" ".join(sys.argv[1:]) + "\n")

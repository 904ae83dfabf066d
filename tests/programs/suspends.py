"""Start a process that is suspended with this one, and print its id."""

import subprocess
import time

from aim.ground.signals import suspended_with

other = subprocess.Popen(["sleep", "60"], start_new_session=True)
with suspended_with(lambda: [other.pid]):
    print(other.pid, flush=True)
    time.sleep(60)

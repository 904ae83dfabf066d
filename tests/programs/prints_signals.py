"""Print received signals until a line is read."""

import signal

for number in (signal.SIGINT, signal.SIGUSR1, signal.SIGTERM):
    signal.signal(number, lambda number, frame: print(int(number)))
print("ready", flush=True)
input()

"""A stand-in for srun: starts, signals and awaits the script's command on two nodes of a rank each."""

import os
import signal
import socket
import subprocess
import sys

with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    port = probe.getsockname()[1]
changes = {
    "--nproc-per-node=gpu": "--nproc-per-node=1",
    "--rdzv-endpoint=node1:21234": f"--rdzv-endpoint=127.0.0.1:{port}",
}
command = [changes.get(argument, argument) for argument in sys.argv[2:]]
assert "--nnodes=2" in command
os.chdir(os.environ["ROOT"])
command = [sys.executable, "-m", "torch.distributed.run", "--local-addr=127.0.0.1", *command]
nodes = [subprocess.Popen(command) for _ in range(2)]
for stop in (signal.SIGUSR1, signal.SIGTERM):
    signal.signal(stop, lambda number, frame: [node.send_signal(number) for node in nodes])
sys.exit(max(node.wait() for node in nodes))

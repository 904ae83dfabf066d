"""A stand-in for srun: the script's own command with two ranks on the CPU."""

import os
import sys

CHANGES = {"--nproc-per-node=gpu": "--nproc-per-node=2", "--rdzv-endpoint=node1:21234": "--rdzv-endpoint=localhost:0"}

command = [CHANGES.get(argument, argument) for argument in sys.argv[2:]]
os.chdir(os.environ["ROOT"])
os.execv(sys.executable, [sys.executable, "-m", "torch.distributed.run", *command])

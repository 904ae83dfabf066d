"""Print the page faults of short-lived layers, with freed memory kept (`kept`) or given back."""

import resource
import sys

from aim.data.loading.memory import ACTIVATIONS, keep_freed_memory


def faults() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


if sys.argv[1] == "kept":
    keep_freed_memory(*ACTIVATIONS)
before = 0
for turn in range(6):
    if turn == 2:
        before = faults()
    layers = [bytes([turn]) * 20_000_000 for _ in range(3)]  # written at once, as by a product
    del layers
print(faults() - before)

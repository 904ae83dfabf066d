"""Rank 1 ends with exit code 3, the others wait a minute."""

import os
import sys
import time

if __name__ == "__main__":
    if os.environ["RANK"] == "1":
        sys.exit(3)
    time.sleep(60)

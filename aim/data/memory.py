"""How a decoding process holds its memory."""

import ctypes

# Parameters of mallopt, from glibc's malloc.h.
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
KEPT_BYTES = 2**26  # freed memory that a process keeps
BLOCK_BYTES = 2**24  # larger blocks go back to the system at once


def keep_freed_memory() -> None:
    """Let this process keep what it frees, up to KEPT_BYTES, where the C library is glibc.

    By default it gives the frames of a clip back to the system, which clears each page anew for the next clip: a
    thousand page faults a clip.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "gnu_get_libc_version"):
        libc.mallopt(MMAP_THRESHOLD, BLOCK_BYTES)
        libc.mallopt(TRIM_THRESHOLD, KEPT_BYTES)

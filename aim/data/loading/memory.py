"""Memory management of a process."""

import ctypes

# Parameters of mallopt, from glibc's malloc.h.
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
CLIPS = 2**26, 2**24  # bytes of freed memory that a process keeps, and of the blocks that go back to the system at once
ACTIVATIONS = 2**30, 2**25  # the latter is the most that glibc takes


def keep_freed_memory(kept: int, block: int) -> None:
    """Let this process keep freed memory, up to `kept` bytes, if the C library is glibc.

    By default glibc returns the frames of a clip, and the activations of a model, to the system, which clears each page
    again for the next ones: a thousand page faults a clip for the frames, 80,000 for the activations of a ViT-B.
    """
    try:
        libc = ctypes.CDLL(None)
    except TypeError:  # Windows has no such library
        return
    if hasattr(libc, "gnu_get_libc_version"):
        libc.mallopt(MMAP_THRESHOLD, block)
        libc.mallopt(TRIM_THRESHOLD, kept)

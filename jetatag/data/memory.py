"""What this process does with memory it has freed."""

import contextlib
import ctypes


def keep_freed_memory() -> None:
    """Let this process keep the memory it frees, where its C library is glibc.

    Decoding and training take and free megabytes in every operation. By default glibc returns
    such blocks to the system and faults them in again, page by page, which costs a third of the
    time.
    """
    mmap_threshold, trim_threshold = -3, -1  # malloc.h
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL("libc.so.6")
        for option in (mmap_threshold, trim_threshold):
            library.mallopt(option, 2**31 - 1)

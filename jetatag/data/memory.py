"""Memory settings of the C library."""

import ctypes
from contextlib import suppress


def keep_freed_memory() -> None:
    """Let the C library (glibc; no effect elsewhere) keep freed memory for reuse.

    Returning freed memory to the system and getting it back takes a third of the time of decoding
    and training.
    """
    mmap_threshold, trim_threshold = -3, -1  # malloc.h
    with suppress(OSError, AttributeError, TypeError):
        library = ctypes.CDLL("libc.so.6")
        for option in (mmap_threshold, trim_threshold):
            library.mallopt(option, 2**31 - 1)

"""Memory that was freed, given back to the system."""

import ctypes


def give_back() -> None:
    """Let the C library return what it keeps of freed arrays, where it can be told (glibc).

    It keeps arrays of a few megabytes for later; of ViT-B/16, whose matrices are of that size, half
    a gigabyte stayed after pruning.
    """
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (OSError, AttributeError, TypeError):  # another C library, or another system
        return

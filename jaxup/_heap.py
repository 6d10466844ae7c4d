"""The memory of the process: what programs may decide, and a library may not."""

import contextlib
import ctypes
import os
from typing import Any

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4  # of malloc.h


def keep_heap() -> bool:
    """Keep freed memory instead of handing it back to the system, where the C library is glibc.

    XLA allocates what a call needs anew each time, and glibc gives every block above 32 MiB back at once: the next call
    waits for the system to clear its pages, for half of the time and more. The process stays as large as it once was:
    no size of free memory is too much (a threshold of -1). Only the main thread's heap holds blocks above 64 MiB, so
    that programs for CPUs run in the thread that calls them, and no longer in one of XLA's. That is decided when JAX
    first looks for devices; call this before. One heap for all threads would do, too, but they wait for each other
    there: on two cores FDKN's gradients take a fifth longer.
    JAXUP_KEEP_HEAP=0 and settings of glibc by the user (MALLOC_..., GLIBC_TUNABLES) win.

    Returns:
        Whether it was done.
    """
    chosen = any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ)
    if chosen or os.environ.get("JAXUP_KEEP_HEAP", "1") in ("", "0"):
        return False
    with contextlib.suppress(AttributeError, OSError, TypeError):  # another C library, or none that can be asked
        library = ctypes.CDLL(None)
        library.gnu_get_libc_version  # noqa: B018
        if all([library.mallopt(*option) for option in ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, -1), (_TOP_PAD, 64 << 20))]):
            import jax  # takes a second

            update: Any = jax.config.update  # which has no types
            update("jax_cpu_enable_async_dispatch", False)
            return True
    return False

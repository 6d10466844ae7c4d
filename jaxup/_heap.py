"""The memory of the process: what programs may decide, and a library may not."""

import contextlib
import ctypes
import os
import sys
from typing import Any

_LARGE_BLOCKS = "glibc.malloc.mmap_max=0"
_SETTINGS = ":".join(
    (
        _LARGE_BLOCKS,  # lie in the heap,
        f"glibc.malloc.trim_threshold={1 << 60}",  # which never shrinks,
        f"glibc.malloc.top_pad={64 << 20}",  # and grows in large steps
        "glibc.malloc.tcache_count=0",  # what is freed joins the free memory beside it
        "glibc.malloc.hugetlb=1",  # in huge pages, where the system leaves that to programs
    )
)


def start_with_kept_heap() -> None:
    """Start this program anew with a heap that keeps freed memory, where the C library is glibc.

    XLA allocates what a call needs anew each time, and glibc gives every block above 32 MiB back at once: the next call
    waits for the system to clear its pages, for half of the time and more. With the settings of this module the process
    stays as large as it once was. glibc reads them only when a process starts; `mallopt` lacks the last two. Without
    the fourth, some bytes beside each large block wait for small objects, so that the block fits no second time: up to
    nine copies of the largest one.

    To be called by programs alone, before they do or import anything. It returns where JAXUP_KEEP_HEAP=0 or settings of
    glibc by the user (MALLOC_..., GLIBC_TUNABLES) are found, and when the program has started anew.
    """
    chosen = any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ)
    if chosen or os.environ.get("JAXUP_KEEP_HEAP", "1") in ("", "0") or not (sys.executable and _glibc()):
        return
    with contextlib.suppress(OSError):  # goes on as it is
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | {"GLIBC_TUNABLES": _SETTINGS})


def use_kept_heap() -> bool:
    """Run programs for CPUs in the thread that calls them, if the heap is kept, and no longer in one of XLA's.

    Only the main thread's heap holds blocks above 64 MiB. That is decided when JAX first looks for devices: call this
    before.

    Returns:
        Whether it was done.
    """
    if not _kept():
        return False
    import jax  # takes a second

    update: Any = jax.config.update  # which has no types
    update("jax_cpu_enable_async_dispatch", False)
    return True


def give_back() -> bool:
    """Give the free memory of a kept heap back to the system.

    To be called once, when the first call of many is over: compiling and that call leave holes that later ones may not
    fit, and live objects between them.

    Returns:
        Whether it was done.
    """
    if not _kept():
        return False
    ctypes.CDLL(None).malloc_trim(0)
    return True


def _kept() -> bool:
    return _LARGE_BLOCKS in os.environ.get("GLIBC_TUNABLES", "").split(":") and _glibc()


def _glibc() -> bool:
    """Whether the C library is glibc, which alone has these settings."""
    try:
        return (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc")
    except (AttributeError, OSError, ValueError):  # Windows, or a C library without that name
        return False

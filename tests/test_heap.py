"""Programs keep the heap, the library leaves it as it is."""

import contextlib
import ctypes
import os
import platform
import subprocess
import sys

import pytest

from jaxup import _heap


@pytest.fixture
def asked(monkeypatch):
    """The options that are set, in the place of setting them."""
    found = []

    class Library:
        gnu_get_libc_version = None

        def mallopt(self, option, value):
            found.append((option, value))
            return 1

    monkeypatch.setattr(ctypes, "CDLL", lambda name: Library())
    for name in [name for name in os.environ if name.startswith(("GLIBC_", "MALLOC_", "JAXUP_KEEP_HEAP"))]:
        monkeypatch.delenv(name)
    return found


def test_nothing_is_handed_back(asked):
    assert _heap.keep_heap() and dict(asked) == {-8: 1, -4: 0, -1: -1, -2: 64 << 20}


@pytest.mark.parametrize(
    ("name", "value"),
    [("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1"), ("MALLOC_ARENA_MAX", "2"), ("JAXUP_KEEP_HEAP", "0")],
)
def test_settings_of_the_user_win(name, value, asked, monkeypatch):
    monkeypatch.setenv(name, value)
    assert not _heap.keep_heap() and asked == []


@pytest.mark.parametrize("error", [OSError, TypeError])
def test_without_glibc_nothing_happens(monkeypatch, error):
    def none(name):
        raise error

    monkeypatch.setattr(ctypes, "CDLL", none)
    assert not _heap.keep_heap()
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    assert not _heap.keep_heap()


@pytest.mark.parametrize("program", ["jaxup.cli.command", "experiments.__main__"])
def test_programs_keep_the_heap(program, asked, monkeypatch, capsys):
    main = __import__(program, fromlist=["main"]).main
    with contextlib.suppress(SystemExit):
        main(["no-such-command"])
    assert asked
    capsys.readouterr()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the heap is kept by mallopt, which glibc alone has")
def test_freed_memory_stays():
    """A block that was freed needs no page anew, also in a thread, where XLA allocates; in a process of its own.

    Nothing else of the package is imported.
    """
    code = """
import ctypes, resource, sys
from concurrent.futures import ThreadPoolExecutor
from importlib.util import module_from_spec, spec_from_file_location
spec = spec_from_file_location("heap", sys.argv[1])
heap = module_from_spec(spec)
spec.loader.exec_module(heap)
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = ctypes.create_string_buffer(64 << 20)
    ctypes.memset(block, 1, len(block))
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
handed_back = faults()
assert heap.keep_heap()
with ThreadPoolExecutor(1) as thread:
    for place in (lambda: thread.submit(faults).result(), faults):
        place()
        print(handed_back, place())
"""
    clean = {"PATH": ""}
    run = subprocess.run(
        [sys.executable, "-c", code, _heap.__file__], capture_output=True, text=True, env=clean, check=True
    )
    for line in run.stdout.splitlines():
        handed_back, kept = map(int, line.split())
        assert kept * 20 < handed_back, (handed_back, kept)

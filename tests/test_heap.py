"""Programs keep the heap, the library leaves it as it is."""

import contextlib
import ctypes
import os
import platform
import subprocess
import sys

import jax
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
    monkeypatch.setattr(type(jax.config), "update", lambda config, name, value: found.append((name, value)))
    for name in [name for name in os.environ if name.startswith(("GLIBC_", "MALLOC_", "JAXUP_KEEP_HEAP"))]:
        monkeypatch.delenv(name)
    return found


def test_nothing_is_handed_back(asked):
    in_place = {"jax_cpu_enable_async_dispatch": False}
    assert _heap.keep_heap() and dict(asked) == {-4: 0, -1: -1, -2: 64 << 20} | in_place


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


@pytest.mark.parametrize(
    ("program", "command"),
    [
        ("jaxup.cli.command", ["upsample", "no-image.png", "--guide", "no-image.png", "-o", "out.png"]),
        ("experiments.__main__", ["bench", "scaling", "--no-such-option"]),
    ],
)
def test_programs_keep_the_heap(program, command, asked, capsys):
    main = __import__(program, fromlist=["main"]).main
    with contextlib.suppress(SystemExit):
        main(["--help"])
    assert not asked
    with contextlib.suppress(SystemExit):
        main(command)
    assert asked
    capsys.readouterr()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the heap is kept by mallopt, which glibc alone has")
def test_freed_memory_stays():
    """A block that was freed needs no page anew; in a process of its own.

    Nothing else of the package is imported.
    """
    code = """
import ctypes, resource, sys
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
faults()
print(handed_back, faults())
"""
    clean = {"PATH": ""}
    run = subprocess.run(
        [sys.executable, "-c", code, _heap.__file__], capture_output=True, text=True, env=clean, check=True
    )
    handed_back, kept = map(int, run.stdout.split())
    assert kept * 20 < handed_back, (handed_back, kept)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the heap is kept by mallopt, which glibc alone has")
def test_programs_for_cpus_run_in_the_thread_that_calls_them():
    """Whose heap alone holds large blocks: without, each call of this one needs 16 thousand pages."""
    code = """
import resource
from jaxup import _heap
assert _heap.keep_heap()
import jax, jax.numpy as jnp
run = jax.jit(lambda x: jnp.flip(jnp.cumsum(x, axis=0), axis=0) + x)
x = jnp.ones((4096, 4096))
for _ in range(3):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    jax.block_until_ready(run(x))
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
    environment = {"JAX_PLATFORMS": "cpu"}
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert int(run.stdout) < 1000

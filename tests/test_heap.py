"""Programs keep the heap, the library leaves it as it is."""

import contextlib
import importlib
import os
import platform
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from jaxup import _heap
from jaxup.__main__ import run

glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc alone has the settings of a kept heap")


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch):
    for name in [name for name in os.environ if name.startswith(("GLIBC_", "MALLOC_", "JAXUP_KEEP_HEAP"))]:
        monkeypatch.delenv(name)


@pytest.fixture
def started(monkeypatch):
    """How the program was started anew, in the place of doing so."""
    found = []

    def execve(path, arguments, environment):
        found.append((path, arguments))
        os.environ.update(environment)

    monkeypatch.setattr(os, "execve", execve)
    monkeypatch.setattr(os, "environ", dict(os.environ))
    monkeypatch.setattr(os, "confstr", lambda name: "glibc 2.36", raising=False)
    monkeypatch.setattr(sys, "orig_argv", ["python", "-m", "program", "--option"])
    return found


def test_a_program_starts_anew_once(started):
    _heap.start_with_kept_heap()
    assert started == [(sys.executable, [sys.executable, "-m", "program", "--option"])]
    settings = dict(setting.split("=") for setting in os.environ["GLIBC_TUNABLES"].split(":"))
    assert settings["glibc.malloc.mmap_max"] == settings["glibc.malloc.tcache_count"] == "0"
    _heap.start_with_kept_heap()
    assert len(started) == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1"), ("MALLOC_ARENA_MAX", "2"), ("JAXUP_KEEP_HEAP", "0")],
)
def test_settings_of_the_user_win(name, value, started):
    os.environ[name] = value
    _heap.start_with_kept_heap()
    assert not started and not _heap.use_kept_heap() and not _heap.give_back()


@pytest.mark.parametrize("error", [AttributeError, OSError, ValueError, None])
def test_without_glibc_nothing_happens(started, monkeypatch, error):
    def none(name):
        if error is not None:
            raise error

    monkeypatch.setattr(os, "confstr", none)
    _heap.start_with_kept_heap()
    assert not started and not _heap.use_kept_heap()


def test_what_cannot_be_started_anew_goes_on(started, monkeypatch):
    def gone(*command):
        raise FileNotFoundError

    with monkeypatch.context() as without:
        without.setattr(os, "execve", gone)
        _heap.start_with_kept_heap()
    assert not _heap.use_kept_heap()
    monkeypatch.setattr(sys, "executable", None)
    _heap.start_with_kept_heap()
    assert not started


@pytest.mark.parametrize(
    ("program", "command"),
    [
        ("jaxup.cli.command", ["upsample", "no-image.png", "--guide", "no-image.png", "-o", "out.png"]),
        ("experiments.__main__", ["bench", "scaling", "--no-such-option"]),
    ],
)
def test_programs_use_a_kept_heap_and_nobody_else_starts_one(program, command, started, monkeypatch, capsys):
    changed = {}
    monkeypatch.setattr(type(jax.config), "update", lambda config, name, value: changed.update({name: value}))
    main = importlib.import_module(program).main
    with contextlib.suppress(SystemExit):
        main(command)
    assert not started and not changed
    os.environ["GLIBC_TUNABLES"] = _heap._SETTINGS
    with contextlib.suppress(SystemExit):
        main(["--help"])
    assert not changed
    with contextlib.suppress(SystemExit):
        main(command)
    assert changed == {"jax_cpu_enable_async_dispatch": False}
    capsys.readouterr()


def test_the_command_starts_anew(started, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["jaxup"])
    assert run() == 2 and len(started) == 1
    capsys.readouterr()


START = """
import os
from jaxup._heap import *
start_with_kept_heap()
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGESIZE") >> 20
"""


def program(tmp_path, code, **environment):
    """What a program prints that starts with a kept heap."""
    file = tmp_path / "program.py"
    file.write_text(START + code)
    path = os.pathsep.join([str(Path(_heap.__file__).parents[1]), *sys.path[1:]])
    found = subprocess.run(
        [sys.executable, str(file), "one", "two"],
        capture_output=True,
        text=True,
        check=True,
        env={"JAX_PLATFORMS": "cpu", "PYTHONPATH": path} | environment,
    )
    return found.stdout.split()


@glibc
def test_arguments_and_process_are_the_same(tmp_path):
    code = "import sys\nprint(*sys.argv[1:], 'GLIBC_TUNABLES' in os.environ)"
    assert program(tmp_path, code) == ["one", "two", "True"]
    assert program(tmp_path, code, JAXUP_KEEP_HEAP="0") == ["one", "two", "False"]


@glibc
@pytest.mark.parametrize("name", ["jaxup", "jaxup.cli", "experiments"])
def test_programs_start_anew(name, tmp_path):
    (tmp_path / "sitecustomize.py").write_text("import os\nprint('GLIBC_TUNABLES' in os.environ, flush=True)")
    path = os.pathsep.join([str(tmp_path), str(Path(_heap.__file__).parents[1]), *sys.path[1:]])
    command = [sys.executable, "-m", name, "--help"]
    found = subprocess.run(command, capture_output=True, text=True, check=True, env={"PYTHONPATH": path}).stdout
    assert found.startswith("False\nTrue\nusage: ")


@glibc
def test_calls_do_not_wait_for_pages(tmp_path):
    """Run in one of XLA's threads, each call of this one would need 16 thousand, or dozens of huge ones."""
    code = """
import resource
use_kept_heap()
import jax, jax.numpy as jnp
run = jax.jit(lambda x: jnp.flip(jnp.cumsum(x, axis=0), axis=0) + x)
x = jnp.ones((4096, 4096))
for _ in range(8):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    jax.block_until_ready(run(x))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
    faults = [int(word) for word in program(tmp_path, code)]
    assert min(faults[3:]) < 16, faults


@glibc
def test_the_same_blocks_fit_again(tmp_path):
    """Aligned as XLA asks for them; with the bytes that alignment leaves kept for small objects, 140 MiB more."""
    code = """
import ctypes
library = ctypes.CDLL(None)
def block(size):
    found = ctypes.c_void_p()
    assert library.posix_memalign(ctypes.byref(found), 64, size) == 0
    ctypes.memset(found, 1, size)
    return found
small = [library.malloc(size) for size in range(24, 120, 16) for _ in range(8)]
for _ in range(10):
    for found in reversed([block(size << 20) for size in (32, 48, 16)]):
        library.free(found)
    print(resident())
"""
    first, *later = map(int, program(tmp_path, code))
    assert max(later) < first + 16


@glibc
def test_free_memory_is_given_back(tmp_path):
    code = """
import numpy as np
blocks = [np.ones(8 << 20) for _ in range(2)]
del blocks[0]
before = resident()
give_back()
print(before - resident())
"""
    (freed,) = map(int, program(tmp_path, code))
    assert freed > 56

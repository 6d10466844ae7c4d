"""Files are written whole or not at all, through no link, and by one helper alone."""

import ast
import io
import os
import stat
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from jaxup import _writing
from jaxup._writing import append_line, replacing, write_file
from jaxup.files import InputError, write_depth, write_rgb

ROOT = Path(__file__).parents[1]
FORMATS = {".png": "PIL", ".tiff": "tifffile", ".npy": "", ".pfm": "", ".pgm": "", ".exr": "OpenEXR"}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def names():
    return sorted(os.listdir())


def test_a_file_takes_the_place_of_another():
    path = Path("a.bin")
    for content in (b"first", b"", b"third" * 1000):
        write_file(path, content)
        assert path.read_bytes() == content and names() == ["a.bin"]


@pytest.mark.parametrize("umask, mode", [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_permissions(umask, mode):
    """The umask's for new files, as for those of `open`; a file that is replaced keeps its own."""
    before = os.umask(umask)
    try:
        for _ in range(2):
            write_file(Path("new"), b"x")
            append_line(Path("lines"), "x")
            assert {stat.S_IMODE(os.stat(name).st_mode) for name in ("new", "lines")} == {mode}
        os.chmod("new", 0o640)
        write_file(Path("new"), b"y")
        assert stat.S_IMODE(os.stat("new").st_mode) == 0o640
    finally:
        os.umask(before)


@pytest.mark.parametrize("target", ["precious", "missing"])
def test_links_are_replaced_and_what_they_point_to_stays(target):
    Path("precious").write_text("precious")
    Path("link").symlink_to(target)
    write_file(Path("link"), b"new")
    assert not Path("link").is_symlink() and Path("link").read_bytes() == b"new"
    assert Path("precious").read_text() == "precious" and not Path("missing").exists()
    os.link("precious", "other name")
    write_file(Path("other name"), b"new")
    assert Path("precious").read_text() == "precious"


def test_planted_links_are_not_followed(monkeypatch):
    """Of whatever name the temporary file is: it is made anew, or nothing is written."""
    Path("precious").write_text("precious")
    monkeypatch.setattr(_writing.secrets, "token_hex", lambda size: "0" * 2 * size)
    Path(".a.0000000000000000").symlink_to("precious")
    with pytest.raises(FileExistsError) as caught:
        write_file(Path("a"), b"new")
    assert caught.value.filename == "a"
    assert Path("precious").read_text() == "precious" and not Path("a").exists()
    Path("lines").symlink_to("precious")
    with pytest.raises(OSError, match="lines"):
        append_line(Path("lines"), "new")
    assert Path("precious").read_text() == "precious"


def test_names_of_temporary_files_cannot_be_guessed():
    seen = set()
    for _ in range(3):
        with replacing(Path("a")) as file:
            seen |= set(names())
            file.write(b"x")
    assert len(seen - {"a"}) == 3


def test_what_is_no_file_is_not_replaced():
    os.mkfifo("fifo")
    Path("folder").mkdir()
    for name, error in (("fifo", OSError), ("folder", IsADirectoryError), ("none/a", FileNotFoundError)):
        with pytest.raises(error, match=name):
            write_file(Path(name), b"x")
    assert stat.S_ISFIFO(os.stat("fifo").st_mode) and names() == ["fifo", "folder"]


@pytest.mark.parametrize("error", [OSError(28, "No space left"), ValueError("x"), KeyboardInterrupt()], ids=repr)
def test_what_fails_leaves_the_former_file(error):
    write_file(Path("a"), b"before")
    with pytest.raises(type(error)), replacing(Path("a")) as file:
        file.write(b"half of it")
        raise error
    assert Path("a").read_bytes() == b"before" and names() == ["a"]


@pytest.mark.parametrize("call", ["fsync", "replace", "fstat"])
def test_calls_of_the_system_that_fail(monkeypatch, call):
    def fail(*_):
        raise OSError(5, "Input/output error")

    write_file(Path("a"), b"before")
    with monkeypatch.context() as patched, pytest.raises(OSError, match="Input/output error: 'a'"):
        patched.setattr(_writing.os, call, fail)
        write_file(Path("a"), b"after")
    assert Path("a").read_bytes() == b"before" and names() == ["a"]


def test_a_short_file_is_noticed(monkeypatch):
    """A disk that takes less than it says."""
    write_file(Path("a"), b"before")
    created = _writing._created
    monkeypatch.setattr(_writing, "_created", lambda *args: Short(created(*args)))
    with pytest.raises(OSError, match="not all of it was written"):
        write_file(Path("a"), b"after" * 100)
    assert Path("a").read_bytes() == b"before" and names() == ["a"]


class Short(io.BufferedWriter):
    """Says that it wrote all, and wrote half."""

    def __init__(self, file):
        super().__init__(file.detach())

    def write(self, content):
        super().write(content[: len(content) // 2])
        return len(content)


def full_disk(program):
    """Run a program that may write no file of more than 2000 bytes, as if the disk were full then."""
    limit = "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
    limit += "resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))\n"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    return subprocess.run([sys.executable, "-c", limit + program], env=environment, capture_output=True, text=True)


def test_a_full_disk_leaves_the_former_files():
    """Every format, into files of names that are taken, in a process whose files may have 2000 bytes."""
    formats = [suffix for suffix, package in FORMATS.items() if not package or find_spec(package)]
    for suffix in formats:
        Path(f"a{suffix}").write_bytes(b"precious")
    program = f"""
import numpy as np
from pathlib import Path
from jaxup import files, _writing
values = np.random.default_rng(0).integers(0, 65535, (100, 120)).astype(np.uint16)
for suffix in {formats!r}:
    try:
        files.write_depth(Path("a" + suffix), values.astype(np.float32) if suffix in (".exr", ".pfm") else values)
        print("written", suffix)
    except files.InputError as error:
        print(error)
_writing.append_line(Path("lines"), "x" * 1900)
try:
    _writing.append_line(Path("lines"), "y" * 200)
except OSError as error:
    print(f"{{error.filename}}: {{error.strerror}}")
"""
    done = full_disk(program)
    assert done.returncode == 0, done.stderr
    *lines, last = done.stdout.splitlines()
    assert [line.split(":")[:2] for line in lines] == [[f"a{suffix}", " cannot be written"] for suffix in formats]
    assert last == "lines: File too large"
    assert all(Path(f"a{suffix}").read_bytes() == b"precious" for suffix in formats)
    assert Path("lines").read_text() == "x" * 1900 + "\n"
    assert names() == sorted([*(f"a{suffix}" for suffix in formats), "lines"])


def test_errors_of_pictures_and_maps_are_one_line():
    for write, values in ((write_rgb, np.zeros((2, 2, 3), np.uint8)), (write_depth, np.zeros((2, 2), np.uint8))):
        with pytest.raises(InputError, match=r"^no/a\.png: cannot be written: No such file or directory$"):
            write(Path("no/a.png"), values)


WRITERS = {"write_text", "write_bytes", "to_csv", "save_file", "imsave", "tofile", "mkstemp"}
INTO = {"save", "imwrite", "savez", "savez_compressed", "savetxt", "savefig", "dump"}  # what they write to comes first
MEMORY = ("buffer", "file", "step", "arrays")  # what that is called where it is no path


def writes(call):
    """Whether a call writes a file by itself."""
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    if name == "open":
        modes = [*call.args, *(keyword.value for keyword in call.keywords if keyword.arg == "mode")]
        texts = [mode.value for mode in modes if isinstance(mode, ast.Constant) and isinstance(mode.value, str)]
        return any(len(text) < 4 and set(text) & set("wax+") for text in texts)
    if name in INTO:
        return bool(call.args) and ast.unparse(call.args[0]).split()[0] not in MEMORY
    return name in WRITERS or ast.unparse(call.func) in ("os.replace", "os.rename", "os.open")


def test_one_helper_writes_every_file():
    """Orbax writes checkpoints, to a folder that it renames."""
    found = []
    for path in [*(ROOT / "jaxup").rglob("*.py"), *(ROOT / "experiments").rglob("*.py")]:
        calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        found += [f"{path.relative_to(ROOT)}:{call.lineno}" for call in calls if writes(call)]
    assert {place.partition(":")[0] for place in found} == {"jaxup/_writing.py"}, found

"""Files of the library's formats that promise too much, hold themselves or lead elsewhere, each made by hand."""

import contextlib
import json
import os
import struct
import zipfile
import zlib

import numpy as np
import pytest

from jaxup import files, interop
from tests.interop.test_djf import write_version_7_3
from tests.test_fuzz import GREY16, RGB, imagecodecs, matlab, tifffile

pytest.importorskip("safetensors", reason="safetensors is not installed")


def element(kind, data, size=None):
    return struct.pack("<II", kind, len(data) if size is None else size) + data + bytes(-len(data) % 8)


def array(kind, shape, name, *parts):
    head = element(6, struct.pack("<II", kind, 0)) + element(5, struct.pack(f"<{len(shape)}i", *shape))
    return element(14, head + element(1, name) + b"".join(parts))


def mat(folder, *elements):
    (folder / "net.mat").write_bytes(bytes(124) + b"\0\1IM" + b"".join(elements))
    return folder / "net.mat"


@pytest.mark.parametrize(
    "stored, message",
    [
        ([array(5, (1, 1), b"net")], "net is a sparse array, which is not read"),
        ([array(1, (2**30, 4), b"net")], "fewer arrays than a shape"),
        ([array(2, (2**30, 4), b"net", element(5, bytes(4)), element(1, b""))], "names of fields of 0 bytes"),
        ([array(9, (2**30, 4), b"net", element(2, b"123"))], "cannot reshape"),
        ([array(6, (-1, 4), b"net", element(2, b"123"))], "shape"),
        ([array(99, (1, 1), b"net")], "unknown class 99"),
        ([element(14, bytes(8), size=2**31)], "more than 67108864 bytes|cut off"),
        ([element(15, zlib.compress(struct.pack("<II", 14, 2**31) + bytes(1000)))], "a compressed variable of"),
        ([array(6, (1, 1), b"other", element(2, b"1"))], "expected a variable net, there are other"),
    ],
)
def test_matlab_files_that_promise_too_much(tmp_path, stored, message):
    with pytest.raises(ValueError, match=rf"net\.mat: expected a \.mat file with net\.layers, got .*({message})"):
        interop.load_matconvnet(mat(tmp_path, *stored))


def test_matlab_cells_in_cells(tmp_path):
    inner = array(6, (1, 1), b"", element(2, b"1"))
    for _ in range(40):
        inner = array(1, (1, 1), b"net", inner)
    with pytest.raises(ValueError, match="more than 32 in each other"):
        interop.load_matconvnet(mat(tmp_path, inner))
    empty = element(14, b"")
    with pytest.raises(ValueError, match="more than 65536 arrays"):
        interop.load_matconvnet(mat(tmp_path, array(1, (1, 70_000), b"net", empty * 70_000)))


@pytest.mark.torch
def test_torch_files_that_hold_themselves(tmp_path):
    """Dicts in dicts without an end, and twice as many at each level."""
    torch = pytest.importorskip("torch")
    cyclic = {"epoch": 1}
    cyclic["model"] = cyclic
    wide = {"x": 1}
    for _ in range(60):
        wide = {"a": wide, "b": wide}
    with_tensor = {"x": torch.ones(1)}
    with_tensor["model"] = with_tensor
    for content in (cyclic, wide, with_tensor):
        torch.save(content, tmp_path / "a.pth")
        with pytest.raises(ValueError, match=r"a\.pth: expected a state dict"):
            interop.load_checkpoint(tmp_path / "a.pth")


@pytest.mark.torch
def test_torch_files_larger_in_memory(tmp_path):
    torch = pytest.importorskip("torch")
    torch.save({"a": torch.zeros(1).expand(2**20, 2**20)}, tmp_path / "a.pth")
    with pytest.raises(
        ValueError, match=r"a\.pth: expected tensors of no more than \d+ bytes, got a: \(1048576, 1048576\)"
    ):
        interop.load_checkpoint(tmp_path / "a.pth")
    torch.save({"a": torch.zeros(2**10)}, tmp_path / "a.pth")
    with (
        zipfile.ZipFile(tmp_path / "a.pth") as plain,
        zipfile.ZipFile(tmp_path / "b.pth", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for name in plain.namelist():
            packed.writestr(name, plain.read(name))
    with pytest.raises(ValueError, match=r"b\.pth: .*larger unpacked"):
        interop.load_checkpoint(tmp_path / "b.pth")
    torch.save({"a": torch.ones(3, device="meta")}, tmp_path / "c.pth")
    with pytest.raises(ValueError, match=r"c\.pth: expected tensors of types that NumPy has"):
        interop.load_checkpoint(tmp_path / "c.pth")


class State:
    """A pickle that gives a type of NumPy a state, which NumPy itself does not look at."""

    def __init__(self, *state):
        self.state = state

    def __reduce__(self):
        return np.dtype, ("f8", False, True), self.state


@pytest.mark.torch
@pytest.mark.parametrize(
    "state", [(3, "<", None, (), {"a": 1}, -5, 2**31, 63), (3, "|", (np.int8, (2**30, 2**30)), None)]
)
def test_states_of_types(tmp_path, state):
    """They end the process, or change what a type is, if NumPy takes them."""
    torch = pytest.importorskip("torch")
    torch.save({"a": torch.ones(2), "b": State(*state)}, tmp_path / "a.pth")
    with contextlib.suppress(ValueError):
        assert list(interop.load_checkpoint(tmp_path / "a.pth", entry=None)) == ["a"]
    assert np.dtype("f8").itemsize == 8


def test_pipes_are_no_files(tmp_path):
    """Opening one would wait for ever."""
    os.mkfifo(tmp_path / "a.pth")
    os.mkfifo(tmp_path / "a.mat")
    for load, name in ((interop.load_checkpoint, "a.pth"), (interop.load_matconvnet, "a.mat")):
        with pytest.raises(ValueError, match="expected a file, got something else"):
            load(tmp_path / name)
    with pytest.raises(files.InputError, match="no such file"):
        files.read_rgb(tmp_path / "a.pth")


def tensors_of(folder, head, data=bytes(16)):
    text = json.dumps(head).encode() if isinstance(head, dict) else head
    (folder / "a.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)
    return folder / "a.safetensors"


def entry(begin, end, shape=(2,), dtype="F32"):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


@pytest.mark.parametrize(
    "head",
    [
        {"a": entry(0, 8), "b": entry(4, 12)},
        {"a": entry(0, 8), "b": entry(8, 2**60, (2**58,))},
        {"a": entry(8, 0)},
        {"a": entry(0, 8, (2**32, 2**32))},
        {"a": entry(0, 8, (-2,))},
        {"a": entry(0, 8)},
        {"a": entry(0, 16, (4,), "X9")},
        b"[" * 10_000,
        b"{}" + b" " * 100,
    ],
    ids=range(9),
)
def test_safetensors_that_do_not_fit(tmp_path, head):
    with pytest.raises(ValueError, match=r"a\.safetensors: expected a safetensors file, got .*"):
        interop.load_checkpoint(tensors_of(tmp_path, head))


@pytest.mark.parametrize("widths", ["[1000000, 2]", "[" * 3000 + "]" * 3000], ids=["wide", "deep"])
def test_modules_out_of_proportion(tmp_path, widths):
    options = f'{{"widths": {widths}, "joint_widths": [2, 2]}}'
    path = tensors_of(
        tmp_path, {"__metadata__": {"jaxup": f'{{"class": "DJF", "options": {options}}}'}, "a": entry(0, 16, (4,))}
    )
    with pytest.raises(ValueError, match=r"a\.safetensors: expected .*(integers up to 1024|RecursionError)"):
        interop.load_module(path)


def linked(folder, change):
    """A network of version 7.3 of which one array was put elsewhere."""
    import h5py

    path = matlab(write_version_7_3)(folder)
    with h5py.File(path, "r+") as file:
        change(h5py, file, folder)
    return path


def external_link(h5py, file, folder):
    with h5py.File(folder / "other.h5", "w") as other:
        other["net/layers"] = np.ones(3)
    del file["net/layers"]
    file["net/layers"] = h5py.ExternalLink("other.h5", "net/layers")


def soft_link(h5py, file, folder):
    file.move("net/layers", "elsewhere")
    file["net/layers"] = h5py.SoftLink("/elsewhere")


def external_storage(h5py, file, folder):
    (folder / "raw").write_bytes(bytes(range(72)))
    del file["#refs#/0_weights_0"], file["#refs#/0"]["weights"]
    file["#refs#/0"].create_dataset("filters", (3, 3), "u1", external=[(folder / "raw", 0, 9)])


def virtual(h5py, file, folder):
    with h5py.File(folder / "other.h5", "w") as other:
        other["x"] = np.ones((3, 3))
    layout = h5py.VirtualLayout((3, 3), "f8")
    layout[:] = h5py.VirtualSource(folder / "other.h5", "x", (3, 3))
    del file["#refs#/0"]["weights"]
    file["#refs#/0"].create_virtual_dataset("filters", layout, fillvalue=0)


def huge(h5py, file, folder):
    del file["#refs#/0"]["weights"]
    file["#refs#/0"].create_dataset("filters", (2**14, 2**14), "f4", chunks=(64, 64))


def cyclic(h5py, file, folder):
    del file["#refs#/0"]["weights"]
    cell = file["#refs#/0"].create_dataset("weights", (2,), h5py.ref_dtype)
    cell[:] = [cell.ref, cell.ref]


CHANGES = {
    external_link: "a link",
    soft_link: "a link",
    external_storage: "one of other files",
    virtual: "one of other files",
    huge: "is larger than",
}


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_hdf5_that_leads_elsewhere(tmp_path, change):
    pytest.importorskip("h5py")
    path = linked(tmp_path, change)
    with pytest.raises(ValueError, match=rf"net\.mat: .*{CHANGES[change]}"):
        interop.load_matconvnet(path)


def test_hdf5_cells_that_hold_themselves(tmp_path):
    pytest.importorskip("h5py")
    assert "layer1_weights" not in interop.load_matconvnet(linked(tmp_path, cyclic))


def jpeg_of(height, width):
    """A JPEG whose header says another size than it was made with."""
    stored = bytearray(imagecodecs.jpeg8_encode(RGB))
    at = stored.index(b"\xff\xc0")
    stored[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(stored)


def test_tiff_whose_parts_are_larger_than_it(tmp_path):
    """Of JPEG, which has sizes of its own; pages in a circle, pages and strips without number, formats of no use."""
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as file:
        file.write(
            iter([jpeg_of(60_000, 60_000)]), shape=RGB.shape, dtype=np.uint8, photometric="rgb", compression="jpeg"
        )
    with pytest.raises(files.InputError, match="60000 x 60000 is more than"):
        files.read_rgb(path)
    tifffile.imwrite(path, RGB, photometric="rgb", compression="webp", compressionargs={"lossless": True})
    with pytest.raises(files.InputError, match="compression WEBP is not read"):
        files.read_rgb(path)
    with tifffile.TiffWriter(path) as file:
        for _ in range(70):
            file.write(GREY16[:2, :2], photometric="minisblack", metadata=None)
    with pytest.raises(files.InputError, match="expected one page, there are 70"):
        files.read_depth(path)
    tifffile.imwrite(path, GREY16, photometric="minisblack", metadata=None)
    with tifffile.TiffFile(path) as file:
        page, whole = file.pages[0], bytearray(path.read_bytes())
        entries = struct.unpack_from("<H", whole, page.offset)[0]
        struct.pack_into("<I", whole, page.offset + 2 + 12 * entries, page.offset)  # its next page is itself
    path.write_bytes(whole)
    np.testing.assert_array_equal(files.read_depth(path), GREY16)


def test_netpbm_is_read_no_further_than_its_size(tmp_path):
    path = tmp_path / "a.pgm"
    path.write_bytes(b"P5\n8000 8000\n255\n" + bytes(10))
    with pytest.raises(files.InputError, match="cannot be read"):
        files.read_depth(path)
    path.write_bytes(b"P2\n2 1\n255\n1 2 3")
    with pytest.raises(files.InputError, match="expected 2 numbers, got 3"):
        files.read_depth(path)


def test_tiff_with_too_many_samples(tmp_path):
    """Which asks for thousands of numbers a pixel, whatever is stored."""
    tifffile.imwrite(tmp_path / "a.tif", GREY16, photometric="minisblack", compression="lzw", planarconfig="contig")
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+b") as file:
        file.pages[0].tags["SamplesPerPixel"].overwrite(50_000)
    with pytest.raises(files.InputError, match=r"a\.tif: .*up to 16 samples a pixel, got 50000"):
        files.read_depth(tmp_path / "a.tif")

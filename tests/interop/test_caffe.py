"""Files of Caffe, written here field by field."""

import struct

import numpy as np
import pytest

from jaxup import interop
from jaxup.models import DMSG
from tests.modules import drawn

MESSAGE, LEGACY = dict(layers=100, name=1, blobs=7), dict(layers=2, name=4, blobs=6)


def varint(value):
    out = b""
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


def field(number, content):
    """A number, or bytes behind their length."""
    if isinstance(content, int):
        return varint(number << 3) + varint(content)
    return varint(number << 3 | 2) + varint(len(content)) + content


def blob(array, *, old=False, packed=True):
    """With its shape in four fields, or number by number."""
    double = array.dtype == np.float64
    if packed:
        data = field(8 if double else 5, array.tobytes())
    else:
        data = b"".join(varint(5 << 3 | 5) + struct.pack("<f", x) for x in array.flat)
    if old:
        return b"".join(field(i + 1, n) for i, n in enumerate((1,) * (4 - array.ndim) + array.shape)) + data
    return data + field(7, field(1, b"".join(map(varint, array.shape))))


def caffemodel(layers, *, fields=MESSAGE, **options):
    """Of {name: arrays}, with other fields between them."""
    content = field(1, b"a network") + field(6, 1)
    for name, arrays in layers.items():
        layer = field(fields["name"], name.encode()) + varint(9 << 3 | 1) + bytes(8)
        layer += b"".join(field(fields["blobs"], blob(array, **options)) for array in arrays)
        content += field(fields["layers"], layer)
    return content


def of_state(state):
    """The layers of a state dict."""
    layers = {}
    for key, x in state.items():
        layers.setdefault(key.removeprefix("m.").rpartition(".")[0], []).append(np.asarray(x))
    return layers


LAYERS = {
    "conv1": [np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2), np.array([5, 6], np.float32)],
    "relu": [],
    "slope": [np.array([0.25, 0.5, 1], np.float32)],
}


@pytest.mark.parametrize(
    "options",
    [{}, dict(fields=LEGACY, old=True), dict(packed=False)],
    ids=["today", "before 2014", "number by number"],
)
def test_arrays(tmp_path, options):
    path = tmp_path / "net.caffemodel"
    path.write_bytes(caffemodel(LAYERS, **options))
    state = interop.load_caffemodel(path)
    assert set(state) == {"conv1.weight", "conv1.bias", "slope.weight"}
    np.testing.assert_array_equal(state["conv1.weight"], LAYERS["conv1"][0])
    np.testing.assert_array_equal(state["conv1.bias"], [5, 6])
    assert state["slope.weight"].size == 3 and state["conv1.bias"].shape == (2,)


def test_doubles_and_data_in_parts(tmp_path):
    path = tmp_path / "net.caffemodel"
    path.write_bytes(caffemodel({"a": [np.arange(3.0)]}))
    assert interop.load_caffemodel(path)["a.weight"].dtype == np.float64
    parts = field(5, np.float32([1, 2]).tobytes()) + field(5, np.float32([3]).tobytes())
    path.write_bytes(field(100, field(1, b"a") + field(7, parts)))
    np.testing.assert_array_equal(interop.load_caffemodel(path)["a.weight"], [1, 2, 3])


def test_dmsg(tmp_path):
    """The names are those of the released definitions for 8x: levels have the factor that they go to."""
    network, _ = drawn(DMSG, scale=8)
    official = interop.to_torch("DMSG", network, {"scale": 8})
    path = tmp_path / "net.caffemodel"
    path.write_bytes(caffemodel(of_state(official)))
    state = interop.load_caffemodel(path)
    assert {"conv2a-x4.weight", "prelu3-x4.weight", "deconv4-x8.bias", "prelu4c.weight", "conv5.bias"} <= state.keys()
    again = interop.from_torch("DMSG", state, {"scale": 8})
    np.testing.assert_array_equal(again.levels[1][2].conv.kernel[...], network.levels[1][2].conv.kernel[...])


@pytest.mark.parametrize(
    "content, message",
    [
        (b"something else " * 100, "expected a .caffemodel file, got"),
        (field(1, b"a network"), "expected a .caffemodel file with weights, got none"),
        (caffemodel(LAYERS)[:-9], "the file is cut off"),
        (caffemodel(LAYERS) * 2, "expected layers of different names, got two of 'conv1'"),
        (field(100, field(1, b"a") + field(7, field(7, field(1, varint(4))))), "0 numbers for an array of shape"),
        (field(100, field(1, b"a") + field(7, field(7, field(1, varint(2**63) * 40)))), "more than 32 axes"),
        (field(100, field(1, b"a") + field(7, field(5, b"123"))), "3 bytes of type 2 where numbers are expected"),
        (field(100, 7), "a field of type 0 where bytes are expected"),
        (field(100, field(1, b"\xff") + field(7, blob(np.ones(1, np.float32)))), "got 'utf-8' codec"),
        (b"\xff" * 40, "a number without an end"),
        (field(3, 1) * 70_000, "more than 65536 fields"),
        (b"\x0b", "a field of type 3"),
        (b"\x00\x01", "a field without a number"),
    ],
)
def test_other_files(tmp_path, content, message):
    path = tmp_path / "net.caffemodel"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"net\.caffemodel: ") as error:
        interop.load_caffemodel(path)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_too_large_a_file(tmp_path, monkeypatch):
    monkeypatch.setattr("jaxup._caffe.MAX_BYTES", 100)
    path = tmp_path / "net.caffemodel"
    path.write_bytes(caffemodel(LAYERS))
    with pytest.raises(ValueError, match="more than 100 bytes"):
        interop.load_caffemodel(path)

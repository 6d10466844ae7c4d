import argparse
import importlib
import json
import struct

import numpy as np
import pytest
from flax import nnx

from jaxup import interop, nn


def tensors():
    random = np.random.default_rng(0)
    return {"conv.weight": random.standard_normal((4, 3, 1, 1)).astype(np.float32), "scale": np.array(2, np.float32)}


def assert_equal(actual, expected):
    assert set(actual) == set(expected)
    for name, x in expected.items():
        assert isinstance(actual[name], np.ndarray)
        np.testing.assert_array_equal(actual[name], x)


def test_safetensors(tmp_path):
    safetensors = pytest.importorskip("safetensors.numpy")
    safetensors.save_file(tensors(), tmp_path / "a.safetensors")
    assert_equal(interop.load_checkpoint(tmp_path / "a.safetensors"), tensors())
    assert_equal(interop.load_checkpoint(str(tmp_path / "a.safetensors")), tensors())


@pytest.mark.torch
@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"model": {"state_dict": state}},
        lambda state: {f"module.{name}": x for name, x in state.items()},
    ],
)
def test_torch(tmp_path, wrap):
    torch = pytest.importorskip("torch")
    state = {name: torch.tensor(x) for name, x in tensors().items()}
    torch.save(wrap(state), tmp_path / "a.pth")
    assert_equal(interop.load_checkpoint(tmp_path / "a.pth"), tensors())


def prefixed(state, prefix):
    return {f"{prefix}{name}": x for name, x in state.items()}


@pytest.mark.torch
@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: prefixed(state, "_orig_mod."),
        lambda state: prefixed(state, "_orig_mod.module."),
        lambda state: prefixed(state, "module._orig_mod.module."),
        lambda state: {f"module.{name.replace('conv.', 'conv._orig_mod.')}": x for name, x in state.items()},
        lambda state: {"model": prefixed(state, "module._fsdp_wrapped_module.")},
        lambda state: {"n_averaged": state["scale"], **prefixed(state, "module.")},
        lambda state: {"model_state_dict": state, "optimizer_state_dict": {"state": state}, "epoch": 3},
        lambda state: {"params": {name: 0 * x for name, x in state.items()}, "params_ema": state},
        lambda state: {"state_dict": {name: 0 * x for name, x in state.items()}, "state_dict_ema": state},
        lambda state: {"ema_state_dict": state, "state_dict": {name: 0 * x for name, x in state.items()}},
        lambda state: {"model_state_dict": {name: 0 * x for name, x in state.items()}, "model_ema_state_dict": state},
        lambda state: {"model": state, "best": np.float64(3), "epoch": np.int64(2), "seen": np.ones(2, bool)},
        lambda state: {"model": state, "args": argparse.Namespace(name="a", width=np.float32(3))},
        lambda state: {name: x.numpy() for name, x in state.items()},
        lambda state: {"net": {"state_dict": state}, "model": {"name": "CARAFE"}},
        lambda state: {"generator": prefixed(state, "module."), "discriminator": state},
    ],
)
def test_wrapped(tmp_path, wrap):
    torch = pytest.importorskip("torch")
    torch.save(wrap({name: torch.tensor(x) for name, x in tensors().items()}), tmp_path / "a.pth")
    assert_equal(interop.load_checkpoint(tmp_path / "a.pth"), tensors())


@pytest.mark.torch
def test_several_state_dicts(tmp_path):
    torch = pytest.importorskip("torch")
    state = {name: torch.tensor(x) for name, x in tensors().items()}
    torch.save({"generator": state, "net": {"x": state["scale"]}, "other": state}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match=r"one state dict, or its name as entry, got several: net, generator"):
        interop.load_checkpoint(tmp_path / "a.pth")
    for entry in ("generator", "other"):
        assert_equal(interop.load_checkpoint(tmp_path / "a.pth", entry=entry), tensors())
    with pytest.raises(ValueError, match="expected an entry 'none', got generator: dict"):
        interop.load_checkpoint(tmp_path / "a.pth", entry="none")
    torch.save({**state, "module.conv.weight": state["scale"], "_orig_mod.scale": state["scale"]}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match="keys that differ without their wrappers"):
        interop.load_checkpoint(tmp_path / "a.pth")


@pytest.mark.parametrize("prefix", ["model.", "net.module.up."])
def test_names_that_all_keys_begin_with(prefix):
    """They are taken off where that makes the keys of the operator, and only there."""
    config = {"in_channels": 8, "groups": 2}
    state = interop.to_torch("DySample", nn.DySample(8, scale=2, groups=2, rngs=nnx.Rngs(0)), config)
    module = interop.from_torch("DySample", prefixed(state, prefix), config)
    np.testing.assert_array_equal(module.offset.kernel[...].T, state["offset.weight"][:, :, 0, 0])
    with pytest.raises(ValueError, match=r"model\.weight: unexpected"):
        interop.from_torch("DySample", {"model.weight": np.ones(4)}, config)
    with pytest.raises(ValueError, match=rf"{prefix}offset\.weight: unexpected"):
        interop.from_torch("DySample", {**prefixed(state, prefix), "other.x": np.ones(4)}, config)


@pytest.mark.parametrize(
    "kind, stored, expected",
    [
        ("BF16", b"\xc0\x3f\x00\xc0", [1.5, -2]),
        ("F8_E4M3", b"\x3c\xc0", [1.5, -2]),
        ("F8_E5M2", b"\x3e\xc0", [1.5, -2]),
        ("F8_E8M0", b"\x3c\xc0", None),
        ("F64", np.array([1.5, -2]).tobytes(), [1.5, -2]),
    ],
)
def test_small_floats_of_safetensors(tmp_path, kind, stored, expected):
    """NumPy does not have them: float32, or an error that names the tensor."""
    pytest.importorskip("safetensors.numpy")
    entries = {"a": (kind, stored), "b": ("F32", np.float32([3, 4]).tobytes())}
    head, data = {}, b""
    for key, (dtype, x) in entries.items():
        head[key] = {"dtype": dtype, "shape": [2], "data_offsets": [len(data), len(data) + len(x)]}
        data += x
    text = json.dumps(head).encode()
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)
    if expected is None:
        with pytest.raises(ValueError, match=f"got a: {kind}"):
            interop.load_checkpoint(tmp_path / "a.safetensors")
        return
    assert_equal(
        interop.load_checkpoint(tmp_path / "a.safetensors"), {"a": np.float32(expected), "b": np.float32([3, 4])}
    )


@pytest.mark.torch
def test_small_floats_of_torch(tmp_path):
    torch = pytest.importorskip("torch")
    torch.save({"a": torch.tensor([1.5, -2]).to(torch.float8_e4m3fn)}, tmp_path / "a.pth")
    assert_equal(interop.load_checkpoint(tmp_path / "a.pth"), {"a": np.array([1.5, -2.0], np.float32)})
    torch.save({"a": torch.eye(2).to_sparse()}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match=r"expected tensors of types that NumPy has, got a: torch\.float32"):
        interop.load_checkpoint(tmp_path / "a.pth")


@pytest.mark.torch
@pytest.mark.parametrize("keep", [0.2, 0.6, 0.98])
def test_truncated(tmp_path, keep):
    torch, safetensors = pytest.importorskip("torch"), pytest.importorskip("safetensors.numpy")
    torch.save({name: torch.tensor(x) for name, x in tensors().items()}, tmp_path / "a.pth")
    safetensors.save_file(tensors(), tmp_path / "a.safetensors")
    for name in ("a.pth", "a.safetensors"):
        whole = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(whole[: int(keep * len(whole))])
        with pytest.raises(ValueError, match=f"{name}: expected a"):
            interop.load_checkpoint(tmp_path / name)
    (tmp_path / "folder.pth").mkdir()
    with pytest.raises(OSError):
        interop.load_checkpoint(tmp_path / "folder.pth")


@pytest.mark.torch
def test_bfloat16(tmp_path):
    torch = pytest.importorskip("torch")
    torch.save({"a": torch.tensor([1.5, -2.0], dtype=torch.bfloat16)}, tmp_path / "a.pth")
    assert_equal(interop.load_checkpoint(tmp_path / "a.pth"), {"a": np.array([1.5, -2.0], np.float32)})


class Trap:
    def __reduce__(self):
        return (print, ("executed",))


@pytest.mark.torch
def test_code_is_not_executed(tmp_path, capsys):
    torch = pytest.importorskip("torch")
    torch.save({"a": Trap()}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match=r"a\.pth: expected a file of tensors .*, got an object of print$"):
        interop.load_checkpoint(tmp_path / "a.pth")
    assert capsys.readouterr().out == ""


@pytest.mark.torch
@pytest.mark.parametrize("content", [b"", b"no checkpoint"])
def test_garbage(tmp_path, content):
    pytest.importorskip("torch")
    for name in ("a.pth", "a.safetensors"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=rf"{name}: expected a"):
            interop.load_checkpoint(tmp_path / name)


@pytest.mark.torch
@pytest.mark.parametrize("content", [[1, 2], {"weights": {"a": 1}}, {3: 4}])
def test_no_state_dict(tmp_path, content):
    torch = pytest.importorskip("torch")
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(ValueError, match="expected a state dict: tensors by name"):
        interop.load_checkpoint(tmp_path / "a.pth")


@pytest.mark.parametrize("name, package", [("a.pth", "torch"), ("a.safetensors", "safetensors")])
def test_missing_reader(tmp_path, monkeypatch, name, package):
    (tmp_path / name).write_bytes(b"x")

    def absent(wanted):
        raise ModuleNotFoundError(wanted)

    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(ValueError, match=f"{name}: expected {package} installed"):
        interop.load_checkpoint(tmp_path / name)


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        interop.load_checkpoint(tmp_path / "a.pth")

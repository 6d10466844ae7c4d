import importlib

import numpy as np
import pytest

from jaxup import interop


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
    with pytest.raises(ValueError, match=r"a\.pth: expected a file of tensors"):
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
@pytest.mark.parametrize("content", [[1, 2], {"weights": {"a": 1}}])
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

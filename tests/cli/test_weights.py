"""Weights for the command, ours and official ones."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from jaxup import interop, ops
from jaxup.cli.methods import LEARNED, make_method
from tests.cli.depth_maps import DEPTH, GUIDE, refused, run, small_network
from tests.modules import call, drawn

Image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
pytest.importorskip("scipy", reason="SciPy is not installed")


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["fdkn", pytest.param("dkn", marks=pytest.mark.slow)])
def test_official_weights(folder, name):
    """As they were used: with RGB in 0 .. 1 and depth normalised and enlarged with a = -0.5."""
    save_file = pytest.importorskip("safetensors.numpy", reason="safetensors is not installed").save_file
    module, _ = drawn(
        LEARNED[name], grid="compressed", **({"luminance": True} if name == "fdkn" else {}), deviation=0.1
    )
    config = {"kernel_size": 3, "filter_size": 15, "residual": True}
    save_file(interop.to_torch(name.upper(), module, config), "weights.safetensors")
    assert run("--method", name, "--weights", "weights.safetensors", out="out.npy") == 0
    module.eval()
    low, span = DEPTH.min(), float(np.ptp(DEPTH))
    target = jnp.asarray((DEPTH - low) / span, jnp.float32)[None, ..., None]
    enlarged = ops.resize(target, scale=4, method="bicubic", cubic_coefficient=-0.5)
    truth = call(module, enlarged, jnp.asarray(GUIDE / 255, jnp.float32)[None])
    np.testing.assert_allclose(np.load("out.npy"), np.asarray(truth)[0, ..., 0] * span + low, rtol=1e-4)


@pytest.mark.parametrize("prefix", ["net.", "_orig_mod.model."])
def test_official_weights_under_another_name(tmp_path, prefix):
    """The options that are read off the arrays are found there, too."""
    save_file = pytest.importorskip("safetensors.numpy", reason="safetensors is not installed").save_file
    config = {"kernel_size": 5, "filter_size": 15, "residual": True}
    module, _ = drawn(LEARNED["fdkn"], kernel_size=5, luminance=True, grid="compressed")
    state = interop.to_torch("FDKN", module, config)
    save_file({f"{prefix}{name}": x for name, x in state.items()}, tmp_path / "weights.safetensors")
    make_method("fdkn", tmp_path / "weights.safetensors")


def test_official_djf(folder):
    """Where the network passes the enlarged depth on, that lies (s - 1) / 2 to the left and above, as in training."""
    from tests.interop.test_djf import filters_and_biases, layers, write_version_5

    arrays = {name: np.zeros_like(x) for name, x in filters_and_biases().items()}
    write_version_5("net.mat", list(layers(arrays)))
    assert run("--method", "djfr", "--weights", "net.mat", out="out.npy") == 0
    result = np.load("out.npy")
    assert result.shape == (24, 32)
    np.testing.assert_allclose(result[::4, ::4], DEPTH, rtol=1e-5)


@pytest.mark.thorough
def test_official_dmsg(folder, capsys):
    """As its code does: depth and luma in 0 .. 1, of the whole image at once; for the scale of the weights alone."""
    from tests.interop.test_caffe import caffemodel, of_state

    module, _ = drawn(LEARNED["dmsg"], scale=4, deviation=0.1)
    Path("net.caffemodel").write_bytes(caffemodel(of_state(interop.to_torch("DMSG", module, {"scale": 4}))))
    assert run("--method", "dmsg", "--weights", "net.caffemodel", "--tile", "16", out="out.npy") == 0
    low, span = DEPTH.min(), float(np.ptp(DEPTH))
    target = jnp.asarray((DEPTH - low) / span, jnp.float32)[None, ..., None]
    truth = call(module, target, jnp.asarray(GUIDE / 255, jnp.float32)[None])
    np.testing.assert_allclose(np.load("out.npy"), np.asarray(truth)[0, ..., 0] * span + low, rtol=1e-4)
    Image.fromarray(GUIDE[:12, :16]).save("half.png")
    capsys.readouterr()
    message = "dmsg: the weights are for a scale of 4, the sizes make it 2"
    refused(capsys, message, "--method", "dmsg", "--weights", "net.caffemodel", guide="half.png")


@pytest.mark.thorough
def test_bad_weights(folder, capsys):
    save_file = pytest.importorskip("safetensors.numpy", reason="safetensors is not installed").save_file
    interop.save_module("attention.safetensors", *small_network("attention"))
    interop.save_module("djf.safetensors", *small_network("djf"))
    save_file({"x": np.ones(2, np.float32)}, "other.safetensors")
    Path("other.mat").write_bytes(b"something else")
    for method, weights, message in [
        ("dkn", "attention.safetensors", ": weights of AttentionJointNetwork, not of dkn"),
        ("djfr", "djf.safetensors", ": weights of DJF, not of djfr"),
        ("fdkn", "other.safetensors", ": not the weights of fdkn: ImageKernel.conv_weight.weight: missing, and"),
        ("attention", "other.safetensors", ": expected a file of jaxup.interop.save_module"),
        ("djf", "other.mat", ": expected a .mat file"),
        ("dmsg", "other.mat", ": expected a .caffemodel file"),
        ("dmsg", "djf.safetensors", ": weights of DJF, not of dmsg"),
        ("djf", "none.mat", ": No such file"),
        ("fdkn", "none.safetensors", ": No such file"),
    ]:
        refused(capsys, f"error: {weights}{message}", "--method", method, "--weights", weights)
    Image.fromarray(GUIDE[:18, :24]).save("three.png")
    refused(capsys, "attention: expected a scale of 2, 4, 8, ...", "--method", "attention", guide="three.png")
    Image.fromarray(GUIDE[:15, :20]).save("half.png")
    for method in LEARNED:
        refused(
            capsys,
            "the sizes make it 2.5; bicubic, guided-filter, jbu, fitted, fgi",
            "--method",
            method,
            guide="half.png",
        )

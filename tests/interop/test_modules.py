"""Modules in files of their own."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxup import interop, models, nn
from jaxup.interop.keys import flat_variables
from tests.compare import assert_close
from tests.modules import call

save_file = pytest.importorskip("safetensors.numpy", reason="safetensors is not installed").save_file

OPTIONS = {"widths": (4, 4), "kernel_size": 1, "grid": "shifted"}


def network(**options):
    return models.FDKN(**(OPTIONS | options), rngs=nnx.Rngs(3))


@pytest.mark.thorough
def test_round_trip(tmp_path):
    """Parameters and statistics, options with tuples and dtypes, modules of all packages."""
    module = network()
    module.depth_stream.norms[0].mean[...] = jnp.arange(32.0)
    resize = nn.CARAFE(4, scale=2, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    of_segmentation = {"num_classes": 3, "features": 1}
    segnet = models.segmentation.SegNet(**of_segmentation, rngs=nnx.Rngs(0))
    examples = [(module, OPTIONS), (resize, {"in_features": 4, "scale": 2, "dtype": "bfloat16"})]
    examples.append((segnet, of_segmentation))
    for given, options in examples:
        interop.save_module(tmp_path / "a.safetensors", given, options)
        back = interop.load_module(str(tmp_path / "a.safetensors"))
        assert type(back) is type(given)
        expected, actual = flat_variables(given), flat_variables(back)
        assert actual.keys() == expected.keys()
        for name in expected:
            np.testing.assert_array_equal(actual[name][...], expected[name][...], strict=True)
    back = interop.load_module(_saved(tmp_path, module, OPTIONS))
    assert (back.kernel_size, back.grid) == (1, "shifted")


def _saved(folder, module, options):
    interop.save_module(folder / "b.safetensors", module, options)
    return folder / "b.safetensors"


@pytest.mark.parametrize(
    "module, options, message",
    [
        (nnx.Linear, {}, "module: expected a class of jaxup.models or jaxup.nn"),
        (network, OPTIONS | {"widths": (8, 4)}, r"options: expected the arrays .* got others: .* in all"),
        (network, OPTIONS | {"width": 8}, "options: expected the options of FDKN, got .*'width'"),
        (network, OPTIONS | {"dtype": jnp.float32}, "options: expected what JSON can hold"),
    ],
)
def test_what_could_not_be_loaded_is_not_saved(tmp_path, module, options, message):
    made = nnx.Linear(1, 1, rngs=nnx.Rngs(0)) if module is nnx.Linear else module()
    with pytest.raises(ValueError, match=message):
        interop.save_module(tmp_path / "a.safetensors", made, options)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "metadata, message",
    [
        (None, "a file of save_module, got a safetensors file of another origin"),
        ({"jaxup": "{"}, "a class and options in the metadata, got JSONDecodeError"),
        ({"jaxup": "[1]"}, "a class and options in the metadata, got TypeError"),
        ({"jaxup": '{"class": "make_upsampler", "options": {}}'}, "a class of jaxup.models or jaxup.nn, got"),
        ({"jaxup": '{"class": ["DKN"], "options": {}}'}, "a class of jaxup.models or jaxup.nn, got"),
        ({"jaxup": '{"class": "DKN", "options": [1]}'}, "the options of DKN"),
        ({"jaxup": '{"class": "DKN", "options": {"widths": [4, 4]}}'}, "the arrays of its class and options"),
    ],
)
def test_other_files(tmp_path, metadata, message):
    path = tmp_path / "a.safetensors"
    save_file({"x": np.ones(2, np.float32)}, path, metadata=metadata)
    with pytest.raises(ValueError, match=rf"a\.safetensors: expected {message}"):
        interop.load_module(path)


def test_no_such_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        interop.load_module(tmp_path / "a.safetensors")
    (tmp_path / "a.safetensors").write_bytes(b"something else")
    with pytest.raises(ValueError, match="expected a safetensors file"):
        interop.load_module(tmp_path / "a.safetensors")


def test_a_file_of_the_first_version_is_read():
    """Later versions have to read it, and compute the same: these files stay as they are."""
    former = Path(__file__).parent / "former_modules"
    module = interop.load_module(former / "djf-0.1.0.safetensors")
    module.eval()
    rng = np.random.default_rng(0)
    target, guide = rng.random((1, 5, 6, 1), np.float32), rng.random((1, 10, 12, 3), np.float32)
    expected = np.load(former / "djf-0.1.0.npy")
    # Both are within 4e-7 of the largest entry of what float64 gives.
    assert_close(call(module, target, guide), expected, 1e-6)

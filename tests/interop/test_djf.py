import numpy as np
import pytest

from jaxup import interop
from tests import goldens
from tests.compare import assert_close
from tests.registry.examples import thorough

CONFIG = {"widths": [5, 4, 1, 3, 2, 1]}
SHAPES = {  # as MATLAB stores them: [h, w, in, out], without last axes of length 1
    "layer1_weights": (9, 9, 3, 5),
    "layer3_weights": (1, 1, 5, 4),
    "layer5_weights": (5, 5, 4),
    "layer1_weights_depth": (9, 9, 1, 5),
    "layer3_weights_depth": (1, 1, 5, 4),
    "layer5_weights_depth": (5, 5, 4),
    "layer6_weights": (9, 9, 2, 3),
    "layer8_weights": (1, 1, 3, 2),
    "layer10_weights": (5, 5, 2),
}


def filters_and_biases():
    random = np.random.default_rng(0)
    arrays = {name: random.standard_normal(shape).astype(np.float32) for name, shape in SHAPES.items()}
    for name, shape in SHAPES.items():
        outputs = shape[3] if len(shape) == 4 else 1
        arrays[name.replace("weights", "biases")] = random.standard_normal((1, outputs)).astype(np.float32)
    return arrays


def layers(arrays, *, old=False):
    """Structs by field. The old form has filters and biases as fields, the new one a cell of both."""
    for index in range(1, 11):
        if f"layer{index}_weights" not in arrays:
            yield {"type": "relu", "leak": np.zeros((1, 1))}
            continue
        layer = {"type": "conv", "pad": np.full((1, 1), 2.0)}
        for suffix in ("", "_depth"):
            pair = [arrays.get(f"layer{index}_{kind}{suffix}") for kind in ("weights", "biases")]
            if pair[0] is not None and old:
                layer |= {f"filters{suffix}": pair[0], f"biases{suffix}": pair[1]}
            elif pair[0] is not None:
                layer[f"weights{suffix}"] = pair
        yield layer


def cell(items):
    out = np.empty((1, len(items)), object)
    out[0] = items
    return out


def write_version_5(path, structs):
    io = pytest.importorskip("scipy.io", reason="SciPy is not installed")
    plain = [{k: cell(v) if isinstance(v, list) else v for k, v in struct.items()} for struct in structs]
    io.savemat(path, {"net": {"layers": cell(plain), "meta": "a test"}})


def write_version_7_3(path, structs):
    h5py = pytest.importorskip("h5py", reason="h5py is not installed")
    with h5py.File(path, "w", userblock_size=512) as file:
        references = []
        for number, struct in enumerate(structs):
            group = file.create_group(f"#refs#/{number}")
            for name, value in struct.items():
                if isinstance(value, str):
                    group[name] = np.array([[ord(c)] for c in value], np.uint16)
                    group[name].attrs["MATLAB_class"] = np.bytes_("char")
                elif isinstance(value, list):
                    for i, x in enumerate(value):
                        file[f"#refs#/{number}_{name}_{i}"] = x.transpose()
                    parts = [[file[f"#refs#/{number}_{name}_{i}"].ref] for i in range(len(value))]
                    group.create_dataset(name, data=np.array(parts, h5py.ref_dtype))
                else:
                    group[name] = value.transpose()
            references.append([group.ref])
        file.create_dataset("net/layers", data=np.array(references, h5py.ref_dtype))
    with open(path, "r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file")


@pytest.mark.parametrize("case", goldens.cases("djf/*"))
def test_golden(case):
    golden = goldens.load(case)
    goldens.check(golden)
    operator = golden.meta["operator"]
    back = interop.to_torch(operator, interop.from_torch(operator, golden.params, golden.config), golden.config)
    assert {name: x.tobytes() for name, x in back.items()} == {k: x.tobytes() for k, x in golden.params.items()}


@pytest.mark.parametrize("write", [write_version_5, write_version_7_3])
@pytest.mark.parametrize("old", [False, True], ids=["weights", "filters and biases"])
def test_matconvnet_file(tmp_path, write, old):
    arrays, path = filters_and_biases(), tmp_path / "net.mat"
    write(path, list(layers(arrays, old=old)))
    state = interop.load_matconvnet(path)
    assert set(state) == set(arrays)
    assert state["layer5_weights"].shape == (1, 4, 5, 5) and state["layer5_biases"].shape == (1,)
    assert state["layer1_weights_depth"][4, 0, 2, 7] == arrays["layer1_weights_depth"][2, 7, 0, 4]
    module = interop.from_torch("DJFR", state, CONFIG)
    assert module.residual and module.cropped
    kernel = arrays["layer6_weights"]
    np.testing.assert_array_equal(module.final_cnn.convs[0].kernel[...], kernel)  # MATLAB's layout is also ours


@pytest.mark.slow
@pytest.mark.parametrize(
    "borders", [{}, thorough({"pad": (4, 0, 2, 4, 0, 2), "pad_depth": (4, 0, 2)})], ids=["cropped", "same"]
)
def test_upsampling_as_in_training(borders):
    """Where the network passes the enlarged depth on, that lies (s - 1) / 2 to the left and above, as in training."""
    arrays = {name: np.zeros_like(x) for name, x in filters_and_biases().items()}
    state = {  # MATLAB's layout to the official one
        name: x.reshape(-1) if "biases" in name else x.reshape(x.shape + (1,) * (4 - x.ndim)).transpose(3, 2, 0, 1)
        for name, x in arrays.items()
    }
    module = interop.from_torch("DJFR", state, CONFIG | borders)
    random = np.random.default_rng(0)
    for scale in (1, 4):
        depth, guide = random.random((2, 5, 6, 1), np.float32), random.random((2, 5 * scale, 6 * scale, 3), np.float32)
        out = interop.djf_upsample(module, depth, guide)
        assert out.shape == (2, 5 * scale, 6 * scale, 1)
        assert_close(out[:, ::scale, ::scale], depth, 1e-5)
    with pytest.raises(ValueError, match=r"guide: expected shape \(2, 5, 6, \*\), got shape \(2, 7, 9, 3\)"):
        interop.djf_upsample(module, depth, np.ones((2, 7, 9, 3), np.float32))


def test_other_files(tmp_path):
    path = tmp_path / "net.mat"
    with pytest.raises(FileNotFoundError):
        interop.load_matconvnet(path)
    path.write_bytes(b"something else " * 100)
    with pytest.raises(ValueError, match=r"net\.mat: expected a \.mat file with net\.layers"):
        interop.load_matconvnet(path)
    pytest.importorskip("scipy.io").savemat(path, {"other": np.ones(3)})
    with pytest.raises(ValueError, match=r"net\.mat: expected a \.mat file with net\.layers"):
        interop.load_matconvnet(path)
    write_version_5(path, [{"type": "relu"}])
    with pytest.raises(ValueError, match=r"net\.mat: expected net\.layers with filters and biases, got none"):
        interop.load_matconvnet(path)


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(widths=[5, 4, 2, 3, 2, 1]), "widths: expected six widths, the third and the last of them 1"),
        (dict(pad=[0] * 6), "pad, pad_depth: expected one of"),
    ],
)
def test_bad_config(change, message):
    with pytest.raises(ValueError, match=message):
        interop.from_torch("DJF", {}, CONFIG | change)

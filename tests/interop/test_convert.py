"""Key tables and the way through them, in both directions; the operators' own tests compare with golden vectors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxup import interop, nn
from jaxup.interop import backbones, encoders, mit, swin, vit
from jaxup.interop.keys import (
    LAYOUTS,
    Constant,
    Key,
    Unused,
    batch_norm,
    conv,
    flat_variables,
    linear,
    permuted,
    prefixed,
)
from jaxup.interop.keys import read as read_table
from jaxup.interop.keys import write as write_table

SHAPES = {  # PyTorch's shape and ours
    "same": ((2, 3), (2, 3)),
    "conv": ((5, 4, 3, 2), (3, 2, 4, 5)),
    "linear": ((5, 4), (4, 5)),
    "pointwise": ((5, 4, 1, 1), (4, 5)),
    "conv_transpose": ((5, 4, 3, 2), (3, 2, 5, 4)),
    "conv_in_out": ((5, 4, 3, 2), (3, 2, 5, 4)),
    "depthwise_transpose": ((5, 1, 3, 2), (3, 2, 1, 5)),
    "filters": ((5, 1, 3, 2), (3, 2, 5)),
    "row": ((5,), (1, 5)),
    "channels": ((1, 5, 1, 1), (5,)),
}


class Net(nnx.Module):
    def __init__(self):
        rngs = nnx.Rngs(0)
        self.convs = nnx.List([nnx.Conv(3, 4, (3, 1), rngs=rngs), nnx.Conv(4, 4, (1, 1), use_bias=False, rngs=rngs)])
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.query, self.key = nnx.Linear(4, 2, rngs=rngs), nnx.Linear(4, 5, rngs=rngs)


TABLE = {
    **conv("0", "convs.0"),
    **conv("1", "convs.1", bias=False),
    **batch_norm("2", "norm"),
    "qkv.weight": (Key("query.kernel", "linear"), Key("key.kernel", "linear"), Unused((3, 4))),
    "qkv.bias": (Key("query.bias"), Key("key.bias"), Unused((3,))),
    "out.weight": Unused((4, 3)),
    "ones": Constant(np.ones((2, 2), np.float32)),
}
TENSORS = {
    "0.weight": (4, 3, 3, 1),
    "0.bias": (4,),
    "1.weight": (4, 4, 1, 1),
    **{f"2.{name}": (4,) for name in ("weight", "bias", "running_mean", "running_var")},
    "qkv.weight": (10, 4),
    "qkv.bias": (10,),
    "out.weight": (4, 3),
}


def tensors():
    random = np.random.default_rng(0)
    state = {name: random.standard_normal(shape).astype(np.float32) for name, shape in TENSORS.items()}
    return state | {"ones": np.ones((2, 2), np.float32), "2.num_batches_tracked": np.array(7)}


@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts_are_inverse(name):
    theirs, ours = SHAPES[name]
    x = np.arange(np.prod(theirs), dtype=np.float32).reshape(theirs)
    there = LAYOUTS[name].to_ours(x)
    assert there.shape == ours
    np.testing.assert_array_equal(LAYOUTS[name].to_torch(there), x)
    np.testing.assert_array_equal(LAYOUTS[name].to_ours(jnp.asarray(x)), there)


def test_layouts_mean_what_they_say():
    x = np.arange(2 * 3 * 3 * 3, dtype=np.float32).reshape(2, 3, 3, 3)
    assert LAYOUTS["conv"].to_ours(x)[0, 2, 1, 1] == x[1, 1, 0, 2]
    assert LAYOUTS["conv_transpose"].to_ours(x)[0, 2, 1, 2] == x[1, 2, 2, 0]
    assert LAYOUTS["depthwise_transpose"].to_ours(x[:, :1])[0, 2, 0, 1] == x[1, 0, 2, 0]
    assert LAYOUTS["filters"].to_ours(x[:, :1])[0, 2, 1] == x[1, 0, 0, 2]


def test_permuted():
    """Ours at i is theirs at order[i], along our axis."""
    x = np.arange(2 * 3 * 3 * 3, dtype=np.float32).reshape(2, 3, 3, 3)
    layout = permuted("conv", 2, (1, 2, 0))
    assert layout.to_ours(x)[0, 2, 0, 1] == x[1, 1, 0, 2]
    np.testing.assert_array_equal(layout.to_torch(layout.to_ours(x)), x)
    np.testing.assert_array_equal(layout.to_ours(jnp.asarray(x)), layout.to_ours(x))
    assert prefixed({"a": Key("b", layout)}, "x.", "y.") == {"x.a": Key("y.b", layout)}


@pytest.mark.thorough
def test_values_arrive_where_they_belong():
    net, given = read_table(TABLE, tensors(), Net()), tensors()
    np.testing.assert_array_equal(net.convs[0].kernel[...], given["0.weight"].transpose(2, 3, 1, 0))
    np.testing.assert_array_equal(net.norm.mean[...], given["2.running_mean"])
    np.testing.assert_array_equal(net.norm.scale[...], given["2.weight"])
    np.testing.assert_array_equal(net.query.kernel[...], given["qkv.weight"][:2].T)
    np.testing.assert_array_equal(net.key.bias[...], given["qkv.bias"][2:7])


def test_round_trip():
    given = tensors()
    back = write_table(TABLE, flat_variables(read_table(TABLE, given, Net())), constants=True)
    given.pop("2.num_batches_tracked")
    given["qkv.weight"][7:], given["qkv.bias"][7:], given["out.weight"][:] = 0, 0, 0  # without effect
    assert set(back) == set(given)
    for name, x in given.items():
        np.testing.assert_array_equal(back[name], x, err_msg=name)
        assert back[name].flags.c_contiguous and back[name].dtype == np.float32


@pytest.mark.torch
def test_torch_tensors():
    torch = pytest.importorskip("torch")
    given = {name: torch.tensor(x, requires_grad=x.dtype == np.float32) for name, x in tensors().items()}
    expected = flat_variables(read_table(TABLE, tensors(), Net()))
    for path, variable in flat_variables(read_table(TABLE, given, Net())).items():
        np.testing.assert_array_equal(variable[...], expected[path][...])
    half = {name: x.detach().bfloat16() for name, x in given.items()}
    kernel = read_table(TABLE, half, Net()).convs[0].kernel[...]
    assert kernel.dtype == jnp.float32
    np.testing.assert_allclose(kernel, expected["convs.0.kernel"][...], rtol=1e-2)


def test_all_mismatches_in_one_error():
    given = tensors()
    del given["0.bias"], given["2.running_var"]
    given |= {
        "extra": np.ones(3),
        "1.weight": np.ones((4, 4, 3, 3)),
        "qkv.weight": np.ones((9, 4)),
        "ones": np.zeros((2, 2)),
    }
    with pytest.raises(ValueError) as error:
        read_table(TABLE, given, Net())
    for line in [
        "0.bias: missing",
        "2.running_var: missing",
        "extra: unexpected",
        "1.weight: expected shape (4, 4, 1, 1), got shape (4, 4, 3, 3)",
        "qkv.weight: expected shape (10, 4), got shape (9, 4)",
        "ones: expected the constant values of this operator, got others",
    ]:
        assert f"\n  {line}" in str(error.value)
    assert "num_batches_tracked" not in str(error.value)


def test_defects_of_a_table():
    """A parameter that no key fills, one that does not exist, one that is filled twice."""
    table = {k: v for k, v in TABLE.items() if k != "0.bias"} | {"a": Key("nothing"), "b": Key("key.bias")}
    with pytest.raises(ValueError) as error:
        read_table(table, tensors(), Net())
    for line in [
        "convs.0.bias: our parameter, which no key fills",
        "nothing: no parameter of our module",
        "key.bias: filled by two keys",
    ]:
        assert f"\n  {line}" in str(error.value)


def test_a_failed_load_changes_nothing():
    net, before = Net(), flat_variables(Net())
    with pytest.raises(ValueError):
        read_table(TABLE, tensors() | {"extra": np.ones(3)}, net)
    for path, variable in flat_variables(net).items():
        np.testing.assert_array_equal(variable[...], before[path][...])


def test_prefixed():
    table = prefixed(linear("0", "a") | {"b": (Key("c"), Unused((1,)))}, "block.", "ours.")
    assert table == {
        "block.0.weight": Key("ours.a.kernel", "linear"),
        "block.0.bias": Key("ours.a.bias"),
        "block.b": (Key("ours.c"), Unused((1,))),
    }


def test_unknown_layout():
    with pytest.raises(ValueError, match=r"layout: expected one of 'same', .*, got 'cnov'"):
        Key("a.kernel", "cnov")


CONFIG = {"in_channels": 8, "groups": 2}


def official(config=CONFIG):
    module = nn.DySample(8, scale=2, groups=config["groups"], rngs=nnx.Rngs(0))
    return interop.to_torch("DySample", module, config)


@pytest.mark.thorough
def test_state_of_gradients():
    """Gradients have the official names, too; `from_torch` itself is differentiable."""
    x = np.random.default_rng(1).standard_normal((1, 4, 5, 8)).astype(np.float32)
    module = interop.from_torch("DySample", official(), CONFIG)
    gradients = nnx.grad(lambda m: jnp.sum(jnp.sin(3 * m(x))))(module)
    named = interop.to_torch("DySample", gradients, CONFIG)

    def loss(state_dict):
        return jnp.sum(jnp.sin(3 * interop.from_torch("DySample", state_dict, CONFIG)(x)))

    direct = jax.jit(jax.grad(loss))({name: jnp.asarray(x) for name, x in official().items()})
    assert set(named) == {"offset.weight", "offset.bias"}
    for name, gradient in named.items():
        assert np.any(gradient)
        np.testing.assert_allclose(gradient, direct[name], atol=1e-5 * np.abs(gradient).max())


def test_to_torch_of_another_module():
    module = interop.from_torch("DySample", official(), CONFIG)
    with pytest.raises(ValueError, match="module: expected arrays"):
        interop.to_torch("DySample", module, CONFIG | {"groups": 4})


def test_unknown_operator():
    with pytest.raises(ValueError, match=r"operator: expected one of ASPP, .*, got 'AnyDown'"):
        interop.from_torch("AnyDown", {}, {})


# Networks of which the official constructors have a default for everything.
DEFAULTED = {
    *(backbones.OPERATORS.keys() - {"ResNet", "ResNetV1c"}),
    *(vit.OPERATORS.keys() - {"segm.VisionTransformer"}),
    *encoders.OPERATORS,
    *mit.OPERATORS,
    *swin.OPERATORS,
    "JAFAR",
    "LoftUp",
    "MS_Deeplab",
    "NAF",
    "SegformerForSemanticSegmentation",
    "UPLiFT",
    "fastdepth.MobileNetSkipAdd",
    "fastdepth.MobileNetSkipConcat",
    "hlmobilenetv2",
    "hlvgg16",
    "hu.model",
    "resnetmat",
    "shallow_feat_extractor",
}


@pytest.mark.parametrize("operator", [name for name in interop.OPERATORS if name not in DEFAULTED])
def test_missing_config(operator):
    """A config without what the official constructor requires is a ValueError, not a KeyError."""
    with pytest.raises(ValueError, match="config: expected an entry"):
        interop.from_torch(operator, {}, {})

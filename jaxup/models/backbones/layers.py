"""What the backbones share: convolution with norm and activation, dilation for an output stride, attention, MLP."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxup._checks import Pair, accum_dtype, check_int, fail
from jaxup.nn import initializers
from jaxup.nn.functions import by_name
from jaxup.nn.norms import BatchNorm, layer_norm, normalise
from jaxup.ops.convolve import convolve_layer
from jaxup.ops.convolve_resized import convolve_resized
from jaxup.ops.depthwise import depthwise_conv
from jaxup.ops.pointwise import pointwise_dot
from jaxup.ops.regions import convolve_many_groups
from jaxup.ops.softmax import softmax

Activation = Callable[[jax.Array], jax.Array] | None

_FAN_OUT = initializers.variance_scaling(2.0, "fan_out", "normal")
_FAN_IN = initializers.variance_scaling(2.0, "fan_in", "normal")
NARROW = initializers.truncated_normal(0.02)


def conv(
    inputs: int,
    outputs: int,
    size: int,
    *,
    stride: int = 1,
    dilation: int = 1,
    depthwise: bool = False,
    groups: int = 1,
    padding: str = "symmetric",
    use_bias: bool = True,
    dtype: Any,
    rngs: nnx.Rngs,
) -> nnx.Conv:
    """A convolution, He-normal by fan-out; the padding is k // 2 dilated, or TensorFlow's "same", or none."""
    margin = dilation * (size // 2)
    other = depthwise_conv if depthwise else convolve_many_groups if groups > 1 else convolve_layer
    return nnx.Conv(
        inputs,
        outputs,
        (size, size),
        strides=stride,
        padding=((margin, margin), (margin, margin)) if padding == "symmetric" else padding.upper(),
        kernel_dilation=dilation,
        feature_group_count=inputs if depthwise else groups,
        use_bias=use_bias,
        # The fan-out of a depthwise filter is its size, which JAX calls its fan-in.
        kernel_init=_FAN_IN if depthwise else _FAN_OUT,
        conv_general_dilated=other,
        dtype=dtype,
        rngs=rngs,
    )


class ConvNorm(nnx.Module):
    """Convolution, batch normalisation, activation; the options of `conv` and of `BatchNorm`."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        size: int,
        *,
        activation: Activation = nnx.relu,
        use_bias: bool = False,
        momentum: float = 0.9,
        epsilon: float = 1e-5,
        dtype: Any,
        rngs: nnx.Rngs,
        **options: Any,
    ):
        self.conv = conv(inputs, outputs, size, use_bias=use_bias, dtype=dtype, rngs=rngs, **options)
        self.norm = BatchNorm(outputs, momentum=momentum, epsilon=epsilon, rngs=rngs)
        self.activation, self.dtype = None if activation is None else by_name(activation), dtype

    def __call__(self, x: jax.Array) -> jax.Array:
        """Features of x."""
        return self.finish(self.conv(x))

    def of_resized(self, x: jax.Array, size: Sequence[int], **how: Any) -> jax.Array:
        """Features of x after `resize` to another size, for layers without stride, dilation and bias."""
        x, kernel = (y.astype(self.dtype) for y in (x, self.conv.kernel[...]))
        return self.finish(convolve_resized(x, kernel, (size[0], size[1]), **how))

    def finish(self, y: jax.Array) -> jax.Array:
        """What follows the convolution."""
        y = normalise(self.norm, y, self.dtype)
        return y if self.activation is None else self.activation(y)


def through(layers: Iterable[Callable[[jax.Array], jax.Array]], x: jax.Array) -> jax.Array:
    """One layer after the other."""
    for layer in layers:
        x = layer(x)
    return x


def dilated(strides: Sequence[int], output_stride: int, start: int = 1) -> list[tuple[int, int, int]]:
    """Stride and dilation of the first block of each stage, and dilation of its other blocks.

    Once `start` times the strides so far is the output stride, further strides become dilation. The first block of such
    a stage, which had the stride, still has the dilation of the stage before.
    """
    stages, running, rate = [], start, 1
    for stride in strides:
        first = rate
        if running * stride > output_stride:
            rate *= stride
            stride = 1
        running *= stride
        stages.append((stride, first, rate))
    return stages


def max_pool(x: jax.Array, size: int, *, padding: int | Sequence[Pair] = 0) -> jax.Array:
    """The largest value of each window, at every second pixel; `padding` of all sides, or of each."""
    pool: Any = nnx.max_pool  # which has no types
    around = ((padding, padding),) * 2 if isinstance(padding, int) else tuple(padding)
    largest: jax.Array = pool(x, (size, size), strides=(2, 2), padding=around)
    return largest


def classifier(features: int, classes: int, *, dtype: Any, rngs: nnx.Rngs) -> nnx.Linear:
    """The last layer of a classification network."""
    init = initializers.normal(0.01)
    return nnx.Linear(features, check_int("num_classes", classes), kernel_init=init, dtype=dtype, rngs=rngs)


def mean_pixel(x: jax.Array) -> jax.Array:
    """Mean over the image, [B, C]."""
    return jnp.mean(x.astype(accum_dtype(x)), axis=(1, 2)).astype(x.dtype)


def require(head: nnx.Module | None) -> Any:
    """The classifier, or an error where the network was built without one."""
    return fail("classify", "a network with num_classes", "one without") if head is None else head


def linear(inputs: int, outputs: int, *, use_bias: bool = True, dtype: Any, rngs: nnx.Rngs) -> nnx.Linear:
    """A linear layer as transformers start: truncated normal of deviation 0.02."""
    options: Any = dict(kernel_init=NARROW, dot_general=pointwise_dot, dtype=dtype, rngs=rngs)
    return nnx.Linear(inputs, outputs, use_bias=use_bias, **options)


def patch_embedding(
    in_features: int, features: int, size: int, *, use_bias: bool = True, dtype: Any, rngs: nnx.Rngs
) -> nnx.Conv:
    """Patches of `size` squared pixels as tokens."""
    start: dict[str, Any] = dict(kernel_init=initializers.lecun_normal(), use_bias=use_bias)
    return nnx.Conv(in_features, features, (size, size), size, padding="VALID", **start, dtype=dtype, rngs=rngs)


def dropout(x: jax.Array, rate: float, rngs: nnx.Rngs | None, *, shape: tuple[int, ...] | None = None) -> jax.Array:
    """Zero entries with a probability, and enlarge the others; none without `rngs`.

    Entries whose places in `shape`, by default that of x, are the same share their fate.
    """
    if rngs is None or rate == 0:
        return x
    kept = jax.random.bernoulli(rngs.dropout(), 1 - rate, x.shape if shape is None else shape)
    return jnp.where(kept, x / (1 - rate), jnp.zeros((), x.dtype))


def attend(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    *,
    heads: int,
    bias: Any = None,
    drop: float = 0.0,
    rngs: nnx.Rngs | None = None,
) -> jax.Array:
    """softmax(q k^T / sqrt(width of a head) + bias) v, with scores and softmax in float32 or more.

    Args:
        query: [..., T, C]; heads are consecutive blocks of channels.
        key: [..., S, C].
        value: [..., S, C].
        heads: how many.
        bias: added to the scores [..., heads, T, S].
        drop: the probability with which weights are dropped.
        rngs: source of that, or None.

    Returns:
        [..., T, C].
    """
    q, k, v = (x.reshape(*x.shape[:-1], heads, x.shape[-1] // heads) for x in (query, key, value))
    dtype = accum_dtype(query)
    scores = jnp.einsum("...tnc,...snc->...nts", q, k, preferred_element_type=dtype) / (q.shape[-1] ** 0.5)
    weights = softmax(scores if bias is None else scores + bias.astype(dtype))
    weights = dropout(weights, drop, rngs).astype(value.dtype)
    out = jnp.einsum("...nts,...snc->...tnc", weights, v)
    return out.reshape(query.shape)


class Attention(nnx.Module):
    """Multi-head attention of tokens to themselves, or to those of a source."""

    def __init__(self, features: int, heads: int, *, dtype: Any, rngs: nnx.Rngs):
        self.query, self.key, self.value, self.project = (
            linear(features, features, dtype=dtype, rngs=rngs) for _ in range(4)
        )
        self.heads = heads

    def __call__(
        self, x: jax.Array, source: jax.Array | None = None, bias: jax.Array | None = None, **dropped: Any
    ) -> jax.Array:
        """[..., T, C] (and a source [..., S, C], a bias [..., heads, T, S]) -> [..., T, C]; `dropped` as `attend`."""
        source = x if source is None else source
        y = attend(self.query(x), self.key(source), self.value(source), heads=self.heads, bias=bias, **dropped)
        return self.project(y)


class Residual(nnx.Module):
    """x + layer(norm(x)); in training, drops the whole branch of an image with probability `drop_path`.

    A call may also drop entries, with probability `drop`: of what the layer gives, and within it.
    """

    def __init__(
        self, features: int, layer: nnx.Module, *, epsilon: float, drop_path: float, dtype: Any, rngs: nnx.Rngs
    ):
        self.norm, self.layer = layer_norm(features, rngs, epsilon=epsilon), layer
        self.drop_path, self.dtype = drop_path, dtype

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None, drop: float = 0.0) -> jax.Array:
        """Without `rngs`, nothing is dropped."""
        within: dict[str, Any] = dict(drop=drop, rngs=rngs) if drop else {}
        y = dropout(self.layer(normalise(self.norm, x, self.dtype), **within), drop, rngs)
        return x + dropout(y, self.drop_path, rngs, shape=(x.shape[0],) + (1,) * (x.ndim - 1))


def rising(rate: float, count: int) -> list[float]:
    """The rates of `count` blocks, from 0 to `rate`."""
    return [rate * i / max(1, count - 1) for i in range(count)]


class MLP(nnx.Module):
    """Linear, GELU (exact), linear."""

    def __init__(self, features: int, hidden: int, *, dtype: Any, rngs: nnx.Rngs):
        self.expand = linear(features, hidden, dtype=dtype, rngs=rngs)
        self.reduce = linear(hidden, features, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array, *, drop: float = 0.0, rngs: nnx.Rngs | None = None) -> jax.Array:
        """[..., C] -> [..., C]; `drop` is for the entries in between."""
        return self.reduce(dropout(nnx.gelu(self.expand(x), approximate=False), drop, rngs))

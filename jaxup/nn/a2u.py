"""Affinity-aware upsampling and downsampling (Dai et al., A2U, CVPR 2021)."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from jaxup._checks import (
    accum_dtype,
    check_choice,
    check_divides,
    check_features,
    check_int,
    check_odd,
    check_shape,
    fail,
)
from jaxup.nn import initializers
from jaxup.nn.norms import group_norm
from jaxup.ops.downsample import downsample_reassemble, strided_filter
from jaxup.ops.reassemble import reassemble
from jaxup.ops.resize import pixel_shuffle, resize
from jaxup.ops.softmax import softmax

# The normalisations of the upsampling kernels, one after the other.
NORMALIZATIONS = ("sigmoid+softmax", "softmax")

# As the official code does: Xavier's, with the gain of the leaky ReLU behind the filters.
_SLOPE = 0.01
_init = initializers.variance_scaling(2 / (1 + _SLOPE**2), "fan_avg", "normal")

# Which of the two filters of a rank-1 term are predicted from the image: (U, V).
FILTERS = {"dynamic": (True, True), "hybrid": (False, True), "static": (False, False)}


class KernelPair(NamedTuple):
    """The kernels that one map gives: for making maps smaller, and for making them larger again."""

    down: jax.Array
    up: jax.Array


class _Factor(nnx.Module):
    """One factor of a rank-1 affinity: leaky_relu(norm(F * x)), with F learned or predicted from the pooled image."""

    def __init__(
        self, features: int, *, size: int, shared: bool, dynamic: bool, norm_groups: int, dtype: Any, rngs: nnx.Rngs
    ):
        filters = 1 if shared else features
        self.filters = (
            nnx.Conv(features, filters, (1, 1), dtype=dtype, kernel_init=_init, rngs=rngs)
            if dynamic
            else nnx.Param(initializers.normal(1 / size)(rngs.params(), (size, size, filters)))
        )
        self.norm = group_norm(features, norm_groups, rngs)

    def __call__(self, x: jax.Array, pooled: jax.Array) -> jax.Array:
        filters = self.filters(pooled) if isinstance(self.filters, nnx.Conv) else self.filters[...][None]
        return nnx.leaky_relu(self.norm(strided_filter(x, filters, (2, 2))), _SLOPE)


class _Affinity(nnx.Module):
    """The affinity f of every 2 x 2 cell, a sum of rank-1 terms: [B, 2h, 2w, C] -> [B, h, w, 1]."""

    def __init__(
        self,
        features: int,
        *,
        encoder_kernel_size: int,
        shared: bool,
        rank: int,
        filters: str,
        norm_groups: int,
        dtype: Any,
        rngs: nnx.Rngs,
    ):
        self.features, self.size = features, check_int("encoder_kernel_size", encoder_kernel_size)
        check_divides("norm_groups", check_int("norm_groups", norm_groups), "the features", features)
        check_choice("filters", filters, FILTERS)
        self.terms = nnx.List(
            nnx.List(
                _Factor(
                    features,
                    size=encoder_kernel_size,
                    shared=shared,
                    dynamic=dynamic,
                    norm_groups=norm_groups,
                    dtype=dtype,
                    rngs=rngs,
                )
                for dynamic in FILTERS[filters]
            )
            for _ in range(check_int("rank", rank))
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        pooled = resize(x, size=(self.size, self.size), method="area")
        terms = [jnp.sum(u(x, pooled) * v(x, pooled), axis=-1, keepdims=True) for u, v in self.terms]
        affinity: jax.Array = sum(terms[1:], start=terms[0]) * self.features**-0.5
        return affinity


def _head(features: int, kernel_size: int, groups: int, dtype: Any, rngs: nnx.Rngs) -> nnx.Linear:
    """The layer that predicts, from the mean of the image, how each kernel entry follows the affinity."""
    return nnx.Linear(features, 4 * kernel_size**2 * groups, dtype=dtype, kernel_init=_init, rngs=rngs)


def _logits(head: nnx.Linear, affinity: jax.Array, x: jax.Array) -> jax.Array:
    profile = head(x.mean((1, 2), dtype=accum_dtype(x)))
    return affinity * profile[:, None, None].astype(affinity.dtype)


def _grouped(logits: jax.Array, groups: int) -> jax.Array:
    return logits.reshape(*logits.shape[:3], groups, logits.shape[3] // groups)


def _softmax(logits: jax.Array, groups: int, interleaved: bool) -> jax.Array:
    """Of each kernel [..., G, n]; or, of the entries as they are stored, of every G-th."""
    if not interleaved:
        return softmax(_grouped(logits, groups))
    mixed = softmax(logits.reshape(*logits.shape[:3], logits.shape[3] // groups, groups), -2)
    return _grouped(mixed.reshape(logits.shape), groups)


def _up_kernels(logits: jax.Array, groups: int, normalization: str, interleaved: bool = False) -> jax.Array:
    weights = pixel_shuffle(logits, scale=2)
    if normalization == "sigmoid+softmax":
        weights = nnx.sigmoid(weights)
    return _grouped(weights, groups) if weights.shape[-1] == groups else _softmax(weights, groups, interleaved)


def _check_up_normalization(value: str, kernel_size: int) -> str:
    check_choice("up_normalization", value, NORMALIZATIONS)
    if value == "softmax" and kernel_size == 1:
        fail("up_normalization", "'sigmoid+softmax' for kernels of one entry, of which softmax makes 1", repr(value))
    return value


def _check_even(name: str, x: jax.Array, features: int) -> None:
    check_features(name, x, features)
    check_divides("scale", 2, f"the height of {name}", x.shape[1])
    check_divides("scale", 2, f"the width of {name}", x.shape[2])


class A2UKernels(nnx.Module):
    r"""Kernels for down- and upsampling by 2 from second-order features: a low-rank bilinear model of each window.

    Every term r of rank d has two k x k filters U_r and V_r, applied with stride 2 to all channels by themselves:

        u_r = leaky_relu(group_norm(U_r * x)),  v_r likewise,    f = \sum_r \sum_c u_rc v_rc / sqrt(C)
        down = softmax(f p_down),  p_down = linear(mean(x)),     over the (2K)^2 entries of a window
        up = softmax(sigmoid(pixel_shuffle(f p_up))),            over the K^2 entries; for K = 1 the sigmoid alone

    With K > 1 the entries of `up` differ by a factor of at most e, so that none exceeds e / (e + K^2 - 1), or 0.25 for
    K = 3: whatever the image, upsampling stays near the mean of the window. K = 1 has no such bound, and neither have
    kernels by a softmax alone.

    Dynamic filters are predicted from the image: a 1x1 convolution of x averaged to k x k cells.
    Parameters: per term 2 (C + 1) F + 4C, where F = 1 (shared) or C filters, k^2 F in the place of (C + 1) F where
    a filter is learned; (C + 1) 4 K^2 G for each kind of kernel. Multiply-adds per pixel of x: k^2 C d / 2.

    Args:
        in_features: C, channels of x.
        kernel_size: K of upsampling, odd; 2K is that of downsampling.
        groups: G, the kernels of each pixel.
        encoder_kernel_size: k.
        shared: one filter for all channels, instead of one for each.
        rank: d, the number of terms.
        filters: "dynamic"; "static": learned, the same for all images; "hybrid": U static and V dynamic.
        norm_groups: groups of the normalisation, a divisor of C.
        up_normalization: of the upsampling kernels: "sigmoid+softmax", or, which is not in the paper, "softmax" alone.
        interleaved: with several groups, normalise every G-th entry of all kernels together, as the official code does.
        dtype: the type in which the 1x1 convolutions compute; parameters are float32, the rest is never below float32.
        rngs: source of the initial parameters.

    Returns:
        `module(x)`: map [B, 2h, 2w, C] -> a named tuple: `down` [B, h, w, G, (2K)^2] for `ops.downsample_reassemble`,
        `up` [B, 2h, 2w, G, K^2] for `ops.reassemble`, both in the dtype of x.

    Raises:
        ValueError: a wrong option, or an x that is not a floating-point array [B, 2h, 2w, C].

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> kernels = nnx.jit(A2UKernels(32, rngs=nnx.Rngs(0)))(jnp.ones((1, 4, 6, 32)))
        >>> kernels.down.shape, kernels.up.shape
        ((1, 2, 3, 1, 36), (1, 4, 6, 1, 9))

    Reference:
        Dai, Lu, Shen, Learning Affinity-Aware Upsampling for Deep Image Matting, CVPR 2021; `InterChannelUpDown` of
        dongdong93/a2u_matting (MIT), which has rank 1 and dynamic filters only. That every
        term has filters and norms of its own, and which factor of the hybrid form is static, are our choice. With
        several groups, the official code normalises the entries in another order than it reads them in; here each
        kernel is normalised by itself, unless `interleaved`.
    """

    def __init__(
        self,
        in_features: int,
        *,
        kernel_size: int = 3,
        groups: int = 1,
        encoder_kernel_size: int = 6,
        shared: bool = True,
        rank: int = 1,
        filters: str = "dynamic",
        norm_groups: int = 32,
        up_normalization: str = "sigmoid+softmax",
        interleaved: bool = False,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.in_features, self.groups = check_int("in_features", in_features), check_int("groups", groups)
        self.kernel_size = check_odd("kernel_size", kernel_size)
        self.up_normalization = _check_up_normalization(up_normalization, kernel_size)
        self.interleaved = interleaved
        self.affinity = _Affinity(
            in_features,
            encoder_kernel_size=encoder_kernel_size,
            shared=shared,
            rank=rank,
            filters=filters,
            norm_groups=norm_groups,
            dtype=dtype,
            rngs=rngs,
        )
        self.down = _head(in_features, kernel_size, groups, dtype, rngs)
        self.up = _head(in_features, kernel_size, groups, dtype, rngs)

    def __call__(self, x: jax.Array) -> KernelPair:
        """The kernels of x."""
        _check_even("x", x, self.in_features)
        affinity = self.affinity(x)
        down = _softmax(_logits(self.down, affinity, x), self.groups, self.interleaved)
        up = _up_kernels(_logits(self.up, affinity, x), self.groups, self.up_normalization, self.interleaved)
        return KernelPair(down.astype(x.dtype), up.astype(x.dtype))


class _OneKind(nnx.Module):
    """One of the two kinds of kernels of `A2UKernels`, and the map that they average."""

    def __init__(
        self,
        in_features: int,
        seen_features: int,
        *,
        kernel_size: int,
        groups: int,
        encoder_kernel_size: int,
        shared: bool,
        rank: int,
        filters: str,
        norm_groups: int,
        dtype: Any,
        rngs: nnx.Rngs,
    ):
        self.in_features = check_int("in_features", in_features)
        self.kernel_size, self.groups = check_odd("kernel_size", kernel_size), check_int("groups", groups)
        check_divides("groups", groups, "in_features", in_features)
        self.affinity = _Affinity(
            seen_features,
            encoder_kernel_size=encoder_kernel_size,
            shared=shared,
            rank=rank,
            filters=filters,
            norm_groups=norm_groups,
            dtype=dtype,
            rngs=rngs,
        )
        self.head = _head(seen_features, kernel_size, groups, dtype, rngs)

    def _logits(self, x: jax.Array) -> jax.Array:
        return _logits(self.head, self.affinity(x), x)


class A2UUpsample(_OneKind):
    """Upsampling by 2 with the kernels of a guide, for instance of the encoder map before its downsampling.

        out = reassemble(x, up),    up = A2UKernels(guide).up

    Parameters: those of `A2UKernels` for one kind of kernel. Multiply-adds per output pixel: k^2 Cg d / 2 + K^2 C.

    Args:
        in_features: C, channels of x.
        guide_features: Cg, channels of the guide.
        kernel_size: K, odd, on the LR grid.
        groups: G, a divisor of C: consecutive channels that share a kernel.
        encoder_kernel_size: k, see `A2UKernels`.
        shared: one filter for all channels, instead of one for each.
        rank: d, the number of terms.
        filters: "dynamic", "static" or "hybrid".
        norm_groups: groups of the normalisation, a divisor of Cg.
        up_normalization: of the upsampling kernels: "sigmoid+softmax", or, which is not in the paper, "softmax" alone.
        dtype: see `A2UKernels`.
        rngs: source of the initial parameters.

    Returns:
        `module(x, guide)`: LR map [B, h, w, C], guide [B, 2h, 2w, Cg] -> HR map [B, 2h, 2w, C] in the dtype of x.

    Raises:
        ValueError: a wrong option, or maps whose shapes do not fit.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> up = A2UUpsample(4, 32, rank=2, rngs=nnx.Rngs(0))
        >>> nnx.jit(up)(jnp.ones((1, 5, 6, 4)), jnp.ones((1, 10, 12, 32))).shape
        (1, 10, 12, 4)

    Reference:
        Dai, Lu, Shen, Learning Affinity-Aware Upsampling for Deep Image Matting, CVPR 2021. See `A2UKernels`.
    """

    def __init__(
        self,
        in_features: int,
        guide_features: int,
        *,
        kernel_size: int = 3,
        groups: int = 1,
        encoder_kernel_size: int = 6,
        shared: bool = True,
        rank: int = 1,
        filters: str = "dynamic",
        norm_groups: int = 32,
        up_normalization: str = "sigmoid+softmax",
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.guide_features = check_int("guide_features", guide_features)
        shape: dict[str, Any] = dict(kernel_size=kernel_size, groups=groups, encoder_kernel_size=encoder_kernel_size)
        options: dict[str, Any] = dict(shared=shared, rank=rank, filters=filters, norm_groups=norm_groups)
        super().__init__(in_features, guide_features, **shape, **options, dtype=dtype, rngs=rngs)
        self.up_normalization = _check_up_normalization(up_normalization, kernel_size)

    def __call__(self, x: jax.Array, guide: jax.Array) -> jax.Array:
        """Enlarge x under the guide."""
        check_features("x", x, self.in_features)
        check_features("guide", guide, self.guide_features)
        check_shape("guide", guide, (x.shape[0], 2 * x.shape[1], 2 * x.shape[2], None))
        kernels = self.kernels(guide)
        return reassemble(x, kernels, scale=2, kernel_size=self.kernel_size, groups=self.groups)

    def kernels(self, guide: jax.Array) -> jax.Array:
        """The weights of its averages, [B, 2h, 2w, G, K*K], as `ops.reassemble` takes them."""
        _check_even("guide", guide, self.guide_features)
        return _up_kernels(self._logits(guide), self.groups, self.up_normalization)


class A2UDownsample(_OneKind):
    """Downsampling by 2 with the map's own kernels.

        out = downsample_reassemble(x, down),    down = A2UKernels(x).down

    Parameters: those of `A2UKernels` for one kind of kernel. Multiply-adds per pixel of x: k^2 C d / 2 + K^2 C.

    Args:
        in_features: C, channels of x.
        kernel_size: K, odd; the window has 2K x 2K pixels.
        groups: G, a divisor of C: consecutive channels that share a kernel.
        encoder_kernel_size: k, see `A2UKernels`.
        shared: one filter for all channels, instead of one for each.
        rank: d, the number of terms.
        filters: "dynamic", "static" or "hybrid".
        norm_groups: groups of the normalisation, a divisor of C.
        dtype: see `A2UKernels`.
        rngs: source of the initial parameters.

    Returns:
        `module(x)`: HR map [B, 2h, 2w, C] -> LR map [B, h, w, C] in the dtype of x.

    Raises:
        ValueError: a wrong option, or an x that is not a floating-point array [B, 2h, 2w, C].

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> down = A2UDownsample(32, filters="hybrid", rngs=nnx.Rngs(0))
        >>> nnx.jit(down)(jnp.ones((1, 10, 12, 32))).shape
        (1, 5, 6, 32)

    Reference:
        Dai, Lu, Shen, Learning Affinity-Aware Upsampling for Deep Image Matting, CVPR 2021. See `A2UKernels`.
    """

    def __init__(
        self,
        in_features: int,
        *,
        kernel_size: int = 3,
        groups: int = 1,
        encoder_kernel_size: int = 6,
        shared: bool = True,
        rank: int = 1,
        filters: str = "dynamic",
        norm_groups: int = 32,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        shape: dict[str, Any] = dict(kernel_size=kernel_size, groups=groups, encoder_kernel_size=encoder_kernel_size)
        options: dict[str, Any] = dict(shared=shared, rank=rank, filters=filters, norm_groups=norm_groups)
        super().__init__(in_features, in_features, **shape, **options, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Halve x."""
        _check_even("x", x, self.in_features)
        kernels = _softmax(self._logits(x), self.groups, False)
        return downsample_reassemble(x, kernels, scale=2, kernel_size=2 * self.kernel_size, groups=self.groups)

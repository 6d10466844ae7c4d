"""The deep guided filter: a guided filter whose guide is learned (Wu et al., CVPR 2018)."""

from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxup._checks import check_features, check_int, check_positive, check_shape
from jaxup.nn import initializers
from jaxup.ops.filters import guided_filter
from jaxup.ops.pointwise import pointwise_conv
from jaxup.ops.resize import resize

_INIT = initializers.variance_scaling(1 / 3, "fan_in", "uniform")


class DeepGuidedFilter(nnx.Module):
    r"""Guided filter of every channel of x under a guide of its own, which two 1x1 convolutions make of an image.

        G = conv1x1(relu(conv1x1(I))),    y = resize(x)  (bilinear, corners on corners)
        out_c = mean(a_c) G_c + mean(b_c),    a_c = cov(G_c, y_c) / (var(G_c) + eps),    b_c = mean(y_c) - a_c mean(G_c)

    with the means of `jaxup.ops.guided_filter` over (2r + 1)^2 windows of the size of I. `subsample` = s takes a and b
    from every s-th pixel, and enlarges them: the fast guided filter. Parameters: D (Cg + 1) + C (D + 1).

    Args:
        in_features: C, channels of x.
        guide_features: Cg, channels of the image I.
        features: D, between the convolutions.
        radius: r, in pixels of the image.
        eps: what is added to variances, > 0.
        subsample: s.
        dtype: the type in which the convolutions compute; parameters are float32, the filter is never below float32.
        rngs: source of the initial parameters.

    Returns:
        `module(x, guide)`: map [B, h, w, C], guide [B, H, W, Cg] of any size -> [B, H, W, C] in the dtype of x.

    Raises:
        ValueError: a wrong option, or maps whose shapes do not fit.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> DeepGuidedFilter(5, 3, rngs=nnx.Rngs(0))(jnp.ones((1, 2, 3, 5)), jnp.ones((1, 9, 17, 3))).shape
        (1, 9, 17, 5)

    Reference:
        Wu, Zheng, Zhang and Huang, Fast End-to-End Trainable Guided Filter, CVPR 2018, in the form that its code has
        for segmentation, with D = 64, r = 4, eps = 0.01 and s = 1 (wuhuikai/DeepGuidedFilter). Elsewhere that code has
        norms between the convolutions, and takes a and b from small images that it resizes.
    """

    def __init__(
        self,
        in_features: int,
        guide_features: int,
        *,
        features: int = 64,
        radius: int = 4,
        eps: float = 1e-2,
        subsample: int = 1,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.in_features = check_int("in_features", in_features)
        self.guide_features = check_int("guide_features", guide_features)
        self.radius, self.subsample = check_int("radius", radius, 0), check_int("subsample", subsample)
        check_positive("eps", eps)
        self.eps = eps
        widths = guide_features, check_int("features", features), in_features
        self.first, self.second = (
            nnx.Conv(
                inputs, outputs, (1, 1), kernel_init=_INIT, conv_general_dilated=pointwise_conv, dtype=dtype, rngs=rngs
            )
            for inputs, outputs in pairwise(widths)
        )

    def __call__(self, x: jax.Array, guide: jax.Array) -> jax.Array:
        """Enlarge x to the size of the guide."""
        check_features("x", x, self.in_features)
        check_features("guide", guide, self.guide_features)
        check_shape("guide", guide, (x.shape[0], None, None, None))
        y = resize(x, size=guide.shape[1:3], method="bilinear", align_corners=True)
        learned = self.second(nnx.relu(self.first(guide)))
        options: dict[str, Any] = dict(radius=self.radius, eps=self.eps, subsample=self.subsample)
        return guided_filter(y, learned, per_channel=True, **options)

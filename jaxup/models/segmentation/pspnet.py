"""PSPNet (Zhao et al., CVPR 2017): pyramid pooling on a dilated backbone."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxup._checks import check_choice, check_int, check_power_of_two
from jaxup.models.backbones.layers import ConvNorm, max_pool
from jaxup.models.backbones.resnet import DEPTHS
from jaxup.models.segmentation.heads import (
    Backbone,
    Classifier,
    PyramidPooling,
    auxiliary_head,
    build_backbone,
    run_backbone,
)
from jaxup.models.segmentation.upsampling import Build, Upsampling

# Beside the ResNets.
DILATED = ("mobilenet_v2", "efficientnet_lite0")
# Those that Table I does not iterate here, after their numbers of parameters.
_DIRECT = ("resfu", "stack_jbu", "anyup", "deconvolution", "pixel_shuffle")


class PSPNet(nnx.Module):
    """PSPNet: means over grids of 1, 4, 9 and 36 cells beside the last map of a backbone at stride 8.

        y = relu(norm(conv3x3([x, resize(relu(norm(conv1x1(mean over n x n cells)))) for n in scales])))
        logits = conv1x1(dropout(up(y))),    auxiliary = conv1x1(dropout(relu(norm(conv3x3(map before the last)))))

    The upsampler stands between y and the classifier, four times in each direction, as in ReSFU's Fig. 9. Its guides
    are the stem's map at stride 2, before max pooling, and the same after it: both of 64 channels, which are the
    counts that the paper prints. Bilinear interpolation changes places with the classifier, and is left to the last
    resize of the logits: with it the logits have the stride of the backbone.

    Parameters with 150 classes, ResNet-50 with the deep stem and no auxiliary head: 46,678,006; ResNet-101 65,670,134.

    Args:
        num_classes: channels of the logits.
        backbone: the name of a ResNet, "mobilenet_v2" or "efficientnet_lite0", which are built with output stride 8; a
            backbone, or a function `(dtype=, rngs=)` that builds one. Its first map counts as the stem's.
        stem: "deep" or "plain", of a ResNet given by name.
        features: of the pooling branches and of y.
        auxiliary_features: of the auxiliary head, whose loss counts 0.4 times; None: no such head.
        pool_scales: n of each branch.
        dropout: of channels before both classifiers, in calls with `rngs`.
        upsampler: a name of `nn.UPSAMPLERS`, or a function, see `Upsampling`.
        dtype: the type in which layers compute; parameters are float32, and so are norms.
        rngs: source of the initial parameters.

    Returns:
        `module(x, rngs=None)`: image [B, H, W, Cin] -> logits [B, h, w, num_classes] in the dtype of x, at stride 8
        with "bilinear", else at the stride of the backbone's first map, 2. `module.outputs(x, rngs=None)`: {"logits",
        "auxiliary" at stride 8 (if there is such a head), "features": the backbone's maps}.

    Raises:
        ValueError: a wrong option, or an x that is not a floating-point array [B, H, W, Cin].

    Example:
        >>> run = lambda x: PSPNet(5, backbone="resnet18", features=16, rngs=nnx.Rngs(0))(x)
        >>> nnx.eval_shape(run, jnp.ones((1, 33, 64, 3))).shape
        (1, 5, 8, 5)

    Reference:
        Zhao et al., Pyramid Scene Parsing Network, CVPR 2017. Official weights: mmsegmentation (Apache-2.0). The
        upsampler: Zhou et al., A Refreshed Similarity-based Upsampler, 2024, Sec. 5.2.1 and Table I.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        backbone: Backbone = "resnet50",
        stem: str = "deep",
        features: int = 512,
        auxiliary_features: int | None = 256,
        pool_scales: Sequence[int] = (1, 2, 3, 6),
        dropout: float = 0.1,
        upsampler: Build = "bilinear",
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        options: dict[str, Any] = dict(dtype=dtype, rngs=rngs)
        of_name: dict[str, Any] = _of_name(backbone, stem) if isinstance(backbone, str) else {}
        self.backbone = build_backbone(backbone, **of_name, **options)
        *_, before, last = self.backbone.features
        self.pooling = PyramidPooling(last, check_int("features", features), pool_scales, **options)
        self.bottleneck = ConvNorm(self.pooling.features, features, 3, **options)
        self.upsampler = None if upsampler == "bilinear" else self._upsampling(upsampler, features, options)
        self.classifier = Classifier(features, num_classes, dropout=dropout, **options)
        self.auxiliary = auxiliary_head(before, num_classes, auxiliary_features, dropout=dropout, **options)

    def _upsampling(self, upsampler: Build, features: int, options: dict[str, Any]) -> Upsampling:
        scale = self.backbone.strides[-1] // self.backbone.strides[0]
        return Upsampling(
            upsampler,
            in_features=features,
            guides=(self.backbone.features[0],) * check_power_of_two("scale", scale),
            scale=scale,
            image_features=self.backbone.in_features,
            direct=_DIRECT,
            **options,
        )

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        """The logits of x."""
        logits: jax.Array = self.outputs(x, rngs)["logits"]
        return logits

    def outputs(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> dict[str, Any]:
        """Logits, auxiliary logits and the backbone's maps."""
        maps = run_backbone(self.backbone, x, rngs)
        y = self.pooling.fused(maps[-1], self.bottleneck)
        if self.upsampler is not None:
            guides = [maps[0]]
            for _ in self.upsampler.guides[1:]:
                guides.append(max_pool(guides[-1], 3, padding=1))
            y = self.upsampler(y.astype(x.dtype), guides, x)
        found = {"logits": self.classifier(y, rngs).astype(x.dtype), "features": maps}
        if self.auxiliary is not None:
            found["auxiliary"] = self.auxiliary(maps[-2], rngs).astype(x.dtype)
        return found


def _of_name(name: str, stem: str) -> dict[str, Any]:
    """Options of a backbone that can be dilated."""
    if name in DILATED:
        return dict(output_stride=8)
    check_choice("backbone", name, (*(f"resnet{depth}" for depth in DEPTHS), *DILATED))
    return dict(output_stride=8, stem=stem)

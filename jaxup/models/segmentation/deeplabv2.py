"""DeepLab-v2 (Chen et al., TPAMI 2018): dilated classifiers on a dilated ResNet-101, at three scales of the image."""

from collections.abc import Callable, Sequence
from functools import partial, reduce
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxup._checks import check_choice, check_features, check_int, check_shape, fail
from jaxup.models.backbones.resnet import DEPTHS, ResNet
from jaxup.models.dkn import FDKN
from jaxup.models.segmentation.heads import Backbone, build_backbone, run_backbone
from jaxup.nn import initializers
from jaxup.nn.dgf import DeepGuidedFilter
from jaxup.ops.resize import resize

_SMALL = initializers.normal(0.01)
_aligned = partial(resize, method="bilinear", align_corners=True)


class DeepLabV2(nnx.Module):
    """DeepLab-v2: a sum of four 3x3 classifiers with dilation on the last map of a backbone, at several scales.

        s_k = sum over d of conv3x3, dilation d (backbone(resize(image, int(k S) + 1)))    k = 1, 0.75, 0.5
        coarse = max over k of resize(s_k, size of s_1),    logits = up(coarse, image)

    where S is each side of the image, k = 1 leaves it alone, and all resizing is bilinear with corners on corners. The
    backbone, one for all scales, has stride 8. It is a ResNet-101 of Caffe's style, whose last two stages have
    dilations 2 and 4 from their first block on. `upsampler` takes the coarse logits to the size of the image:

        "bilinear"    as above
        "dgf"         the deep guided filter, `jaxup.nn.DeepGuidedFilter`
        "fdkn"        FDKN of every channel by itself, with the same weights, on logits that are enlarged already

    Parameters with 21 classes: 44,048,532; with "dgf" 44,050,153; with "fdkn" 44,751,604.

    Args:
        num_classes: channels of the logits.
        backbone: the name of a ResNet, "resnet18" to "resnet152"; a backbone, or a function `(dtype=, rngs=)` that
            builds one, whose last map counts.
        dilations: of the classifiers.
        scales: of the image; 1 is the first, the others are smaller.
        upsampler: see above, or a function `(in_features=, guide_features=, dtype=, rngs=)` that builds a module which
            is called with logits and an image.
        dtype: the type in which layers compute; parameters are float32, and so are norms.
        rngs: source of the initial parameters.

    Returns:
        `module(x, guide=None)`: image [B, H, W, Cin] -> logits [B, H, W, num_classes] in the dtype of x. A guide
        [B, H', W', Cin], by default x, is what the upsampler sees, and its size is that of the logits.
        `module.outputs(x, guide=None)`: {"logits", "coarse", "scales": the s_k}.

    Raises:
        ValueError: a wrong option, or an x or guide that is not a floating-point array [B, H, W, Cin].

    Example:
        >>> run = lambda x: DeepLabV2(21, backbone="resnet18", rngs=nnx.Rngs(0)).outputs(x)
        >>> found = nnx.eval_shape(run, jnp.ones((1, 65, 50, 3)))
        >>> found["logits"].shape, [y.shape[1:3] for y in found["scales"]]
        ((1, 65, 50, 21), [(9, 7), (7, 5), (5, 4)])

    Reference:
        Chen et al., DeepLab: Semantic Image Segmentation with Deep Convolutional Nets, Atrous Convolution, and Fully
        Connected CRFs, TPAMI 2018; isht7/pytorch-deeplab-resnet (MIT). The upsamplers: Kim, Ponce and Ham, Deformable
        Kernel Networks for Guided Depth Map Upsampling, 2019, supplement, Sec. 4.2, which leaves open what enlarges the
        logits before FDKN sees them, and whether it learns the residual: here it does.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        backbone: Backbone = "resnet101",
        dilations: Sequence[int] = (6, 12, 18, 24),
        scales: Sequence[float] = (1.0, 0.75, 0.5),
        upsampler: str | Callable[..., nnx.Module] = "bilinear",
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        options: dict[str, Any] = dict(dtype=dtype, rngs=rngs)
        classes = check_int("num_classes", num_classes)
        self.backbone = build_backbone(partial(_resnet, backbone) if isinstance(backbone, str) else backbone, **options)
        self.scales = _checked(scales)
        self.classifiers = nnx.List(
            nnx.Conv(
                self.backbone.features[-1],
                classes,
                (3, 3),
                padding=check_int("dilations", dilation),
                kernel_dilation=dilation,
                kernel_init=_SMALL,
                **options,
            )
            for dilation in dilations
        )
        if not self.classifiers:
            fail("dilations", "at least one", dilations)
        self.upsampler = _upsampler(upsampler, classes, self.backbone.in_features, options)

    def __call__(self, x: jax.Array, guide: jax.Array | None = None, rngs: nnx.Rngs | None = None) -> jax.Array:
        """The logits of x."""
        logits: jax.Array = self.outputs(x, guide, rngs)["logits"]
        return logits

    def outputs(self, x: jax.Array, guide: jax.Array | None = None, rngs: nnx.Rngs | None = None) -> dict[str, Any]:
        """The logits of x, those before the upsampler, and those of each scale."""
        check_features("x", x, self.backbone.in_features)
        guide = x if guide is None else guide
        check_features("guide", guide, self.backbone.in_features)
        check_shape("guide", guide, (x.shape[0], None, None, None))
        found = [self._classified(_scaled(x, scale), rngs) for scale in self.scales]
        coarse = reduce(jnp.maximum, (_aligned(y, size=found[0].shape[1:3]) for y in found))
        return {"logits": self._enlarged(coarse, guide), "coarse": coarse, "scales": tuple(found)}

    def _classified(self, x: jax.Array, rngs: nnx.Rngs | None) -> jax.Array:
        last = run_backbone(self.backbone, x, rngs)[-1]
        return sum((classifier(last) for classifier in self.classifiers[1:]), self.classifiers[0](last)).astype(x.dtype)

    def _enlarged(self, coarse: jax.Array, guide: jax.Array) -> jax.Array:
        if self.upsampler is None or isinstance(self.upsampler, FDKN):
            coarse = _aligned(coarse, size=guide.shape[1:3])
        if self.upsampler is None:
            return coarse
        up = self.upsampler.each_channel if isinstance(self.upsampler, FDKN) else self.upsampler
        y: jax.Array = up(coarse, guide)
        return y


def _resnet(name: str, **options: Any) -> ResNet:
    depths = {f"resnet{depth}": depth for depth in DEPTHS}
    check_choice("backbone", name, depths)
    return ResNet(depth=depths[name], output_stride=8, contract_dilation=False, style="caffe", **options)


def _checked(scales: Sequence[float]) -> tuple[float, ...]:
    scales = tuple(scales)
    if scales[:1] != (1,) or not all(0 < scale < 1 for scale in scales[1:]):
        fail("scales", "1, and then numbers above 0 and below 1", scales)
    return scales


def _upsampler(upsampler: Any, classes: int, channels: int, options: dict[str, Any]) -> Any:
    """None: bilinear interpolation."""
    if not isinstance(upsampler, str):
        return upsampler(in_features=classes, guide_features=channels, **options)
    match upsampler:
        case "bilinear":
            return None
        case "dgf":
            return DeepGuidedFilter(classes, channels, **options)
        case "fdkn":
            return FDKN(guide_features=channels, **options)
    return fail("upsampler", "one of 'bilinear', 'dgf', 'fdkn'", repr(upsampler))


def _scaled(x: jax.Array, scale: float) -> jax.Array:
    return x if scale == 1 else _aligned(x, size=(int(scale * x.shape[1]) + 1, int(scale * x.shape[2]) + 1))

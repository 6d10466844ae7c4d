"""Every upsampler by its name, and all of them called alike: `up(x)`, or `up(x, guide)` where there is a guide."""

import difflib
import inspect
import math
from collections.abc import Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

from flax import nnx

from jaxup._checks import Pair, check_int, fail, pair
from jaxup.nn.a2u import A2UUpsample
from jaxup.nn.anyup import AnyUp
from jaxup.nn.attention import AttentionUpsample, JointAttentionUpsample
from jaxup.nn.basic import Deconvolution, PixelShuffle, Resize
from jaxup.nn.carafe import CARAFE
from jaxup.nn.doubling import Iterated
from jaxup.nn.dysample import DySample
from jaxup.nn.fade import FADE
from jaxup.nn.indexnet_decoder import IndexNetUpsample
from jaxup.nn.jafar import JAFAR
from jaxup.nn.jbu import JBU, StackJBU
from jaxup.nn.loftup import LoftUp
from jaxup.nn.naf import NAF
from jaxup.nn.pac import PacConvTranspose, PacJointUpsample
from jaxup.nn.resfu import ReSFU
from jaxup.nn.sapa import SAPA
from jaxup.nn.unpooling import MaxUnpool
from jaxup.nn.uplift import UPLiFT
from jaxup.nn.upsampler import POWERS, TWO, Upsampler


def _window(in_features: int, guide_features: int, scale: Pair, options: Mapping[str, Any]) -> dict[str, Any]:
    return {"kernel_size": 2 * max(scale) + 1}


def _equal(in_features: int, guide_features: int, scale: Pair, options: Mapping[str, Any]) -> dict[str, Any]:
    if guide_features != in_features and not options.get("holistic"):
        fail("guide_features", f"in_features = {in_features} unless holistic=True", guide_features)
    return {}


_ATTENTION = partial(
    Upsampler, paper="Kundu et al., Attention-based Image Upsampling, 2020", fitted=_window, multiple=2
)
_FADE = partial(
    Upsampler,
    FADE,
    paper="Lu et al., FADE, ECCV 2022",
    official="poppinace/fade, MIT (readme: academic use)",
    guide="features",
    converter="fade",
)
_FEATUP = partial(
    Upsampler,
    paper="Fu et al., FeatUp, ICLR 2024",
    official="mhamilton723/FeatUp, MIT",
    guide="image",
    converter="jbu",
    small={"key_features": 4, "radius": 1},
)
_PAC = partial(
    Upsampler,
    paper="Su et al., Pixel-Adaptive Convolutional Neural Networks, CVPR 2019",
    official="NVlabs/pacnet, CC BY-NC-SA 4.0",
    converter="pac",
)
_UNDER_IMAGE = partial(Upsampler, guide="image", any_size=True)
_SINGLE = {"block": "SingleConv", "norm": "batch", "hc": (4,)}
_SMALL_ENCODER = {"down_steps": 1, "block_0": _SINGLE, "down_1": {"down_op": "none"}, "block_1": _SINGLE}

UPSAMPLERS: Mapping[str, Upsampler] = MappingProxyType(
    {
        "nearest": Upsampler(Resize, options={"method": "nearest"}),
        "bilinear": Upsampler(Resize, options={"method": "bilinear"}),
        "bicubic": Upsampler(Resize, paper="Keys, TASSP 1981", options={"method": "bicubic"}),
        "deconvolution": Upsampler(Deconvolution, paper="Zeiler et al., Deconvolutional Networks, CVPR 2010"),
        "pixel_shuffle": Upsampler(PixelShuffle, paper="Shi et al., Sub-Pixel CNN, CVPR 2016"),
        "attention": _ATTENTION(AttentionUpsample),
        "carafe": Upsampler(
            CARAFE,
            paper="Wang et al., CARAFE, ICCV 2019",
            official="open-mmlab/mmcv, Apache-2.0",
            converter="carafe",
            small={"compressed_features": 4},
        ),
        "dysample": Upsampler(
            DySample,
            paper="Liu et al., DySample, ICCV 2023",
            official="tiny-smart/dysample, MIT",
            fitted=lambda features, *_: {"groups": math.gcd(4, features)},
            converter="dysample",
        ),
        "max_unpool": Upsampler(
            MaxUnpool, paper="Badrinarayanan et al., SegNet, TPAMI 2017", guide="features", fitted=_equal
        ),
        "indexnet": Upsampler(
            IndexNetUpsample,
            paper="Lu et al., Index Networks, TPAMI 2020",
            official="poppinace/indexnet_matting, non-commercial",
            guide="features",
            converter="indexnet",
        ),
        "joint_attention": _ATTENTION(JointAttentionUpsample, guide="features"),
        "sapa": Upsampler(
            SAPA,
            paper="Lu et al., SAPA, NeurIPS 2022",
            official="poppinace/sapa, MIT",
            guide="features",
            converter="sapa",
            small={"embedding_features": 4},
        ),
        "fade": _FADE(small={"embedding_features": 4}),
        "fade_lite": _FADE(options={"lite": True}),
        "a2u": Upsampler(
            A2UUpsample,
            paper="Dai et al., A2U, CVPR 2021",
            official="dongdong93/a2u_matting, MIT",
            guide="features",
            allowed=TWO,
            fitted=lambda _, guide, *__: {"norm_groups": math.gcd(32, guide)},
            converter="a2u",
            small={"norm_groups": 2},
        ),
        "resfu": Upsampler(
            ReSFU,
            paper="Zhou et al., ReSFU, 2024",
            official="zmhhmz/ReSFU, none",
            guide="features",
            converter="resfu",
            small={"embedding_features": 8, "radius": 2},
        ),
        "jbu": _FEATUP(JBU),
        "stack_jbu": _FEATUP(StackJBU, any_size=True, allowed=POWERS),
        "pac": _PAC(PacConvTranspose, guide="embedding"),
        "pac_joint": _PAC(PacJointUpsample, guide="image", allowed=POWERS, small={"features": 4, "key_features": 4}),
        "anyup": _UNDER_IMAGE(
            AnyUp,
            paper="Wimmer et al., AnyUp, 2025",
            official="wimmerth/anyup, CC BY 4.0",
            converter="anyup",
            small={"qk_features": 8, "num_heads": 2, "unify_kernel_size": 3},
        ),
        "uplift": _UNDER_IMAGE(
            UPLiFT,
            paper="Walmer et al., UPLiFT, 2026",
            official="mwalmer-umd/UPLiFT, MIT",
            converter="uplift",
            small={"encoder": _SMALL_ENCODER, "neighbours": 9},
        ),
        "naf": _UNDER_IMAGE(
            NAF,
            paper="Chambon et al., NAF, 2025",
            official="valeoai/NAF, Apache-2.0",
            fitted=lambda features, *_: {"num_heads": math.gcd(4, features)},
            converter="naf",
            small={"features": 16, "kernel_size": 3, "depth": 1},
        ),
        "jafar": _UNDER_IMAGE(
            JAFAR,
            paper="Couairon et al., JAFAR, NeurIPS 2025",
            official="PaulCouairon/JAFAR, Apache-2.0",
            converter="jafar",
            small={"qk_features": 8, "num_heads": 2},
        ),
        "loftup": _UNDER_IMAGE(
            LoftUp,
            paper="Huang et al., LoftUp, ICCV 2025",
            official="andrehuang/loftup, MIT",
            fitted=lambda features, *_: {"num_heads": math.gcd(4, features)},
            converter="loftup",
            small={"num_frequencies": 2, "depth": 1},
        ),
    }
)
"""All upsamplers of `make_upsampler` by name."""


def make_upsampler(
    name: str,
    *,
    in_features: int,
    guide_features: int | None = None,
    scale: int | Pair,
    iterated: bool = False,
    rngs: nnx.Rngs,
    **options: Any,
) -> nnx.Module:
    """Build any upsampler by name: from C channels to C channels, `scale` times as large.

    Every module keeps its paper's defaults as far as they fit: attention has a window for the scale, K = 2s + 1, and
    groups are fewer where the paper's number does not divide the channels.

    Args:
        name: a key of `UPSAMPLERS`.
        in_features: C.
        guide_features: channels of the guide; without influence where there is none, so that names can be exchanged.
        scale: integer upsampling factor, or a pair (vertical, horizontal), as far as `UPSAMPLERS[name].scales` goes.
        iterated: double log2(scale) times instead, each step with parameters of its own: see `Iterated`.
        rngs: source of the initial parameters.
        **options: further options of the constructor.

    Returns:
        A module: `up(x)`, or `up(x, guide)` if `UPSAMPLERS[name].guided`. x [B, h, w, C], guide [B, s*h, s*w, Cg] ->
        [B, s*h, s*w, C] in the dtype of x.

    Raises:
        ValueError: an unknown name (the nearest known one is suggested), a scale that this upsampler does not take, a
            guided upsampler without guide_features, channels that it does not take, an unknown or wrong option.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> x, guide = jnp.ones((1, 5, 6, 8)), jnp.ones((1, 10, 12, 8))
        >>> for name in ("bilinear", "carafe", "sapa"):
        ...     up = make_upsampler(name, in_features=8, guide_features=8, scale=2, rngs=nnx.Rngs(0))
        ...     out = up(x, guide) if UPSAMPLERS[name].guided else up(x)
        >>> out.shape
        (1, 10, 12, 8)

    Reference:
        `UPSAMPLERS[name].paper`.
    """
    if name not in UPSAMPLERS:
        near = difflib.get_close_matches(str(name), UPSAMPLERS, 1, 0.0)
        fail("name", "one of " + ", ".join(UPSAMPLERS), f"{name!r}; did you mean {near[0]!r}?")
    entry, factor = UPSAMPLERS[name], pair("scale", scale)
    if entry.guided and guide_features is None:
        fail("guide_features", f"the channels of the guide, which {name} needs", None)
    guide = check_int("guide_features", guide_features) if entry.guided else 0
    _check_options(entry, options)
    if check_int("in_features", in_features) % entry.multiple and "out_features" not in options:
        fail("in_features", f"a multiple of {entry.multiple} for {name}", in_features)
    build = partial(_build, entry, int(in_features), guide, options)
    if iterated:
        if not POWERS.fits(factor):
            fail("scale", f"{POWERS.words} where doublings are iterated", scale)
        return Iterated(build=partial(build, (2, 2)), scale=factor[0], rngs=rngs)
    if not entry.allowed.fits(factor):
        hint = "" if entry.allowed is POWERS else ", or iterated=True for a power of two"
        fail("scale", f"{entry.scales} for {name}{hint}", scale)
    return build(factor, rngs=rngs)


def _parameters(entry: Upsampler) -> list[str]:
    return [name for name in inspect.signature(entry.module.__init__).parameters if name != "self"]


def _check_options(entry: Upsampler, options: Mapping[str, Any]) -> None:
    """Require names that the constructor knows, beside those that `make_upsampler` fills in."""
    known = [name for name in _parameters(entry) if name not in ("in_features", "guide_features", "scale", "rngs")]
    for name in options:
        if name not in known:
            fail("options", f"those of {entry.module.__name__}: {', '.join(known)}", repr(name))


def _build(
    entry: Upsampler,
    in_features: int,
    guide_features: int,
    options: Mapping[str, Any],
    scale: Pair,
    *,
    rngs: nnx.Rngs,
) -> nnx.Module:
    """The module of one entry: each constructor gets those of the common arguments that it has."""
    common = {
        "in_features": in_features,
        "out_features": in_features,
        "guide_features": guide_features,
        "scale": scale[0] if entry.allowed is POWERS else scale,
        "rngs": rngs,
    }
    known = _parameters(entry)
    given = {name: value for name, value in common.items() if name in known}
    fitted = entry.fitted(in_features, guide_features, scale, options)
    return entry.module(**(given | fitted | dict(entry.options) | dict(options)))

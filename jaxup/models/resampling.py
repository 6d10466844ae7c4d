"""The downsampling and upsampling stages of an encoder-decoder as one module (Lu et al., TPAMI 2020, Table 2)."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxup._checks import accum_dtype, check_choice, check_divides, check_features, check_int, fail
from jaxup.models.stages import RESAMPLINGS, Memory, Stage
from jaxup.nn.indexnet import IndexMaps

__all__ = ["RESAMPLINGS", "Memory", "Resampling"]


class Resampling(nnx.Module):
    """The downsampling and upsampling stages of an encoder-decoder, by 2 each, all by one method.

        y, memory = down(stage, x),    x' = up(stage, z, memory)

    Downsampling: "avg" and "max" pooling, "conv" (3 x 3, stride 2, no activation), space to depth, or indexed pooling.
    Upsampling: nearest and bilinear interpolation, depth to space, "deconv" (3 x 3, stride 2), CARAFE, or indexed
    upsampling, whose indices come from the index network, or the max pooling, that made the map smaller;
    "holistic-max-unpool" has one maximum for all channels (HMI), "max-nearest" and "max-bilinear" forget them. Methods
    named after a family of index networks pool and upsample with its indices, those that end in "-bilinear" only pool
    with them. Of "modelwise_o2o" all stages share one network. Index networks start as He et al. (2015) have it, the
    paper's "improved Xavier".

    "a2u" predicts kernels for both from the map before pooling. Those of upsampling have 3 x 3 entries, which the
    sigmoid before the softmax keeps alike (see `jaxup.nn.A2UKernels`); "a2u-softmax" leaves it out, and "a2u-k1" has a
    single entry, a gate. "max-a2u" upsamples by kernels after max pooling.

    Maps keep their channels, but for "space-to-depth", where down gives 4 channels for one and up one for 4, see
    `down_features` and `up_features`.

    Parameters, of all stages together: "conv" and "deconv" (9 C + 1) C each, those of `jaxup.nn.CARAFE`,
    `jaxup.nn.IndexNetwork` and `jaxup.nn.A2UKernels`; the others have none.

    Args:
        method: one of `RESAMPLINGS`.
        features: C of each stage: the channels of the map to be made smaller, and of the one to be made larger.
        decoder_features: of each stage the channels of the map to be made larger, where they are fewer: a divisor of C.
            An index map for all C channels is then averaged over consecutive ones.
        nonlinear: of index networks, see `jaxup.nn.IndexNetwork`.
        context: of index networks.
        encoder_normalization: of index networks.
        decoder_normalization: of index networks.
        layer_options: further options of the layers: of `jaxup.nn.A2UKernels`, for instance.
        dtype: the type in which layers compute; parameters are float32.
        rngs: source of the initial parameters.

    Raises:
        ValueError: a wrong option, or a map that does not fit.

    Example:
        >>> stages = Resampling(method="holistic", features=(4, 8), rngs=nnx.Rngs(0))
        >>> y, memory = stages.down(0, jnp.ones((1, 6, 10, 4)))
        >>> y.shape, stages.up(0, y, memory).shape
        ((1, 3, 5, 4), (1, 6, 10, 4))

    Reference:
        Lu et al., Index Networks, TPAMI 2020, Sec. 5 and Table 2; Dai, Lu, Shen, Learning Affinity-Aware Upsampling for
        Deep Image Matting, CVPR 2021, for "a2u".
    """

    def __init__(
        self,
        *,
        method: str,
        features: Sequence[int],
        decoder_features: Sequence[int] | None = None,
        nonlinear: bool = True,
        context: bool = True,
        encoder_normalization: str = "sigmoid+softmax",
        decoder_normalization: str = "sigmoid",
        layer_options: Mapping[str, Any] | None = None,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        check_choice("method", method, RESAMPLINGS)
        self.method, self.features = method, tuple(check_int("features", count) for count in features)
        entry = self._entry
        self.decoder_features = self.features if decoder_features is None else tuple(decoder_features)
        if any(count % entry.packed for count in self.features + self.decoder_features):
            fail("features", f"multiples of {entry.packed} for {method}", self.features)
        if len(self.features) != len(self.decoder_features) or any(
            count % check_int("decoder_features", fewer)
            for count, fewer in zip(self.features, self.decoder_features, strict=True)
        ):
            fail("decoder_features", f"divisors of {self.features}", self.decoder_features)
        once = entry.indices == "modelwise_o2o"
        of_indices: dict[str, Any] = dict(
            nonlinear=nonlinear,
            context=context,
            encoder_normalization=encoder_normalization,
            decoder_normalization=decoder_normalization,
        )
        options: dict[str, Any] = (of_indices if entry.indices else {}) | dict(layer_options or {})
        options |= dict(dtype=dtype, rngs=rngs)
        down, up = entry.down_layer, entry.up_layer
        stages = self.features[: 1 if once else None]
        self.down_layers = nnx.List(down(count, **options) for count in stages if down is not None)
        self.up_layers: nnx.List[Any] = nnx.List()
        for count, fewer in zip(self.features, self.decoder_features, strict=True):
            guide: dict[str, Any] = dict(guide_features=count) if entry.memory is jax.Array else {}
            if up is not None:
                self.up_layers.append(up(fewer, **guide, **options))

    @property
    def _entry(self) -> Stage:
        return RESAMPLINGS[self.method]

    def down(self, stage: int, x: jax.Array) -> tuple[jax.Array, Memory]:
        """Make a map smaller.

        Args:
            stage: the number of the stage, from 0.
            x: [B, 2h, 2w, C].

        Returns:
            (y, memory): the map [B, h, w, `down_features(stage)`] in the dtype of x, and what `up` of this stage needs:
            None, index maps (encoder, decoder), which are 0 or 1 for maxima, kernels (down, up), or x itself.
        """
        check_features("x", x, self.features[stage])
        check_divides("scale", 2, "the height of x", x.shape[1])
        check_divides("scale", 2, "the width of x", x.shape[2])
        return self._entry.down(_of_stage(self.down_layers, stage), x)

    def up(self, stage: int, z: jax.Array, memory: Memory) -> jax.Array:
        """Make a map larger.

        Args:
            stage: the number of the stage, from 0.
            z: [B, h, w, C], with C of the decoder.
            memory: what `down` of this stage gave.

        Returns:
            [B, 2h, 2w, `up_features(stage)`] in the dtype of z.
        """
        check_features("z", z, self.decoder_features[stage])
        return self._entry.up(_of_stage(self.up_layers, stage), z, _averaged(memory, z.shape[3]))

    def kernels(self, stage: int, z: jax.Array, memory: Memory) -> jax.Array:
        """The weights of the averages by which `up` makes a map larger.

        Args:
            stage: the number of the stage, from 0.
            z: [B, h, w, C], with C of the decoder.
            memory: what `down` of this stage gave.

        Returns:
            [B, 2h, 2w, G, K*K], as `ops.reassemble` takes them.

        Raises:
            ValueError: the method does not average by kernels.
        """
        if self._entry.kernels is None:
            known = ", ".join(name for name, entry in RESAMPLINGS.items() if entry.kernels is not None)
            fail("method", f"one that averages by kernels: {known}", repr(self.method))
        check_features("z", z, self.decoder_features[stage])
        return self._entry.kernels(_of_stage(self.up_layers, stage), z, memory)

    def down_features(self, stage: int) -> int:
        """Channels of what `down` returns."""
        return self.features[stage] * self._entry.packed

    def up_features(self, stage: int) -> int:
        """Channels of what `up` returns."""
        return self.decoder_features[stage] // self._entry.packed


def _averaged(memory: Memory, features: int) -> Memory:
    """Index maps for as many channels as a map has."""
    if not isinstance(memory, IndexMaps) or memory.decoder.shape[3] in (1, features):
        return memory
    maps = memory.decoder
    grouped = maps.reshape(*maps.shape[:3], features, maps.shape[3] // features)
    return memory._replace(decoder=jnp.mean(grouped.astype(accum_dtype(maps)), axis=4).astype(maps.dtype))


def _of_stage(layers: Sequence[nnx.Module], stage: int) -> nnx.Module | None:
    """Of no layers none, of one always this one."""
    return layers[stage % len(layers)] if layers else None

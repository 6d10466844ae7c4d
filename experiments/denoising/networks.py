"""Which network, and what it costs."""

from dataclasses import dataclass

from flax import nnx

from experiments.engine import runs
from jaxup._checks import check_choice
from jaxup.models import DENOISING_METHODS, DnCNN, DnCNNSegNet
from jaxup.nn.indexnet import FAMILIES, VARIANTS

Network = DnCNN | DnCNNSegNet
MODELS = ("dncnn", *DENOISING_METHODS, *(f"{family}{kind}" for family in FAMILIES for kind in VARIANTS if kind))
"""Names of networks: DnCNN, and DnCNN-SegNet by its method of resampling; index networks are linear without suffix,
nonlinear with -nl, and nonlinear with context with -nl-c."""


@dataclass(frozen=True)
class NetworkConfig:
    """Which network."""

    model: str = "dncnn"
    """dncnn, max-unpool (the paper's DnCNN-SegNet), max-carafe, avg-carafe, conv-carafe, holistic-max-unpool, a2u,
    a2u-k1, a2u-softmax, max-a2u, or a family of index networks: holistic, modelwise_o2o, shared_o2o, unshared_o2o or
    m2o, also with -bilinear, and with -nl nonlinear, with -nl-c with context, too."""
    features: int = 64
    """Channels at full resolution. The paper has 64."""

    def build(self, seed: int) -> Network:
        """The network with its initial weights."""
        check_choice("model", self.model, MODELS)
        if self.model == "dncnn":
            return DnCNN(features=self.features, rngs=nnx.Rngs(seed))
        family = self.model.removesuffix("-c").removesuffix("-nl")
        variant = VARIANTS[self.model.removeprefix(family)]
        return DnCNNSegNet(method=family, features=self.features, **variant, rngs=nnx.Rngs(seed))

    @property
    def label(self) -> str:
        """What tables call it."""
        return self.model if self.features == 64 else f"{self.model}, {self.features} features"


def parameters(config: NetworkConfig) -> int:
    """The number of weights."""
    return runs.parameters(nnx.eval_shape(lambda: config.build(0)))


def gflops(config: NetworkConfig, size: int = 224) -> float:
    """The cost of an image of size x size pixels by XLA's analysis of the whole network, in the paper's unit.

    That is 2^30 multiply-adds, or 2^31 operations, as DnCNN shows: 554,112 multiply-adds per pixel, 25.89 in the table.
    XLA counts no products with the zeros around an image, but it counts sums, norms and activations as well, and
    comes to 0.2 to 2.3 % less than the paper.
    """
    return runs.costs(lambda: config.build(0), (1, size, size, 1))[1] / 2**30

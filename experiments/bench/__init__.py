"""Speed and memory of the operators and networks, as ratios to a reference in the same process; scaling on paper."""

from experiments.bench.compare import compare
from experiments.bench.features import features
from experiments.bench.large import large
from experiments.bench.networks import networks
from experiments.bench.operators import run, upsamplers
from experiments.bench.scaling import scaling

COMMANDS = {
    "run": run,
    "operators": compare,
    "upsamplers": upsamplers,
    "features": features,
    "large": large,
    "networks": networks,
    "scaling": scaling,
}

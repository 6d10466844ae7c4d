"""Speed and memory of the operators and networks, as ratios to a reference that runs in the same process."""

from experiments.bench.networks import networks
from experiments.bench.operators import run, upsamplers

COMMANDS = {"run": run, "upsamplers": upsamplers, "networks": networks}

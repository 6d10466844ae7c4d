"""Modules that `interop` builds from the case's parameters."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
from flax import nnx

from jaxup import interop
from jaxup.interop.convert import _build
from jaxup.interop.keys import Key, flat_variables

Function = Callable[[Mapping[str, jax.Array], Mapping[str, jax.Array], Mapping[str, Any]], Any]


def build(operator: str, params: Mapping[str, jax.Array], config: Mapping[str, Any]) -> Any:
    """The module of an official class, in the case's mode; its layers compute in `config["dtype"]`, if there is one."""
    module = interop.from_torch(operator, params, config)
    if "dtype" in config:
        for _, node in nnx.iter_graph(module):
            if hasattr(node, "dtype") and isinstance(node, nnx.Module):
                node.dtype = config["dtype"]
    module.train() if config["mode"] == "train" else module.eval()
    return module


def with_statistics(outputs: Any, operator: str, module: nnx.Module, config: Mapping[str, Any]) -> Any:
    """The outputs, and in training mode the module's running statistics after them, by their official names."""
    if config["mode"] != "train":
        return outputs
    statistics = flat_variables(nnx.state(module, nnx.BatchStat))
    table = {name: entry for name, entry in _build(operator, config)[1].items() if isinstance(entry, Key)}
    return outputs, {name: statistics[key.path][...] for name, key in table.items() if key.path in statistics}


def converted(operator: str, *names: str) -> Function:
    """The official class, called with the inputs of these names; those that a case does not have are left out."""

    def run(inputs: Mapping[str, jax.Array], params: Mapping[str, jax.Array], config: Mapping[str, Any]) -> Any:
        module = build(operator, params, config)
        outputs = module(*[inputs[name] for name in names if name in inputs])
        return with_statistics(outputs, operator, module, config)

    return run


def part(params: Mapping[str, jax.Array], prefix: str) -> dict[str, jax.Array]:
    """The parameters of a submodule."""
    return {k.removeprefix(prefix): x for k, x in params.items() if k.startswith(prefix)}

"""Official PyTorch checkpoints to modules and back.

    module = from_torch("CARAFEPack", load_checkpoint("carafe.safetensors"), {"channels": 64, "scale_factor": 2})

An operator has the name of its official class and `config` holds the official constructor arguments. The modules are
called by jaxup's own protocol, `module(x)` or `module(x, guide)`, whatever the official argument order was. What
official code does around its networks belongs to them: DKN and FDKN from here enlarge depth as theirs does, and
`djf_upsample` displaces it as DJF was trained to expect.
"""

from jaxup.interop.caffe import load_caffemodel
from jaxup.interop.checkpoint import load_checkpoint
from jaxup.interop.convert import OPERATORS, from_torch, to_torch
from jaxup.interop.djf import djf_upsample, load_matconvnet
from jaxup.interop.modules import load_module, save_module

__all__ = [
    "OPERATORS",
    "from_torch",
    "to_torch",
    "load_caffemodel",
    "load_checkpoint",
    "load_matconvnet",
    "djf_upsample",
    "load_module",
    "save_module",
]

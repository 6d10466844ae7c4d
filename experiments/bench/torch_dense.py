"""Networks of segmentation, matting and monocular depth written plainly in PyTorch, with the weights of ours."""

from collections.abc import Callable
from typing import Any

import numpy as np

from experiments.bench import torch_matting, torch_monocular_depth, torch_segmentation
from experiments.bench.measuring import pytorch
from experiments.bench.torch_layers import Layers
from jaxup.files import InputError

FORMS = {**torch_segmentation.FORMS, **torch_matting.FORMS, **torch_monocular_depth.FORMS}


def dense_twin(network: Any, image: np.ndarray, *, gradients: bool = False) -> Callable[[], np.ndarray]:
    """The same network in evaluation mode, with the options that `experiments.bench.networks` builds it with.

    Returns:
        A function that maps the image [B, H, W, Cin] to [B, h, w, C] once more. With `gradients`, those of the output's
        sum for image and parameters, of which it returns the image's.

    Raises:
        InputError: PyTorch is not installed, or another network.
    """
    torch = pytorch()
    if type(network) not in FORMS:
        raise InputError(f"network: expected one of {', '.join(f.__name__ for f in FORMS)}")
    layers = Layers(torch)
    run = FORMS[type(network)](network, layers)
    x = torch.from_numpy(image).permute(0, 3, 1, 2).contiguous()
    with torch.inference_mode(False), torch.no_grad():
        run(x)  # which makes the tensors of all layers
    leaves = [x, *layers.leaves]
    for leaf in leaves:
        leaf.requires_grad_(gradients)

    def last(y: Any) -> np.ndarray:
        found: np.ndarray = y.permute(0, 2, 3, 1).numpy()
        return found

    def forward() -> np.ndarray:
        with torch.inference_mode():
            return last(run(x))

    return (lambda: last(torch.autograd.grad(run(x).sum(), leaves)[0])) if gradients else forward

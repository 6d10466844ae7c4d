"""The operators written plainly in PyTorch, as a reader of the papers would: what the benchmark compares with.

Images and kernels are NCHW, options those of `jaxup.ops`. Windows are unfolded on the low-resolution grid and averaged
by `einsum`, phase by phase of a cell; nothing is written by hand for the gradients.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

PER_CELL = "bcnhw,bnhuwv->bchuwv"


def _windows(x: Tensor, size: int) -> Tensor:
    """[B, C, size^2, h, w], zero outside the image."""
    cells = functional.unfold(x, size, padding=size // 2)
    return cells.view(*x.shape[:2], size**2, *x.shape[2:])


def _phases(x: Tensor, scale: int) -> Tensor:
    """[B, C, s h, s w] -> [B, C, h, s, w, s]."""
    batch, channels, height, width = x.shape
    return x.reshape(batch, channels, height // scale, scale, width // scale, scale)


def _average(cells: Tensor, weights: Tensor) -> Tensor:
    """Windows [B, C, n, h, w] and weights [B, n, h, s, w, s] -> [B, C, s h, s w]."""
    out = torch.einsum(PER_CELL, cells, weights)
    return out.flatten(4, 5).flatten(2, 3)


def reassemble(x: Tensor, kernels: Tensor, *, scale: int, kernel_size: int) -> Tensor:
    """CARAFE, Eq. 2."""
    return _average(_windows(x, kernel_size), _phases(kernels, scale))


def similarity_upsample(query: Tensor, key: Tensor, value: Tensor, *, scale: int, kernel_size: int) -> Tensor:
    """SAPA."""
    scores = torch.einsum("bdnhw,bdhuwv->bnhuwv", _windows(key, kernel_size), _phases(query, scale))
    return _average(_windows(value, kernel_size), scores.softmax(1))


def attention_upsample(
    query: Tensor, key: Tensor, value: Tensor, px: Tensor, py: Tensor, *, scale: int, kernel_size: int
) -> Tensor:
    """Kundu et al., Eq. 12, over the cells that a window of the large grid may touch."""
    radius = kernel_size // 2
    reach = -(-radius // scale)
    side = 2 * reach + 1
    taps = scale * (torch.arange(side) - reach)[None] - torch.arange(scale)[:, None] + radius  # [phase, cell]
    near, taps = (taps >= 0) & (taps < kernel_size), taps.clamp(0, kernel_size - 1)
    square = (scale, side, scale, side, px.shape[1])
    table = torch.cat([px[taps][:, :, None, None].expand(square), py[taps][None, None].expand(square)], -1)
    table = table.to(query.dtype)
    queries = _phases(query, scale)
    scores = torch.einsum("bdnhw,bdhuwv->bnhuwv", _windows(key, side), queries)
    scores = scores + torch.einsum("bdhuwv,uavcd->bachuwv", queries, table).flatten(1, 2)
    allowed = (near[:, :, None, None] & near[None, None]).permute(1, 3, 0, 2).reshape(side**2, scale, scale)
    real = _windows(torch.ones_like(value[:1, :1]), side)[0, 0] > 0
    mask = allowed[:, None, :, None] & real[:, :, None, :, None]
    return _average(_windows(value, side), scores.masked_fill(~mask, -math.inf).softmax(1))


def fine_neighbour_attention(x: Tensor, weights: Tensor, *, scale: int, kernel_size: int) -> Tensor:
    """ReSFU, Eq. 2: the enlarged map is formed, and its dilated windows are added one after the other."""
    reach, (height, width) = kernel_size // 2, weights.shape[2:]
    padded = functional.pad(x, (reach + 1,) * 4, mode="replicate")
    large = functional.interpolate(padded, scale_factor=scale, mode="bilinear")
    total = torch.zeros(())
    for n in range(kernel_size**2):
        top, left = (scale * (1 + a) for a in divmod(n, kernel_size))
        total = total + weights[:, n : n + 1] * large[:, :, top : top + height, left : left + width]
    return total


def sample(x: Tensor, points: Tensor, *, padding: str = "border") -> Tensor:
    """DySample's reading, groups on the batch axis; points [B, H, W, g, 2] count pixels."""
    batch, channels, height, width = x.shape
    groups, size = points.shape[3], torch.tensor([height, width])
    grid = ((2 * points + 1) / size - 1).flip(-1).permute(0, 3, 1, 2, 4).flatten(0, 1)
    table = x.reshape(batch * groups, channels // groups, height, width).to(points.dtype)
    out = functional.grid_sample(table, grid, padding_mode=padding, align_corners=False)
    return out.view(batch, channels, *out.shape[2:]).to(x.dtype)


def resize(x: Tensor, *, size: tuple[int, int], method: str) -> Tensor:
    """Interpolation."""
    return functional.interpolate(x, size=size, mode=method)


def pixel_shuffle(x: Tensor, *, scale: int) -> Tensor:
    """Channels to pixels."""
    return functional.pixel_shuffle(x, scale)


def deconvolution(x: Tensor, parameters: Any, *, scale: int) -> Tensor:
    """A transposed convolution that scales exactly."""
    kernel = parameters["kernel"]
    weight = kernel.flip(0, 1).permute(2, 3, 0, 1).to(x.dtype)
    return functional.conv_transpose2d(x, weight, None, scale, kernel.shape[0] // 2, scale - 1)


def indexed_upsample(x: Tensor, index: Tensor, *, scale: int) -> Tensor:
    """Index Networks: nearest interpolation times an index."""
    return functional.interpolate(x, scale_factor=scale) * index


def indexed_pool(x: Tensor, index: Tensor, *, scale: int) -> Tensor:
    """Index Networks: the sum of indexed pixels."""
    return scale**2 * functional.avg_pool2d(x * index, scale)


def joint_bilateral_upsample(
    x: Tensor, guide: Tensor, *, scale: int, radius: int, sigma_spatial: float, sigma_range: float
) -> Tensor:
    """Kopf et al., Eq. 3."""
    side = 2 * radius + 1
    coarse, fine = _windows(functional.avg_pool2d(guide, scale), side), _phases(guide, scale)
    unlike = (fine[:, :, None] - coarse[:, :, :, :, None, :, None]).square().sum(1)
    place, cell = (torch.arange(scale) + 0.5) / scale - 0.5, torch.arange(side) - radius
    away = (place[None] - cell[:, None]).square()  # [cell, phase]
    distance = (away[:, None, :, None] + away[None, :, None]).reshape(side**2, 1, scale, 1, scale)
    score = -unlike / (2 * sigma_range**2) - distance / (2 * sigma_spatial**2)
    real = _windows(torch.ones_like(x[:1, :1]), side)[0, 0] > 0
    weights = score.masked_fill(~real[:, :, None, :, None], -math.inf).softmax(1).to(x.dtype)
    return _average(_windows(x, side), weights)


def box_filter(x: Tensor, *, radius: int) -> Tensor:
    """Mean of the part of the window inside the image."""
    return functional.avg_pool2d(x, 2 * radius + 1, 1, radius, count_include_pad=False)


def gaussian_filter(x: Tensor, *, sigma: float, radius: int) -> Tensor:
    """Separable, one channel after the other."""
    steps = torch.arange(-radius, radius + 1)
    taps = torch.exp(-steps.square() / (2 * sigma**2)).to(x.dtype)
    taps, channels = taps / taps.sum(), x.shape[1]
    kernel = taps.expand(channels, 1, 1, -1)
    x = functional.pad(x, (radius,) * 4, mode="replicate")
    x = functional.conv2d(x, kernel, groups=channels)
    return functional.conv2d(x, kernel.transpose(2, 3), groups=channels)


def guided_filter(x: Tensor, guide: Tensor, *, radius: int, eps: float) -> Tensor:
    """He et al. for colours: a linear model in every window."""
    mean_x, mean_guide = box_filter(x, radius=radius), box_filter(guide, radius=radius)
    channels, guides = x.shape[1], guide.shape[1]
    pairs = (guide[:, :, None] * guide[:, None]).flatten(1, 2)
    with_x = (guide[:, :, None] * x[:, None]).flatten(1, 2)
    sigma = (
        box_filter(pairs, radius=radius).unflatten(1, (guides, guides)) - mean_guide[:, :, None] * mean_guide[:, None]
    )
    both = box_filter(with_x, radius=radius).unflatten(1, (guides, channels)) - mean_guide[:, :, None] * mean_x[:, None]
    matrix = sigma.permute(0, 3, 4, 1, 2) + eps * torch.eye(guides)
    solved = torch.linalg.solve(matrix.float(), both.permute(0, 3, 4, 1, 2).float())  # which 16 bits have not
    slopes = solved.to(x.dtype).permute(0, 3, 4, 1, 2)
    intercept = mean_x - (slopes * mean_guide[:, :, None]).sum(1)
    slopes = box_filter(slopes.flatten(1, 2), radius=radius).unflatten(1, (guides, channels))
    return (slopes * guide[:, :, None]).sum(1) + box_filter(intercept, radius=radius)


def bilateral_filter(x: Tensor, *, radius: int, sigma_spatial: float, sigma_range: float) -> Tensor:
    """Tomasi and Manduchi, Eq. 5, windows unfolded."""
    side = 2 * radius + 1
    near, cell = _windows(x, side), torch.arange(side) - radius
    distance = (cell.square()[:, None] + cell.square()).reshape(-1, 1, 1)
    unlike = (near - x[:, :, None]).square().sum(1)
    real = _windows(torch.ones_like(x[:1, :1]), side)[0, 0] > 0
    score = -unlike / (2 * sigma_range**2) - distance / (2 * sigma_spatial**2)
    weights = score.masked_fill(~real, -math.inf).softmax(1)
    return (near * weights[:, None]).sum(2)


def _convolve(x: Tensor, parameters: Any, **options: Any) -> Tensor:
    bias = parameters.get("bias")
    bias = None if bias is None else bias.to(x.dtype)
    return functional.conv2d(x, parameters["kernel"].permute(3, 2, 0, 1).to(x.dtype), bias, **options)


def fade(x: Tensor, guide: Tensor, parameters: Any, *, scale: int) -> Tensor:
    """FADE with its gate."""
    of = parameters["logits"]
    of_guide = _convolve(_convolve(guide, of["compress_guide"]), of["conv"], padding=1)
    of_x = _convolve(_convolve(x, of["compress_x"]), of["conv"], padding=1)
    kernels = (of_guide + functional.interpolate(of_x, scale_factor=scale)).softmax(1)
    gate = functional.interpolate(_convolve(x, parameters["gate"]).sigmoid(), scale_factor=scale)
    large = reassemble(x, kernels, scale=scale, kernel_size=math.isqrt(kernels.shape[1]))
    return gate * guide + (1 - gate) * large


def index_network(x: Tensor, parameters: Any, *, scale: int) -> Tensor:
    """The many-to-one index network of two layers in evaluation mode: its map for upsampling."""
    logits = []
    for _, of in sorted(parameters["columns"].items()):
        y = _convolve(x, of, stride=scale, padding=scale // 2)
        shape = (1, -1, 1, 1)
        gain, shift = (of["norm"][name].view(shape).to(x.dtype) for name in ("scale", "bias"))
        y = y / math.sqrt(1 + 1e-5) * gain + shift
        logits.append(_convolve(y.relu(), {"kernel": of["mix"]}))
    phases = torch.stack(logits, 2).flatten(1, 2)
    return functional.pixel_shuffle(phases.sigmoid(), scale)

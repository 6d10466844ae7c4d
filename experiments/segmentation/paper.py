"""What papers have on ADE20K: ReSFU's Tables I to IV and IX; Index Networks' Table 9; and on VOC: DKN's Table 6."""

from typing import Any

from experiments.segmentation.networks import NetworkConfig

# Network, upsampler, mIoU, mAcc, bIoU, millions of parameters.
_ROWS = """
pspnet/resnet50     bilinear 41.13 51.41 26.01 46.68; deconvolution 39.11 48.79 24.09 50.87; pixel_shuffle 38.31 47.78 23.77 50.88
pspnet/resnet50     stack_jbu 41.68 52.69 25.78 46.95; carafe 42.06 52.41 26.96 46.86; fade 41.80 52.07 26.77 46.78
pspnet/resnet50     sapa 41.76 52.32 26.99 46.72; dysample 41.36 51.94 26.10 46.68; resfu 42.64 53.26 27.89 46.73
pspnet/resnet101    bilinear 43.57 54.51 28.28 65.67; deconvolution 41.74 51.53 26.65 69.87; pixel_shuffle 41.39 50.95 26.64 69.87
pspnet/resnet101    stack_jbu 43.93 54.90 28.34 65.95; carafe 44.46 55.47 29.09 65.85; fade 43.84 53.63 29.36 65.77
pspnet/resnet101    sapa 44.25 55.24 29.18 65.71; dysample 43.99 54.63 28.33 65.67; resfu 45.19 56.29 29.87 65.72
segmenter/vit_s     bilinear 45.75 56.88 27.82 22.04; deconvolution 40.93 51.62 23.77 24.40; pixel_shuffle 41.24 52.37 23.87 24.41
segmenter/vit_s     stack_jbu 45.70 56.86 27.84 22.20; carafe 46.25 57.63 28.99 22.21; fade 45.71 56.81 28.72 22.14
segmenter/vit_s     sapa 45.79 57.36 28.97 22.09; dysample 45.78 56.88 28.37 22.09; resfu 46.97 57.91 29.96 22.11
segmenter/vit_l     bilinear 50.96 62.05 33.07 304.17; deconvolution 50.01 61.14 31.75 321.67; pixel_shuffle 50.50 61.49 31.45 321.69
segmenter/vit_l     stack_jbu 51.03 62.39 32.90 305.96; carafe 51.85 62.96 34.49 305.14; fade 50.07 61.79 33.32 305.08
segmenter/vit_l     sapa 51.20 62.46 33.31 304.99; dysample 52.04 63.27 34.17 305.02; resfu 52.56 63.63 35.27 304.98
segformer/mit_b1    bilinear 40.97 51.73 24.89 13.72; deconvolution 40.73 51.25 23.78 15.29; pixel_shuffle 39.69 50.11 23.55 15.30
segformer/mit_b1    stack_jbu 41.71 52.01 25.80 13.95; carafe 42.75 53.96 27.09 14.16; indexnet 41.79 52.40 25.45 26.32
segformer/mit_b1    fade 43.09 53.89 28.33 14.00; sapa 42.74 53.39 27.61 13.82; dysample 43.48 53.82 27.38 13.72
segformer/mit_b1    resfu 43.84 54.75 28.06 13.86
segformer/mit_b5    bilinear 49.13 60.69 32.32 82.01; deconvolution 49.76 61.39 32.95 83.52; pixel_shuffle 50.09 61.69 33.11 83.59
segformer/mit_b5    stack_jbu 49.53 60.72 32.89 82.24; carafe 50.45 62.29 33.78 82.45; indexnet 49.73 61.32 33.21 94.61
segformer/mit_b5    fade 50.43 61.99 34.51 82.29; sapa 49.61 61.11 34.02 82.11; dysample 50.14 61.51 33.93 82.01
segformer/mit_b5    resfu 50.89 62.00 34.40 82.15
maskformer/swin_b   nearest 52.56 65.76 37.41 101.83; bilinear 52.99 66.33 37.19 101.83; stack_jbu 53.53 66.57 37.53 101.91
maskformer/swin_b   carafe 53.70 66.79 38.31 102.05; fade 53.69 66.12 38.35 101.97; sapa 53.87 66.87 37.97 101.88
maskformer/swin_b   dysample 53.62 66.77 38.12 101.83; resfu 54.66 68.25 38.69 101.97
maskformer/swin_l   nearest 53.94 66.13 39.02 211.58; bilinear 53.86 66.21 38.46 211.58; stack_jbu 54.22 67.26 38.44 211.66
maskformer/swin_l   carafe 54.48 67.12 39.06 211.80; fade 54.47 66.59 39.46 211.72; sapa 54.41 66.40 39.20 211.63
maskformer/swin_l   dysample 54.17 67.13 39.22 211.58; resfu 55.33 68.64 39.58 211.72
"""  # noqa: E501
GFLOPS = {
    "bilinear": 32.77,
    "deconvolution": 35.16,
    "pixel_shuffle": 35.16,
    "stack_jbu": 35.32,
    "carafe": 32.96,
    "fade": 33.92,
    "sapa": 33.28,
    "dysample": 32.90,
    "resfu": 33.88,
}
"""Of Segmenter with ViT-S at 512 x 512: multiply-adds, of ReSFU and others without the weighted average itself."""

UPERNET = {
    ("bilinear", "bilinear"): (37.08, 78.29),
    ("indexnet", "bilinear"): (36.25, 78.23),
    ("bilinear", "indexnet"): (36.90, 78.27),
    ("indexnet", "indexnet"): (37.62, 78.29),
    ("carafe", "bilinear"): (37.76, 78.81),
    ("bilinear", "carafe"): (38.03, 78.51),
    ("carafe", "carafe"): (38.31, 78.90),
}
"""With MobileNetV2: upsamplers of the pyramid and of the fusion -> mIoU and pixel accuracy in per cent."""


DEEPLAB_VOC = {"deeplabv2": 70.69, "deeplabv2-crf": 71.98, "deeplabv2-dgf": 72.96, "deeplabv2-fdkn": 73.60}
"""DKN's supplement, Table 6, with ResNet-101: mIoU in per cent on PASCAL VOC 2012's 1,449 images for validation."""


def _values() -> dict[tuple[str, str], tuple[float, ...]]:
    found = {}
    for line in _ROWS.strip().splitlines():
        network, _, cells = line.partition(" ")
        for cell in cells.split(";"):
            name, *numbers = cell.split()
            found[network, name] = tuple(map(float, numbers))
    return found


RESULTS = _values()
"""(network/backbone, upsampler) -> mIoU, mAcc, bIoU in per cent on ADE20K, and millions of parameters."""


def paper_cells(config: NetworkConfig) -> dict[str, Any]:
    """The columns of the paper, empty where it has no such row."""
    key = f"{config.model}/{config.backbone}", config.upsampler or ""
    names = ("mIoU", "mAcc", "bIoU", "params")
    cells: dict[str, Any] = {f"paper {name}": "" for name in (*names, "aAcc")}
    if key[0] == "upernet/mobilenet_v2":
        pyramid = config.upsampler or "bilinear"
        found = UPERNET.get((pyramid, config.fusion_upsampler or pyramid), ())
        cells |= {f"paper {name}": f"{value:.2f}" for name, value in zip(("mIoU", "aAcc"), found, strict=False)}
    if config.model in DEEPLAB_VOC and config.backbone in (None, "resnet101"):
        cells["paper mIoU"] = f"{DEEPLAB_VOC[config.model]:.2f}"
    if key in RESULTS:
        cells |= {f"paper {name}": f"{value:.2f}" for name, value in zip(names, RESULTS[key], strict=True)}
    flops = GFLOPS.get(config.upsampler or "") if key[0] == "segmenter/vit_s" else None
    return cells | {"paper GFLOPs": "" if flops is None else f"{flops:.2f}"}

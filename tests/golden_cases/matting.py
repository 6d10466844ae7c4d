"""Matting networks of Index Networks: images of which official networks make alphas, not cut to [0, 1]."""

from tests.golden_cases.converted import Function, converted

OPERATORS: dict[str, Function] = {
    "IndexNet matting": converted("hlmobilenetv2", "x"),
    "MobileNetV2 U-Net with max-pooling indices": converted("hlmobilenetv2", "x"),
    "MobileNetV2 DeepLabv3+ matting": converted("hlmobilenetv2", "x"),
    "MobileNetV2 light-weight RefineNet matting": converted("hlmobilenetv2", "x"),
    "DeepMatting (VGG16 SegNet, first stage)": converted("hlvgg16", "x"),
}

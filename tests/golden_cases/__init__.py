"""One table of what the golden vectors check: operator name -> function of (inputs, params, config).

The names are those of the files. `config` holds the official constructor arguments, and under "mode" whether the case
is in "eval" or "train" mode; a function takes shapes and options from nowhere else, so that it serves any case of its
operator. It returns the output, or a dictionary of outputs; in training mode, where there are running statistics, a
pair: these, and the statistics after the call by their official names.
"""

from tests.golden_cases import (
    a2u_matting,
    attention,
    backbones,
    classical,
    detection,
    encoders,
    features,
    guided,
    indices,
    kernels,
    matting,
    matting_measures,
    metrics,
    monocular_depth,
    pyramids,
    sampling,
    segmentation,
    segmentation_inference,
    segmentation_masks,
    solvers,
    upsample_anything,
)
from tests.golden_cases.converted import Function

OPERATORS: dict[str, Function] = (
    a2u_matting.OPERATORS
    | attention.OPERATORS
    | backbones.OPERATORS
    | classical.OPERATORS
    | detection.OPERATORS
    | encoders.OPERATORS
    | features.OPERATORS
    | guided.OPERATORS
    | indices.OPERATORS
    | kernels.OPERATORS
    | matting.OPERATORS
    | matting_measures.OPERATORS
    | metrics.OPERATORS
    | monocular_depth.OPERATORS
    | pyramids.OPERATORS
    | sampling.OPERATORS
    | segmentation.OPERATORS
    | segmentation_inference.OPERATORS
    | segmentation_masks.OPERATORS
    | solvers.OPERATORS
    | upsample_anything.OPERATORS
)

# Outputs that are never in less than float32, whatever the inputs are in.
SCORES = {"Kernel_FDKN", "PCDC_Block", "SemiShift", "sim + softmax + atn"}

# Deep networks whose rectifiers stand behind batch statistics: float32 gradients are off by per cents, in PyTorch too.
# Their training cases run in float64, and within its bounds.
DOUBLE = {"torchvision vgg16_bn.features", "torchvision mobilenet_v2", "torchvision resnet50", "PSPNet (mmseg names)"}

# Gradients of its large convolution kernels take a minute without the compiler's optimisations, which tests leave out.
OPTIMISED = {"DKN"}

# Functions of NumPy arrays, or of counts, or that compute in float64: they are called as they are, and not compiled.
ON_HOST = {*detection.ON_HOST, *metrics.OPERATORS, *matting_measures.ON_HOST, *solvers.OPERATORS}
ON_HOST |= upsample_anything.ON_HOST

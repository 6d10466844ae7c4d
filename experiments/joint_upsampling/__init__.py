"""Depth maps upsampled under the guidance of an RGB image (Kundu et al., section IV-A; Kim et al., section 4).

train fits one network; evaluate compares trained networks with the methods without training on a folder of pairs; plots
draws what it found against seconds and parameters; ablation trains variants of one network and compares them; demo
trains and compares on a small scale, without any download. saliency upsamples saliency maps by the networks that were
trained for depth; denoise compares networks that were trained to remove noise from depth; filter lets these remove
noise or texture from an image. sensors gives solvers what real sensors measure.
"""

from collections.abc import Callable
from typing import Any

from experiments.joint_upsampling import (
    ablation,
    demo,
    evaluation,
    filtering,
    plots,
    presets,
    saliency,
    sensors,
    training,
)

COMMANDS: dict[str, Callable[..., Any]] = {
    "train": training.train,
    "evaluate": evaluation.evaluate,
    "plots": plots.plots,
    "ablation": ablation.ablation,
    "saliency": saliency.upsample_saliency,
    "denoise": filtering.denoise,
    "filter": filtering.filter_image,
    "sensors": sensors.sensors,
    "demo": demo.demo,
}
PRESETS: dict[str, dict[str, Callable[[], Any]]] = {
    "train": {
        "short": presets.short,
        "nyu": presets.nyu,
        "dkn": presets.dkn,
        "fdkn": presets.fdkn,
        "fdkn-short": presets.fdkn_short,
        "dmsg": presets.dmsg,
        "dmsg-short": presets.dmsg_short,
        "dkn-denoise": presets.dkn_denoise,
        "fdkn-denoise-short": presets.fdkn_denoise_short,
        "smoke": presets.smoke,
    },
    "evaluate": {
        "motorcycle": presets.motorcycle,
        "protocols": presets.evaluate_protocols,
        "smoke": presets.evaluate_smoke,
    },
    "plots": {"results": presets.plots_of_results},
    "ablation": {"table-4": presets.table_4, "smoke": presets.ablation_smoke},
    "saliency": {
        "scenes": presets.saliency_scenes,
        "dut-omron": presets.dut_omron,
        "smoke": presets.saliency_smoke,
    },
    "denoise": {"scenes": presets.denoise_scenes, "nyu": presets.denoise_nyu, "smoke": presets.denoise_smoke},
    "filter": {"noise": presets.filter_noise, "texture": presets.filter_texture, "smoke": presets.filter_smoke},
    "sensors": {"scenes": presets.sensors_scenes, "smoke": presets.sensors_smoke},
    "demo": {"minutes": presets.demo_minutes, "smoke": presets.demo_smoke},
}

"""Measures of label maps, masks and segments."""

import numpy as np

from jaxup import metrics
from tests.golden_cases.converted import Function

_BOUNDARIES = {"boundary_0.02": 0.02, "boundary_0.05": 0.05, "boundary_0.001": 0.001}


def segmentation(inputs, params, config):
    pred, label = inputs["pred"], inputs["label"]
    options = {"num_classes": config["num_classes"], "ignore_label": config["ignore_index"]}
    wide = options | {"ratio": config["dilation_ratio"]}
    confusion = metrics.confusion_matrix(pred, label, **options)
    areas = [metrics.boundary_areas(pred, label, keep_ignored=keep, **wide) for keep in (False, True)]
    masked = np.where(label == config["ignore_index"], -1, label.astype(np.int32))
    found = {
        name: ((masked[:1] == 1) & metrics.boundary_map(masked[:1], ratio=r))[0] for name, r in _BOUNDARIES.items()
    }
    return found | _scores(np.asarray(confusion), *map(np.asarray, areas))


def _scores(confusion, *areas):
    scores, diagonal = metrics.class_scores(confusion), confusion.diagonal()
    scores |= {"area_intersect": diagonal, "area_label": confusion.sum(1), "area_pred": confusion.sum(0)}
    scores |= {"area_union": confusion.sum(0) + confusion.sum(1) - diagonal, "confusion": confusion}
    scores |= {"Fscore": scores["Dice"], "Recall": scores["Acc"], "mFscore": scores["mDice"]}
    for suffix, (both, label, pred) in zip(("", "_noignore"), areas, strict=True):
        iou = metrics.boundary_iou(np.stack([both, label, pred]))
        scores |= {f"boundary_inter{suffix}": both, f"boundary_union{suffix}": label + pred - both}
        scores |= {f"boundary_iou{suffix}": iou, f"mboundary_iou{suffix}": np.nanmean(iou)}
    del scores["mPrecision"]
    return scores


def medical(inputs, params, config):
    x, truth = inputs["pred"].astype(bool), inputs["label"].astype(bool)
    scores = {"dice": metrics.dice(x, truth), "jaccard": metrics.jaccard(x, truth)}
    for name, spacing in (("unit", None), ("spacing", config["spacing"])):
        scores[f"hd_{name}"] = metrics.hausdorff_distance(x, truth, spacing=spacing)
        scores[f"hd95_{name}"] = metrics.hausdorff_distance(x, truth, spacing=spacing, percentile=95)
        scores[f"asd_{name}"] = metrics.surface_distance(x, truth, spacing=spacing)
    return scores


def panoptic(inputs, params, config):
    things = {int(k): bool(v["isthing"]) for k, v in config["categories"].items()}
    counts = sum(
        metrics.panoptic_counts(
            inputs["pred_ids"][i],
            inputs["gt_ids"][i],
            segments=[metrics.Segment(*map(int, row)) for row in inputs[f"pred_segments{i}"]],
            truth_segments=[metrics.Segment(*map(int, row)) for row in inputs[f"gt_segments{i}"]],
            categories=list(things),
            void=config["void_id"],
        )
        for i in range(len(inputs["gt_ids"]))
    )
    quality, thing = metrics.panoptic_quality(counts), np.array(list(things.values()))
    found = {"per_class": np.nan_to_num(quality), "counts": counts[:, 1:], "iou_sum": counts[:, 0]}
    for name, rows in (("All", quality), ("Things", quality[thing]), ("Stuff", quality[~thing])):
        found[name] = np.append(np.nanmean(rows, axis=0), (~np.isnan(rows[:, 0])).sum())
    return found


OPERATORS: dict[str, Function] = {
    "segmentation metrics": segmentation,
    "Dice and HD95": medical,
    "panoptic quality": panoptic,
}

"""The numbers of Lu et al., Index Networks, TPAMI 2020, Table 3."""

from typing import NamedTuple


class Row(NamedTuple):
    """A row of Table 3: its name, and its columns as printed there; "MSE" is the root of the mean squared error."""

    name: str
    psnr: str = ""
    ssim: str = ""
    mae: str = ""
    rmse: str = ""


ROWS = {
    "avg-nearest": Row("AvgPool-NN", "25.88", "0.9811", "0.0259", "0.0509"),
    "conv-bilinear": Row("Conv/2-Bilinear", "24.45", "0.9726", "0.0320", "0.0600"),
    "space-to-depth": Row("S2D-D2S", "28.93", "0.9901", "0.0204", "0.0358"),
    "conv-deconv": Row("Conv/2-Deconv/2", "28.75", "0.9903", "0.0187", "0.0366"),
    "conv-carafe": Row("Conv/2-CARAFE", "25.55", "0.9798", "0.0277", "0.0529"),
    "max-unpool": Row("MaxPool-MaxUnpool", "29.33", "0.9920", "0.0202", "0.0342"),
    "modelwise_o2o": Row("IP-IU, modelwise O2O", "37.83", "0.9989", "0.0089", "0.0128"),
    "holistic": Row("IP-IU, HIN", "45.93", "0.9998", "0.0032", "0.0051"),
    "m2o": Row("IP-IU, M2O", "48.37", "0.9999", "0.0026", "0.0038"),
    "a2u": Row("A2U"),
    "a2u-k1": Row("A2U, K = 1"),
}
"""By method of `jaxup.models.resampling`. A2U is of a later paper (Dai et al., CVPR 2021), with the same task."""

"""The numbers of Lu et al., Index Networks, TPAMI 2020, Table 7."""

COSTS: dict[str, tuple[str, float]] = {
    "dncnn": ("0.56M", 25.89),
    "max-unpool": ("7.09M", 18.14),
    "max-carafe": ("7.29M", 19.11),
    "avg-carafe": ("7.29M", 19.11),
    "conv-carafe": ("7.29M", 15.23),
    "holistic": ("+7.17K", 18.16),
    "holistic-nl": ("+0.69M", 19.30),
    "holistic-nl-c": ("+2.76M", 22.75),
    "modelwise_o2o": ("+16", 18.14),
    "modelwise_o2o-nl": ("+56", 18.14),
    "modelwise_o2o-nl-c": ("+152", 18.14),
    "shared_o2o": ("+48", 18.14),
    "shared_o2o-nl": ("+168", 18.14),
    "shared_o2o-nl-c": ("+456", 18.14),
    "unshared_o2o": ("+7.17K", 18.16),
    "unshared_o2o-nl": ("+25.1K", 18.19),
    "unshared_o2o-nl-c": ("+68.1K", 18.32),
    "m2o": ("+1.38M", 20.44),
    "m2o-nl": ("+3.45M", 23.88),
    "m2o-nl-c": ("+11.7M", 37.67),
}
"""Model -> parameters (of index networks those added to max-unpool's), and 2^30 multiply-adds for 224 x 224 pixels."""

# BSD68 at sigma = 15, 25 and 50, then Set12. Of index networks the last column is not at hand.
_ROWS = """
dncnn               31.74/0.9410 29.22/0.9015 26.23/0.8269 32.87/0.9544 30.42/0.9296 27.17/0.8775
max-unpool          30.74/0.9278 28.27/0.8752 24.88/0.7437 31.91/0.9395 28.98/0.8881 24.99/0.7485
max-carafe          25.70/0.7578 21.41/0.5670 15.40/0.2988 24.64/0.6997 20.19/0.4965 14.22/0.2489
avg-carafe          25.70/0.7578 21.43/0.5673 15.56/0.2968 24.64/0.6997 20.20/0.4968 14.26/0.2460
conv-carafe         25.70/0.7578 21.43/0.5672 15.50/0.2994 24.64/0.6997 20.20/0.4967 14.22/0.2496
holistic            31.13/0.9357 29.02/0.8997 26.29/0.8281 32.71/0.9536 30.28/0.9285
holistic-nl         31.15/0.9356 29.01/0.8999 26.29/0.8301 32.77/0.9537 30.36/0.9295
holistic-nl-c       31.20/0.9365 29.05/0.9004 26.30/0.8305 32.79/0.9541 30.37/0.9300
modelwise_o2o       31.22/0.9366 29.06/0.9002 25.84/0.8294 32.83/0.9545 30.42/0.9302
modelwise_o2o-nl    30.64/0.9255 27.39/0.8391 24.15/0.6776 31.92/0.9386 27.97/0.8330
modelwise_o2o-nl-c  30.87/0.9296 27.70/0.8617 24.09/0.6939 32.23/0.9432 28.31/0.8677
shared_o2o          31.14/0.9364 29.05/0.9002 26.32/0.8310 32.80/0.9542 30.41/0.9302
shared_o2o-nl       31.20/0.9365 28.97/0.9000 26.18/0.8272 32.83/0.9545 30.43/0.9302
shared_o2o-nl-c     31.22/0.9366 29.07/0.9004 26.31/0.8311 32.82/0.9543 30.41/0.9300
unshared_o2o        31.17/0.9366 28.25/0.8944 25.02/0.8235 32.80/0.9544 30.23/0.9286
unshared_o2o-nl     31.25/0.9368 29.06/0.9002 26.33/0.8306 32.77/0.9541 30.43/0.9303
unshared_o2o-nl-c   31.21/0.9364 27.68/0.8740 26.33/0.8312 32.83/0.9544 30.32/0.9288
m2o                 31.22/0.9365 29.03/0.9005 26.33/0.8316 32.82/0.9544 30.42/0.9302
m2o-nl              31.23/0.9368 29.07/0.9002 26.26/0.8278 32.84/0.9546 30.44/0.9304
m2o-nl-c            31.23/0.9365 29.06/0.8996 26.34/0.8315 32.82/0.9545 30.43/0.9301
"""

_COLUMNS = [(test, sigma) for test in ("bsd68", "set12") for sigma in (15.0, 25.0, 50.0)]


def _values(cells: list[str]) -> dict[tuple[str, float], tuple[float, float]]:
    pairs = [tuple(map(float, cell.split("/"))) for cell in cells]
    return {column: (pair[0], pair[1]) for column, pair in zip(_COLUMNS, pairs, strict=False)}


RESULTS = {line.split()[0]: _values(line.split()[1:]) for line in _ROWS.strip().splitlines()}
"""Model -> (test set, sigma) -> PSNR in dB and SSIM.

The SSIM is that of scikit-image for floats with its old default range of 2, unclipped: the three rows with CARAFE have,
on Set12, the values that the noisy images themselves have in this measure (24.62/0.699, 20.18/0.496, 14.16/0.249) and
in no other. Those networks return their input, then.
"""

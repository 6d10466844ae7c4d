"""Slow NumPy truth of the solvers of sparse depth: loops over pairs of pixels fill matrices that are then solved."""

import numpy as np

EIGHT = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if (dy, dx) != (0, 0)]
FOUR = [(dy, dx) for dy, dx in EIGHT if dy * dx == 0]


def pairs(height, width, offsets):
    """Every ordered pair of pixels that are neighbours."""
    for i, j in np.ndindex(height, width):
        for dy, dx in offsets:
            if 0 <= i + dy < height and 0 <= j + dx < width:
                yield (i, j), (i + dy, j + dx)


def laplacian(height, width, offsets, weight):
    """The matrix of sum_q w_pq (x_p - x_q), from a function of two pixels."""
    matrix = np.zeros((height, width, height, width))
    for p, q in pairs(height, width, offsets):
        w = weight(p, q)
        matrix[(*p, *p)] += w
        matrix[(*p, *q)] -= w
    return matrix.reshape(height * width, -1)


def solve(matrix, trust, x):
    """(diag(c) + L) u = c x for [H, W, C]."""
    c = trust.reshape(-1, 1)
    data = np.where(c > 0, x.reshape(len(c), -1), 0)
    return np.linalg.solve(np.diag(c[:, 0]) + matrix, c * data).reshape(x.shape)


def mrf(x, guide, trust, smoothness, sigma, form):
    least = 1e-6 if form == "paper" else 0
    matrix = laplacian(
        *x.shape[:2], FOUR, lambda p, q: np.exp(-np.sum((guide[p] - guide[q]) ** 2) / (2 * sigma**2)) + least
    )
    if form == "paper":
        return solve(smoothness * matrix, trust, x)
    data = np.where(trust > 0, x, 0)
    channels = [
        solve(smoothness * matrix @ matrix, trust * (y / y.max()) ** 2, y) for y in np.split(data, x.shape[2], axis=2)
    ]
    return np.concatenate(channels, axis=2)


def sd_filter(x, guide, trust, smoothness, mu, nu, steps, neighbours, form):
    """In the official form of images without three channels, which need no other colours."""
    offsets, least = {4: FOUR, 8: EIGHT}[neighbours], {"paper": 1e-6, "official": 1e-5}[form]

    def alike(image, rate):
        found = {pq: np.sum((image[pq[0]] - image[pq[1]]) ** 2) for pq in pairs(*x.shape[:2], offsets)}
        low, high = min(found.values(), default=0), max(found.values(), default=0)
        if form == "official" and high > low:
            found = {pq: (value - low) / (high - low) for pq, value in found.items()}
        return lambda p, q: np.exp(-rate * found[p, q]) + least

    static, u = alike(guide, mu), np.ones(x.shape)
    for _ in range(steps):
        dynamic = alike(u, nu)
        matrix = laplacian(*x.shape[:2], offsets, lambda p, q, d=dynamic: static(p, q) * d(p, q))
        u = solve(smoothness * matrix, trust, x)
    return u


def tgv(x, grey, weight, alpha, edges, steps, start, dual=20.0):
    """Literal primal-dual steps of one channel, [H, W], with every operator as a matrix and its adjoint transposed.

    `dual` is the dual step, and one over it the primal one.
    """
    height, width = x.shape
    n, (a0, a1) = height * width, alpha

    def difference(dy, dx):
        matrix = np.zeros((height, width, height, width))
        for p, q in pairs(height, width, [(dy, dx)]):
            matrix[(*p, *q)], matrix[(*p, *p)] = 1, -1
        return matrix.reshape(n, n)

    dx, dy = difference(0, 1), difference(1, 0)
    t11, t22, t12 = (t.ravel() for t in edge_tensor(grey, *edges))
    x, weight, u = x.ravel(), weight.ravel(), start.ravel()
    v, p, q = np.zeros((2, n)), np.zeros((2, n)), np.zeros((4, n))
    u_ahead, v_ahead = u, v
    free = np.stack([np.abs(dx).sum(1) > 0, np.abs(dy).sum(1) > 0])  # where there is a next pixel
    norm_u = a1**2 * (t11**2 + t22**2 + 2 * t12**2 + (t11 + t12) ** 2 + (t22 + t12) ** 2)
    norm_v = np.stack([a1**2 * (t**2 + t12**2) + 4 * a0**2 for t in (t22, t11)])

    def turn(a, b):
        return np.stack([t11 * a + t12 * b, t12 * a + t22 * b])

    for _ in range(steps):
        p = p + dual * a1 / 3 * turn(dx @ u_ahead - free[0] * v_ahead[0], dy @ u_ahead - free[1] * v_ahead[1])
        p = p / np.maximum(1, np.linalg.norm(p, axis=0))
        q = q + dual * a0 / 2 * np.stack([dx @ v_ahead[0], dy @ v_ahead[1], dy @ v_ahead[0], dx @ v_ahead[1]])
        q = q / np.maximum(1, np.linalg.norm(q, axis=0))
        turned = turn(*p)
        pull = 1 / (dual * norm_u) * (-a1 * (dx.T @ turned[0] + dy.T @ turned[1]) + weight * x)
        new_u = (u + pull) / (1 + weight / (dual * norm_u))
        bend = -np.stack([dx.T @ q[0] + dy.T @ q[2], dx.T @ q[3] + dy.T @ q[1]])
        new_v = v + (a1 * free * turned + a0 * bend) / (dual * norm_v)
        u_ahead, v_ahead = 2 * new_u - u, 2 * new_v - v
        u, v = new_u, new_v
    return u.reshape(height, width)


def edge_tensor(grey, beta, gamma):
    """Entries 11, 22 and 12, [H, W]; the border is repeated."""
    kernel = np.exp(-np.array([[2, 1, 2], [1, 0, 1], [2, 1, 2]]) / 0.5)
    kernel /= kernel.sum()
    padded, smooth, found = np.pad(grey, 1, mode="edge"), np.empty(grey.shape), np.empty((3, *grey.shape))
    for i, j in np.ndindex(grey.shape):
        smooth[i, j] = (padded[i : i + 3, j : j + 3] * kernel).sum()
    padded = np.pad(smooth, ((0, 1), (0, 1)), mode="edge")
    for i, j in np.ndindex(grey.shape):
        (a, b), (c, d) = padded[i : i + 2, j : j + 2]
        gradient = np.array([b - a + d - c, c - a + d - b])
        length = np.linalg.norm(gradient)
        normal = gradient / length if length >= 1e-8 else np.array([1.0, 0.0])
        t = max(1e-8, np.exp(-beta * length**gamma)) if length >= 1e-8 else 1.0
        across = np.array([-normal[1], normal[0]])
        tensor = t * np.outer(normal, normal) + np.outer(across, across)
        found[:, i, j] = tensor[0, 0], tensor[1, 1], tensor[0, 1]
    return found


def park(x, guide, trust, guess, labels, smoothness, distant, colour, edge, depth, structure, radius):
    """An RGB guide [H, W, 3], labels of segments [H, W]."""
    size = x.shape[:2]
    yuv = np.stack(
        [
            guide @ [0.299, 0.587, 0.114],
            guide @ [-0.168736, -0.331264, 0.5],
            guide @ [0.5, -0.418688, -0.081312],
        ],
        axis=2,
    )
    padded, gradient, tensor = np.pad(yuv[..., 0], 1, mode="edge"), np.empty((*size, 2)), np.empty((*size, 2, 2))
    for i, j in np.ndindex(size):
        gradient[i, j] = (padded[i + 1, j + 2] - padded[i + 1, j]) / 2, (padded[i + 2, j + 1] - padded[i, j + 1]) / 2
    for i, j in np.ndindex(size):
        near = gradient[max(0, i - 1) : i + 2, max(0, j - 1) : j + 2].reshape(-1, 2)
        tensor[i, j] = near.T @ near / len(near) + 1e-4 * np.eye(2)

    def local(p, q):
        w = np.exp(
            -np.sum((yuv[p] - yuv[q]) ** 2) / (2 * colour**2) - np.sum((guess[p] - guess[q]) ** 2) / (2 * depth**2)
        )
        w *= 1 if labels[p] == labels[q] else 0.7
        return w / np.sqrt(1 + (np.sum(gradient[p] ** 2) + np.sum(gradient[q] ** 2)) / edge**2) + 1e-6

    def along(p, q):
        step = np.array([q[1] - p[1], q[0] - p[0]])
        both = np.mean([np.exp(-(step @ tensor[r] @ step) / structure**2) for r in (p, q)])
        return np.exp(-np.sum((yuv[p] - yuv[q]) ** 2) / (2 * colour**2)) * both + 1e-6

    def shared(offsets, weight):
        total = np.full(size, 0.01)
        for p, q in pairs(*size, offsets):
            total[p] += weight(p, q)
        return laplacian(*size, offsets, lambda p, q: weight(p, q) * (1 / total[p] + 1 / total[q]))

    span = range(-radius, radius + 1)
    window = [(dy, dx) for dy in span for dx in span if (dy, dx) != (0, 0)]
    return solve(smoothness * shared(EIGHT, local) + distant * shared(window, along), trust, x)

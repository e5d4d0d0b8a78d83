"""A bounding-box tree per group, in numba.

Boxes are kept in the data's own precision and coordinates, so a distance between boxes, summed in the
canonical order, is never above the canonical distance of two points inside: rounding is monotone, every
term is at most the point's term, and so is every partial sum. No safety margin is needed.
"""

from __future__ import annotations

import numpy as np

from stabilitykit.search.jit import jit

SAMPLE = 16
# With more depths than this, a node looks for its widest coordinate at every THIRD depth only; nodes take turns.
THIRD = 3


@jit
def spread_of_sample(
    values: np.ndarray,
    depths: np.ndarray,
    order: np.ndarray,
    start: int,
    stop: int,
    step: int,
    turn: int,
    turns: int,
    total: np.ndarray,
) -> tuple[float, int, int]:
    """The coordinate (depth, k) in which every step-th image spreads most, and its spread.

    Looks at every turns-th depth, beginning with turn; `total` is work space for one readout.

    Spread is the sum of absolute deviations from the first image: a range would follow single outliers, of
    which saturated readouts have many. It is 0 only if all sampled images are identical.

    values (depths, images, readout) float32 or float64; depths (D,), order (images,) int64; total float64.
    """
    widest = 0.0
    best_t = 0
    best_k = 0
    for d in range(turn, depths.shape[0], turns):
        t = depths[d]
        center = values[t, order[start]]
        total[:] = 0.0
        for p in range(start + step, stop, step):
            row = values[t, order[p]]
            for k in range(total.shape[0]):
                total[k] += abs(np.float64(row[k]) - np.float64(center[k]))
        for k in range(total.shape[0]):
            if total[k] > widest:
                widest = total[k]
                best_t = t
                best_k = k
    return widest, best_t, best_k


@jit
def median_of_sample(
    values: np.ndarray, order: np.ndarray, start: int, stop: int, step: int, t: int, k: int, buffer: np.ndarray
) -> float:
    """The middle of every step-th image's coordinate (t, k).

    values, buffer (SAMPLE,): float32 or float64; order (images,) int64.
    """
    count = 0
    for p in range(start, stop, step):
        if count == buffer.shape[0]:
            break
        x = values[t, order[p], k]
        q = count
        while q > 0 and buffer[q - 1] > x:
            buffer[q] = buffer[q - 1]
            q -= 1
        buffer[q] = x
        count += 1
    middle: float = buffer[count // 2]
    return middle


@jit
def partition(
    values: np.ndarray, order: np.ndarray, start: int, stop: int, t: int, k: int, pivot: float, inclusive: bool
) -> int:
    """Reorder so that coordinates below (or equal to, if inclusive) the pivot come first; their number.

    values (depths, images, readout) float32 or float64; order (images,) int64.
    """
    # Without branches on the data: half of them would be mispredicted.
    left = start
    for p in range(start, stop):
        image = order[p]
        x = values[t, image, k]
        first = x <= pivot if inclusive else x < pivot
        order[p] = order[left]
        order[left] = image
        left += 1 if first else 0
    return left


@jit
def build_group(
    values: np.ndarray,
    depths: np.ndarray,
    order: np.ndarray,
    start: int,
    stop: int,
    leaf: int,
    copies: bool,
    node_start: np.ndarray,
    node_stop: np.ndarray,
    node_child: np.ndarray,
) -> int:
    """Build the tree of the images order[start:stop] into the node arrays; the number of nodes.

    A node's children are node_child and node_child + 1, or it is a leaf (-1). Identical images end in one
    leaf of any size, in ascending order. Without `copies` only the lowest index of them is kept: no other
    copy can be in the lexicographically smallest closest pair.

    values (depths, images, readout) float32 or float64; depths (D,), order (images,) and the nodes' arrays int64.
    """
    buffer = np.empty(SAMPLE, dtype=values.dtype)
    total = np.empty(values.shape[2])
    turns = THIRD if len(depths) > THIRD else 1
    nodes = 1
    node_start[0] = start
    node_stop[0] = stop
    node_child[0] = -1
    todo = np.empty(64, dtype=np.int64)
    todo[0] = 0
    waiting = 1
    while waiting > 0:
        waiting -= 1
        node = todo[waiting]
        begin = node_start[node]
        end = node_stop[node]
        count = end - begin
        if count <= leaf:
            continue
        step = max(1, count // SAMPLE)
        width, t, k = spread_of_sample(values, depths, order, begin, end, step, node % turns, turns, total)
        if width == 0.0:
            step = 1
            width, t, k = spread_of_sample(values, depths, order, begin, end, step, 0, 1, total)
            if width == 0.0:
                order[begin:end] = np.sort(order[begin:end])
                if not copies:
                    node_stop[node] = begin + 1
                continue
            step = max(1, count // SAMPLE)
        pivot = median_of_sample(values, order, begin, end, step, t, k, buffer)
        middle = partition(values, order, begin, end, t, k, pivot, True)
        if middle == end:
            middle = partition(values, order, begin, end, t, k, pivot, False)
        node_child[node] = nodes
        node_start[nodes] = begin
        node_stop[nodes] = middle
        node_child[nodes] = -1
        node_start[nodes + 1] = middle
        node_stop[nodes + 1] = end
        node_child[nodes + 1] = -1
        # The larger part waits below the smaller one, so that the stack stays logarithmic.
        if middle - begin > end - middle:
            todo[waiting] = nodes
            todo[waiting + 1] = nodes + 1
        else:
            todo[waiting] = nodes + 1
            todo[waiting + 1] = nodes
        waiting += 2
        nodes += 2
    return nodes


@jit
def build_groups(
    values: np.ndarray,
    depths: np.ndarray,
    order: np.ndarray,
    starts: np.ndarray,
    first: int,
    last: int,
    leaf: int,
    copies: bool,
    node_start: np.ndarray,
    node_stop: np.ndarray,
    node_child: np.ndarray,
    counts: np.ndarray,
) -> None:
    """build_group for the groups first..last-1; group g owns the nodes from 2 * starts[g].

    values (depths, images, readout) float32 or float64; starts (groups + 1,), counts (groups,) int64.
    """
    for g in range(first, last):
        begin = starts[g]
        end = starts[g + 1]
        if begin == end:
            counts[g] = 0
            continue
        counts[g] = build_group(
            values,
            depths,
            order,
            begin,
            end,
            leaf,
            copies,
            node_start[2 * begin : 2 * end],
            node_stop[2 * begin : 2 * end],
            node_child[2 * begin : 2 * end],
        )


@jit
def fill_boxes(
    values: np.ndarray,
    depths: np.ndarray,
    order: np.ndarray,
    node_start: np.ndarray,
    node_stop: np.ndarray,
    node_child: np.ndarray,
    first: int,
    last: int,
    low: np.ndarray,
    high: np.ndarray,
) -> None:
    """Boxes of the nodes first..last-1 (one or more whole trees, children after parents).

    values (depths, images, readout) float32 or float64; low, high (nodes, D, readout).
    """
    readout = values.shape[2]
    for node in range(last - 1, first - 1, -1):
        child = node_child[node]
        for d in range(depths.shape[0]):
            if child >= 0:
                for k in range(readout):
                    low[node, d, k] = min(low[child, d, k], low[child + 1, d, k])
                    high[node, d, k] = max(high[child, d, k], high[child + 1, d, k])
                continue
            rows = values[depths[d]]
            image = order[node_start[node]]
            for k in range(readout):
                low[node, d, k] = rows[image, k]
                high[node, d, k] = rows[image, k]
            for p in range(node_start[node] + 1, node_stop[node]):
                image = order[p]
                for k in range(readout):
                    x = rows[image, k]
                    low[node, d, k] = min(low[node, d, k], x)
                    high[node, d, k] = max(high[node, d, k], x)

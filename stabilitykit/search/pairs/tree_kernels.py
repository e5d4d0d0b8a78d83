"""The dual-tree search of closest pairs, in numba.

Two nodes are dropped only if the distance of their boxes is above the best value known for the two groups;
equality goes on, because an equal pair with lower indices would win. Once one node is small its images
descend the other tree one by one, and images that meet are compared depth by depth until one decides.
"""

from __future__ import annotations

import numpy as np

from stabilitykit.search.jit import jit
from stabilitykit.search.metric import MAX, MEAN, reduced, squared
from stabilitykit.search.pairs.bounds import (
    EPS,
    LONG,
    images_value,
    limit_of,
    nodes_bound,
    point_bound,
    squared_in_any_order,
)

SMALL = 16


@jit
def keep(
    found: float, i: int, j: int, cell: int, bound: np.ndarray, value: np.ndarray, first: np.ndarray, second: np.ndarray
) -> bool:
    """Store the pair in the cell if it is better: smaller, or equal with lower indices.

    bound, value (cells,) float64; first, second (cells,) int64.
    """
    one = min(i, j)
    two = max(i, j)
    if found > value[cell]:
        return False
    if found == value[cell] and (one > first[cell] or (one == first[cell] and two >= second[cell])):
        return False
    value[cell] = found
    first[cell] = one
    second[cell] = two
    if found < bound[cell]:
        bound[cell] = found
    return True


@jit
def query_points(
    values: np.ndarray,
    boxed: np.ndarray,
    depths: np.ndarray,
    forest: tuple[np.ndarray, ...],
    p: int,
    root: int,
    code: int,
    task: np.ndarray,
    owner: int,
    owners: int,
    bound: np.ndarray,
    value: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    stack: np.ndarray,
) -> bool:
    """Search the tree below `root` for every image of node p; False if the stack was too short.

    values (depths, images, readout) float32 or float64; task (6,), stack (size,) int64; the rest as in `search_tasks`.
    """
    order, start, stop, child, low, high = forest
    cell = task[2]
    total = values.shape[0]
    best = min(bound[cell], value[cell])
    limit = limit_of(best, code, total)
    for x in range(start[p], stop[p]):
        i = order[x]
        if owners > 1 and task[5] == 0 and i % owners != owner:
            continue
        mine = values[:, i]
        if point_bound(mine, boxed, low, high, root, code, limit, task[3], task[4]) > limit:
            continue
        stack[0] = root
        waiting = 1
        while waiting > 0:
            waiting -= 1
            q = stack[waiting]
            near = child[q]
            if near >= 0:
                if waiting + 2 > stack.shape[0]:
                    return False
                gap_near = point_bound(mine, boxed, low, high, near, code, limit, task[3], task[4])
                gap_far = point_bound(mine, boxed, low, high, near + 1, code, limit, task[3], task[4])
                far = near + 1
                if gap_far < gap_near:
                    near, far = far, near
                    gap_near, gap_far = gap_far, gap_near
                if gap_far <= limit:
                    stack[waiting] = far
                    waiting += 1
                if gap_near <= limit:
                    stack[waiting] = near
                    waiting += 1
                continue
            for y in range(start[q], stop[q]):
                j = order[y]
                if owners > 1 and task[5] == 1 and j % owners != owner:
                    continue
                found = images_value(values, i, j, depths, code, limit, task[3], task[4])
                if found < 0.0 or found > best:
                    continue
                if keep(found, i, j, cell, bound, value, first, second):
                    best = min(bound[cell], found)
                    limit = limit_of(best, code, total)
    return True


@jit
def search_tasks(
    values: np.ndarray,
    boxed: np.ndarray,
    depths: np.ndarray,
    forest: tuple[np.ndarray, ...],
    tasks: np.ndarray,
    code: int,
    owner: int,
    owners: int,
    bound: np.ndarray,
    value: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    todo: np.ndarray,
    stack: np.ndarray,
    done: np.ndarray,
) -> bool:
    """Run tasks and keep the answers in the cells of value, first, second.

    The answers: bound, value (cells,) float64; first, second (cells,) int64.

    Arguments:
        boxed, depths: the depths of the boxes and the depths that count (for "min" the same one depth).
        tasks: (tasks, 5): node of the lower group, node of the higher group, cell, the groups' own readout
            coordinates (or -1, -1).
        owner, owners: keep only pairs whose image of the lower group is congruent to owner.
        bound: (cells,) shared by all threads; a stale entry costs time only, never an answer.
        todo, stack: work space; done[0] counts finished tasks. False if the work space was too small.
    """
    _, start, stop, child, low, high = forest
    task = np.empty(6, dtype=np.int64)
    while done[0] < tasks.shape[0]:
        task[:5] = tasks[done[0]]
        cell = task[2]
        todo[0, 0] = task[0]
        todo[0, 1] = task[1]
        waiting = 1
        while waiting > 0:
            if waiting + 2 > todo.shape[0]:
                return False
            waiting -= 1
            p = todo[waiting, 0]
            q = todo[waiting, 1]
            limit = limit_of(min(bound[cell], value[cell]), code, values.shape[0])
            if nodes_bound(low, high, p, q, code, limit, task[3], task[4]) > limit:
                continue
            size_p = stop[p] - start[p]
            size_q = stop[q] - start[q]
            if size_p <= SMALL or size_q <= SMALL or (child[p] < 0 and child[q] < 0):
                task[5] = 0
                if size_p > size_q:
                    task[5] = 1
                    p, q = q, p
                if not query_points(
                    values, boxed, depths, forest, p, q, code, task, owner, owners, bound, value, first, second, stack
                ):
                    return False
                continue
            split_p = child[q] < 0 or (child[p] >= 0 and size_p >= size_q)
            near = child[p] if split_p else child[q]
            far = near + 1
            if split_p:
                gap_near = nodes_bound(low, high, near, q, code, limit, task[3], task[4])
                gap_far = nodes_bound(low, high, far, q, code, limit, task[3], task[4])
            else:
                gap_near = nodes_bound(low, high, p, near, code, limit, task[3], task[4])
                gap_far = nodes_bound(low, high, p, far, code, limit, task[3], task[4])
            if gap_far < gap_near:
                near, far = far, near
                gap_near, gap_far = gap_far, gap_near
            if gap_far <= limit:
                todo[waiting, 0] = far if split_p else p
                todo[waiting, 1] = q if split_p else far
                waiting += 1
            if gap_near <= limit:
                todo[waiting, 0] = near if split_p else p
                todo[waiting, 1] = q if split_p else near
                waiting += 1
        done[0] += 1
    return True


@jit
def probe(
    values: np.ndarray,
    boxed: np.ndarray,
    forest: tuple[np.ndarray, ...],
    root: np.ndarray,
    groups: np.ndarray,
    images: np.ndarray,
    width: int,
    code: int,
    bound: np.ndarray,
    budget: float,
) -> float:
    """Steps that some images need to search the trees of all other groups; -1 once above the budget.

    One step is a node or an image met. Decides between methods only, so it skips no pair for good.

    values (depths, images, readout) float32 or float64;
    root (groups,), groups, images (n,) int64; bound (cells,) float64.
    """
    _, start, stop, child, low, high = forest
    stack = np.empty(1 << 16, dtype=np.int64)
    steps = 0.0
    for i in images:
        for g in range(len(root)):
            if root[g] < 0 or g == groups[i]:
                continue
            cell = 0
            if width > 0:
                cell = min(g, groups[i]) * width + max(g, groups[i])
            limit = limit_of(bound[cell], code, values.shape[0])
            stack[0] = root[g]
            waiting = 1
            while waiting > 0:
                waiting -= 1
                q = stack[waiting]
                steps += 1
                if steps > budget:
                    return -1.0
                if point_bound(values[:, i], boxed, low, high, q, code, limit, -1, -1) > limit:
                    continue
                if child[q] < 0:
                    # Long readouts are dear to compare, and without a bound every image met is measured.
                    cost = 0.25 if values.shape[2] < LONG or limit == 0.0 else 0.25 + 0.008 * values.shape[2]
                    cost += 0.0 if limit < np.inf else 0.04 * values.shape[2]
                    steps += (stop[q] - start[q]) * cost
                elif waiting + 2 <= len(stack):
                    stack[waiting] = child[q]
                    stack[waiting + 1] = child[q] + 1
                    waiting += 2
    return steps


@jit
def block_of(values: np.ndarray, i: int, j: int, code: int, value: float) -> int:
    """The depth that `reduced` names of the pair whose canonical value is known, with as few depths measured as can be.

    values (depths, images, readout) float32 or float64, of a long readout.
    """
    slack = 8 * (values.shape[2] + 8) * EPS
    least = values.shape[2] * 1e-323  # squares that underflow
    goal = value * value
    if code == MEAN:
        goal = np.inf
        for t in range(values.shape[0]):
            goal = min(goal, squared(values[t, i], values[t, j]))
        value = np.sqrt(goal)
    stop = np.inf if code == MAX else goal * (1.0 + slack) + least
    for t in range(values.shape[0]):
        square = squared_in_any_order(values[t, i], values[t, j], stop)
        if square > stop or (code == MAX and square < goal * (1.0 - slack) - least):
            continue
        if np.sqrt(squared(values[t, i], values[t, j])) == value:
            return t
    return 0


@jit
def finish(
    values: np.ndarray,
    code: int,
    start: int,
    stop: int,
    value: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    block: np.ndarray,
) -> None:
    """Measure the winners of cells start..stop-1 once more over all depths in the canonical order; their block.

    Values of long readouts are canonical already, and only the block is looked for.

    values (depths, images, readout) float32 or float64.
    value (cells,) float64; first, second, block (cells,) int64.
    """
    for cell in range(start, stop):
        if first[cell] >= 0:
            if values.shape[2] >= LONG:
                block[cell] = block_of(values, first[cell], second[cell], code, value[cell])
            else:
                value[cell], block[cell] = reduced(values, first[cell], second[cell], code)


@jit
def sample_distances(values: np.ndarray, sample: np.ndarray, groups: np.ndarray, found: np.ndarray) -> int:
    """found[t, n]: squared distance at depth t of the n-th pair of different groups in the sample.

    values (depths, images, readout) float32 or float64;
    sample (n,), groups (images,) int64; found (depths, pairs) float64.
    """
    count = 0
    for x in range(sample.shape[0]):
        for y in range(x):
            if groups[sample[x]] == groups[sample[y]] or count == found.shape[1]:
                continue
            for t in range(values.shape[0]):
                found[t, count] = squared_in_any_order(values[t, sample[x]], values[t, sample[y]], np.inf)
            count += 1
    return count


@jit
def measure(
    values: np.ndarray,
    rows: np.ndarray,
    columns: np.ndarray,
    code: int,
    cell: int,
    bound: np.ndarray,
    value: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
) -> None:
    """Measure the pairs (rows[n], columns[n]) canonically and keep the best in the cell.

    values (depths, images, readout) float32 or float64; rows, columns (n,) int64.
    """
    for n in range(len(rows)):
        found, _ = reduced(values, rows[n], columns[n], code)
        keep(found, rows[n], columns[n], cell, bound, value, first, second)

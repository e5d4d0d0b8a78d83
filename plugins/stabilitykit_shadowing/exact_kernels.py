"""Sets of images as rows of bits, in compiled code: those far from an image, and unions over near images."""

from __future__ import annotations

import numpy as np

from stabilitykit.search.jit import jit

_FULL = np.uint64(2**64 - 1)


@jit
def far_rows(columns, first, last, limit, sets):
    """sets[t, i] for i = first..last-1: bit x says that the squared distance of i and x at depth t exceeds the limit.

    Arguments:
        columns: float64 (T+1, K, N).
        sets: uint64 (T+1, N, words), written; bits past the last image are 1.
    """
    depths, dimension, images = columns.shape
    squares = np.empty(64)
    for t in range(depths):
        for i in range(first, last):
            for word in range(sets.shape[2]):
                begin = 64 * word
                width = min(64, images - begin)
                squares[:] = 0.0
                for k in range(dimension):
                    own = columns[t, k, i]
                    line = columns[t, k, begin : begin + width]
                    for n in range(width):
                        difference = own - line[n]
                        squares[n] += difference * difference
                bits = np.uint64(0)
                for n in range(width):
                    bits |= np.uint64(squares[n] > limit) << np.uint64(n)
                if width < 64:
                    bits |= _FULL << np.uint64(width)
                sets[t, i, word] = bits


@jit
def unite_nodes(rows, order, start, stop, child, nodes):
    """nodes[q]: union of the rows of all images of node q of a tree; children have larger numbers than parents."""
    for q in range(len(start) - 1, -1, -1):
        if child[q] >= 0:
            for w in range(rows.shape[1]):
                nodes[q, w] = nodes[child[q], w] | nodes[child[q] + 1, w]
        else:
            nodes[q] = rows[order[start[q]]]
            for y in range(start[q] + 1, stop[q]):
                for w in range(rows.shape[1]):
                    nodes[q, w] |= rows[order[y], w]


@jit
def add(row, more):
    """row |= more; is it full now?"""
    together = _FULL
    for w in range(len(row)):
        row[w] |= more[w]
        together &= row[w]
    return together == _FULL


@jit
def unite_rows(first, last, points, limit, own, rows, nodes, order, start, stop, child, low, high, found):
    """found[i] = own[i] united with the rows of all images within the limit of image i, for i = first..last-1.

    Rounding is monotone, so squares summed in one order never lie outside those to the nearest and to the farthest
    point of a box: a box is passed over or taken as a whole exactly where all its images would be.

    Arguments:
        points: float64 (N, K). limit: of the squared distance.
        own, rows, found: uint64 (N, words). nodes: of ``unite_nodes``.
    """
    stack = np.empty(512, dtype=np.int64)
    for i in range(first, last):
        point = points[i]
        row = found[i]
        row[:] = own[i]
        stack[0] = 0
        waiting = 1
        while waiting > 0:
            waiting -= 1
            q = stack[waiting]
            nearest = 0.0
            farthest = 0.0
            for k in range(len(point)):
                below = low[q, 0, k] - point[k]
                above = point[k] - high[q, 0, k]
                gap = max(below, above, 0.0)
                nearest += gap * gap
                reach = max(abs(below), abs(above))
                farthest += reach * reach
            if nearest > limit:
                continue
            if farthest <= limit:
                if add(row, nodes[q]):
                    break
                continue
            if child[q] >= 0:
                if waiting + 2 > len(stack):
                    longer = np.empty(2 * len(stack), dtype=np.int64)
                    longer[: len(stack)] = stack
                    stack = longer
                stack[waiting] = child[q]
                stack[waiting + 1] = child[q] + 1
                waiting += 2
                continue
            full = False
            for y in range(start[q], stop[q]):
                j = order[y]
                square = 0.0
                for k in range(len(point)):
                    difference = point[k] - points[j, k]
                    square += difference * difference
                if square <= limit and add(row, rows[j]):
                    full = True
                    break
            if full:
                break

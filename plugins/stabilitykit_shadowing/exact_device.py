"""The sets of `exact_sets` on a device of torch: the same bits.

Squares are summed on the device in float64; the few pairs whose square lies within rounding of the limit are decided
by the canonical sum, on the CPU. Unions over near images are products of matrices of zeros and ones.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from stabilitykit.search.device.products import exact_products, relative_slack

# Numbers of one tile of squares.
NUMBERS = {"cpu": 1 << 20, "cuda": 1 << 26}
# Squares below it have lost digits, or are no longer told from zero.
TINY = 1e-280


class DeviceSets:
    """A sample on a device.

    Arguments:
        columns: float64 (T+1, K, N), the sample; on the CPU it decides where the device may not.
        device: a torch device that computes in float64.
    """

    def __init__(self, columns: np.ndarray, device: str) -> None:
        self.columns, self.device = columns, torch.device(device)
        self.depths, readout, self.images = columns.shape
        self.held = torch.from_numpy(columns).to(self.device)
        self.slack = relative_slack(1, readout)
        self.rows = max(1, NUMBERS.get(self.device.type, 1 << 26) // self.images)

    def far_sets(self, limit: float) -> np.ndarray:
        """The images whose squared distance from image i at depth t exceeds ``limit`` -> uint64 (T+1, N, words)."""
        images = self.images
        sets = np.empty((self.depths, images, -(-images // 64)), dtype=np.uint64)
        with exact_products():
            for t in range(len(sets)):
                for first in range(0, images, self.rows):
                    last = min(first + self.rows, images)
                    sets[t, first:last] = self._packed(~self._within(t, first, last, limit))
        return sets

    def escapable_sets(self, far: np.ndarray, limit: float) -> np.ndarray:
        """K_t(i) = far_t(i) united with K_{t+1}(j) of all j within ``limit`` of i at depth t+1, squared.

        far uint64 (T+1, N, words) -> the same.
        """
        images = self.images
        found = np.empty_like(far)
        found[-1] = far[-1]
        with exact_products():
            for t in range(len(far) - 2, -1, -1):
                found[t] = far[t] | found[t + 1]  # everyone is near itself
                following = self._unpacked(found[t + 1])
                for first in range(0, images, self.rows):
                    last = min(first + self.rows, images)
                    near = self._within(t + 1, first, last, limit)
                    several = (near.sum(dim=1) > 1).nonzero()[:, 0]
                    if len(several):
                        # A sum of ones is above zero however it is rounded.
                        reached = near[several].to(following.dtype) @ following > 0
                        found[t, first + several.cpu().numpy()] |= self._packed(reached)
        return found

    def _within(self, t: int, first: int, last: int, limit: float) -> torch.Tensor:
        """bool (last - first, N): is the canonical squared distance at depth t at most ``limit``?"""
        if math.isinf(limit):
            return torch.ones((last - first, self.images), dtype=torch.bool, device=self.device)
        squares = torch.zeros((last - first, self.images), dtype=torch.float64, device=self.device)
        for column in self.held[t]:
            squares += (column[first:last, None] - column).square_()
        within = squares <= limit
        unsure = ((squares - limit).abs() <= self.slack * limit + TINY).nonzero().cpu().numpy()
        if len(unsure):
            i, j = unsure[:, 0] + first, unsure[:, 1]
            canonical = np.zeros(len(i))
            for column in self.columns[t]:
                canonical += np.square(column[i] - column[j])
            places = torch.from_numpy(unsure).to(self.device)
            within[places[:, 0], places[:, 1]] = torch.from_numpy(canonical <= limit).to(self.device)
        return within

    def _packed(self, bits: torch.Tensor) -> np.ndarray:
        """bool (n, N) as uint64 (n, words); bits past the last image are 1."""
        images = bits.shape[1]
        padded = torch.ones((len(bits), 64 * -(-images // 64)), dtype=torch.uint8, device=self.device)
        padded[:, :images] = bits
        weights = (1 << torch.arange(8, device=self.device)).to(torch.uint8)
        octets = (padded.reshape(len(bits), -1, 8) * weights).sum(dim=2, dtype=torch.uint8)
        return octets.cpu().numpy().view(np.dtype("<u8")).astype(np.uint64, copy=False)

    def _unpacked(self, rows: np.ndarray) -> torch.Tensor:
        """uint64 (N, words) as zeros and ones (N, N) in the dtype of the products."""
        octets = torch.from_numpy(np.ascontiguousarray(rows).astype("<u8", copy=False).view(np.uint8)).to(self.device)
        bits = (octets[:, :, None] >> torch.arange(8, device=self.device).to(torch.uint8)) & 1
        dtype = torch.bfloat16 if self.device.type == "cuda" else torch.float32
        return bits.reshape(len(rows), -1)[:, : self.images].to(dtype)

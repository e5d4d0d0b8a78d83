#!/bin/sh
# Everything that runs on a GPU, beside the same work on this machine's CPU: under 10 minutes on a GPU machine.
# Writes benchmarks/results/gpu.md, and fails where an answer of the device is not the CPU's to the last bit.
#
#     benchmarks/gpu.sh [--device cuda] [--small]
#
# PYTHON names the interpreter (default: python).
set -e
cd "$(dirname "$0")/.."
exec "${PYTHON:-python}" benchmarks/gpu.py "$@"

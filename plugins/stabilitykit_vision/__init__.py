"""Datasets: digits, MNIST, Fashion-MNIST, CIFAR-10, folders of images, npz arrays."""

from __future__ import annotations

from stabilitykit import Component, Option, hookimpl

ROOT = Option("root", "path", help="folder that holds the files; default: $STABILITYKIT_DATA, else ./data")
DOWNLOAD = Option("download", "bool", default=False, help="fetch missing files into root (never done unasked)")
PAD = Option("pad", "int", default=0, minimum=0, maximum=512, help="zeros added on each edge")


def _split(*choices: str) -> Option:
    return Option("split", choices=choices, default="test", help="which part")


@hookimpl
def stabilitykit_datasets() -> list[Component]:
    """The datasets of the paper, an embedded one, and two ways to bring one's own."""
    mnist_splits = _split("train", "test", "all", "train50k", "validation10k")
    return [
        Component(
            "dataset",
            "digits",
            "stabilitykit_vision.digits:digits",
            "scikit-learn's handwritten digits (embedded), 1,200 train and 597 test images as 3x32x32",
            options=(_split("train", "test", "all"),),
            primary="split",
        ),
        Component(
            "dataset",
            "mnist",
            "stabilitykit_vision.mnist:mnist",
            "MNIST, padded to 32x32 and repeated to 3 channels",
            options=(ROOT, mnist_splits, DOWNLOAD),
            primary="root",
            reference="section 3",
        ),
        Component(
            "dataset",
            "fashion-mnist",
            "stabilitykit_vision.mnist:fashion_mnist",
            "Fashion-MNIST, padded to 32x32 and repeated to 3 channels",
            options=(ROOT, mnist_splits, DOWNLOAD),
            primary="root",
        ),
        Component(
            "dataset",
            "cifar10",
            "stabilitykit_vision.cifar:cifar10",
            "CIFAR-10 as torchvision reads it, 3x32x32",
            options=(ROOT, _split("train", "test", "all"), DOWNLOAD),
            primary="root",
            reference="section 3",
        ),
        Component(
            "dataset",
            "imagefolder",
            "stabilitykit_vision.imagefolder:imagefolder",
            "A folder with one folder of images per class",
            options=(
                Option("path", "path", required=True, help="folder with one folder per class"),
                Option(
                    "size", "int", minimum=1, maximum=4096, help="resize every image to size x size; default: as stored"
                ),
            ),
            primary="path",
        ),
        Component(
            "dataset",
            "npz",
            "stabilitykit_vision.npz:npz",
            "Arrays in an .npz file: X or images, y or labels, perhaps class_names",
            options=(
                Option("path", "path", required=True, help="the .npz file"),
                Option(
                    "layout",
                    choices=("auto", "nhwc", "nchw", "nhw", "features"),
                    default="auto",
                    help="axes of the image array; features: vectors (N, D)",
                ),
                Option("mask", help="key of a bool array (N,): keep only these images"),
                PAD,
                Option(
                    "channels", choices=("rgb", "keep"), default="rgb", help="rgb: one channel is repeated to three"
                ),
                Option(
                    "max_gib",
                    "float",
                    default=8.0,
                    minimum=0.0,
                    help="refuse files that declare more GiB of arrays than this",
                ),
            ),
            primary="path",
        ),
    ]

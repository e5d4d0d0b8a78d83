"""Datasets: digits, MNIST, Fashion-MNIST, CIFAR-10, folders of images, npz arrays."""

from __future__ import annotations

from stabilitykit import Adapter, Component, Option, hookimpl

ROOT = Option("root", "path", help="folder that holds the files; default: $STABILITYKIT_DATA, else ./data")
DOWNLOAD = Option("download", "bool", default=False, help="fetch missing files into root (never done unasked)")
PAD = Option("pad", "int", default=0, minimum=0, maximum=512, help="zeros added on each edge")

CHANNELS = Option(
    "channels",
    choices=("3", "1", "keep", "rgb"),
    default="3",
    help="3 (or rgb): grey is repeated to three channels; 1: colour becomes grey; keep: as stored",
)
ORDER = Option(
    "order",
    choices=("natural", "text"),
    default="natural",
    help="order of classes: natural as timm has it (2 before 10, capitals like small letters), or text as torchvision",
)
RANGE = Option(
    "range", help="number that means white, as 255, or black..white, as -1..1; default: what the pixels' type says"
)


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
            options=(_split("train", "test", "all"), CHANNELS),
            primary="split",
        ),
        Component(
            "dataset",
            "mnist",
            "stabilitykit_vision.mnist:mnist",
            "MNIST, padded to 32x32 and repeated to 3 channels",
            options=(ROOT, mnist_splits, DOWNLOAD, CHANNELS),
            primary="root",
            reference="section 3",
        ),
        Component(
            "dataset",
            "fashion-mnist",
            "stabilitykit_vision.mnist:fashion_mnist",
            "Fashion-MNIST, padded to 32x32 and repeated to 3 channels",
            options=(ROOT, mnist_splits, DOWNLOAD, CHANNELS),
            primary="root",
        ),
        Component(
            "dataset",
            "cifar10",
            "stabilitykit_vision.cifar:cifar10",
            "CIFAR-10 as torchvision reads it, 3x32x32",
            options=(ROOT, _split("train", "test", "all"), DOWNLOAD, CHANNELS),
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
                ORDER,
                CHANNELS,
                RANGE,
                Option(
                    "alpha",
                    choices=("drop", "white", "black", "only"),
                    default="drop",
                    help="transparent pixels: drop keeps their colour, as torchvision and timm do; white, black: what "
                    "lies behind; only: alpha is the picture",
                ),
                Option(
                    "unreadable",
                    choices=("refuse", "skip"),
                    default="refuse",
                    help="images that cannot be decoded: refuse the set, or leave them out (counted and named)",
                ),
                Option("allow_empty", "bool", default=False, help="keep classes whose folder holds no image"),
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
                CHANNELS,
                Option(
                    "max_gib",
                    "float",
                    minimum=0.0,
                    help="refuse files that declare more GiB of arrays than this; default: what memory holds, and no "
                    "more than a hundred times the file",
                ),
                Option("images", help="key of the images; default: X, images or x"),
                Option("labels", help="key of the labels; default: y or labels"),
                RANGE,
                Option("labels_from", "int", default=0, minimum=0, help="number of the first class"),
                Option(
                    "num_classes", "int", minimum=2, help="number of classes: labels stay the numbers they are, 0..K-1"
                ),
                ORDER,
            ),
            primary="path",
        ),
    ]


@hookimpl
def stabilitykit_adapters() -> list[Adapter]:
    """Data given in Python."""
    options = (Option("num_classes", "int", minimum=2, help="number of classes, where some have no image"),)
    taken = (
        ("builtins.tuple", "arrays", "(images, labels), the network's input as it is"),
        ("torch.utils.data.dataset.Dataset", "torch_dataset", "A torch Dataset of (input, label)"),
        ("torch.utils.data.dataloader.DataLoader", "loader", "A DataLoader of (inputs, labels) in a fixed order"),
    )
    return [
        Adapter(accepts, Component("dataset", "data", f"stabilitykit_vision.handed:{target}", summary, options))
        for accepts, target, summary in taken
    ]

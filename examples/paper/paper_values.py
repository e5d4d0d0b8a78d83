"""The numbers printed in the paper's Tables 1-5, and what its figures' captions say."""

from __future__ import annotations

from dataclasses import dataclass

MODELS = ("mnist_r18", "mnist_r50", "cifar_r18", "cifar_r50")
TITLES = {
    "mnist_r18": "MNIST, ResNet-18",
    "mnist_r50": "MNIST, ResNet-50",
    "cifar_r18": "CIFAR-10, ResNet-18",
    "cifar_r50": "CIFAR-10, ResNet-50",
}

# Table 1: macro precision, recall, F1; mean test loss; 100 epochs.
TABLE_1 = {
    "mnist_r18": {"precision": 0.9893, "recall": 0.9891, "f1": 0.9891, "loss": 0.0363},
    "mnist_r50": {"precision": 0.9860, "recall": 0.9855, "f1": 0.9857, "loss": 0.0449},
    "cifar_r18": {"precision": 0.7641, "recall": 0.7657, "f1": 0.7644, "loss": 0.8241},
    "cifar_r50": {"precision": 0.7428, "recall": 0.7398, "f1": 0.7400, "loss": 0.8347},
}

# Table 2, with the eps and delta that section 3 gives for the shadowing constant.
TABLE_2 = {
    "mnist_r18": {
        "g-expansive": 4.14e-5,
        "g-shadowing": 2.3583,
        "eps": 0.1025,
        "delta": 0.2417,
        "Lip(g)": 3.38,
        "topological": 0.6977,
    },
    "mnist_r50": {
        "g-expansive": 8.75e-6,
        "g-shadowing": 0.0031,
        "eps": 0.1565,
        "delta": 0.0004,
        "Lip(g)": 1.77,
        "topological": 0.0017,
    },
    "cifar_r18": {
        "g-expansive": 0.0081,
        "g-shadowing": 0.9867,
        "eps": 0.0933,
        "delta": 0.0920,
        "Lip(g)": 3.51,
        "topological": 0.2811,
    },
    "cifar_r50": {
        "g-expansive": 0.0048,
        "g-shadowing": 1.0023,
        "eps": 0.1219,
        "delta": 0.1222,
        "Lip(g)": 2.37,
        "topological": 0.4229,
    },
}


@dataclass(frozen=True)
class ClosePair:
    """One column of Table 3: labels, order within the class as printed, block, distance."""

    model: str
    classes: tuple[int, int]
    orders: tuple[int, int]
    block: int
    distance: float


TABLE_3 = (
    ClosePair("mnist_r50", (2, 1), (1021, 186), 1, 8.67e-5),
    ClosePair("mnist_r50", (2, 5), (540, 348), 16, 8.63e-5),
    ClosePair("mnist_r50", (2, 6), (668, 377), 11, 4.43e-5),
    ClosePair("mnist_r50", (2, 7), (435, 919), 14, 4.24e-5),
    ClosePair("cifar_r18", (2, 4), (666, 381), 2, 0.0107),
    ClosePair("cifar_r18", (4, 6), (171, 37), 3, 0.0099),
    ClosePair("cifar_r50", (0, 8), (639, 626), 6, 0.0065),
    ClosePair("cifar_r50", (1, 9), (16, 101), 9, 0.0071),
)

# Tables 4 and 5 show image strips, which the text version of the paper has lost; this is what the text says of them.
TABLES_4_5 = {
    "mnist_r18": "a 4 is traced through all 8 blocks; a 9 comes close to it",
    "cifar_r18": "a ship is traced; the 5th block takes it for an airplane",
    "mnist_r50": "the tracing stays within one class",
    "cifar_r50": "a horse is traced, leaving its class on the way",
}

"""Image classifiers of the package transformers, built from a configuration: their forward returns a ModelOutput."""

from __future__ import annotations

import pytest
import torch
from stabilitykit_adapters.equivalence import certify, randomise
from stabilitykit_adapters.modules import module_model

transformers = pytest.importorskip("transformers")

TOKENS = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
PATCHES = {"image_size": 16, "patch_size": 8}
STAGES = {"hidden_sizes": [8, 16], "depths": [2, 2]}
NETWORKS = {
    "ViT": (TOKENS | PATCHES, ["residual"] * 2),
    "DeiT": (TOKENS | PATCHES, ["residual"] * 2),
    "Beit": (TOKENS | PATCHES, ["residual"] * 2),
    "ResNet": (STAGES | {"embedding_size": 8}, ["residual", "residual", "transition", "residual"]),
    "ConvNext": (STAGES | {"num_stages": 2}, ["residual"] * 2 + ["transition"] + ["residual"] * 2),
    "Swin": (
        {"image_size": 16, "patch_size": 2, "embed_dim": 8, "depths": [2, 2], "num_heads": [2, 2], "window_size": 4},
        ["residual"] * 2 + ["transition"] + ["residual"] * 2,
    ),
}


def built(name):
    """Called by ``module:``, as a user's own builder is."""
    config = getattr(transformers, f"{name}Config")(num_labels=5, **NETWORKS[name][0])
    return getattr(transformers, f"{name}ForImageClassification")(config)


for _name in NETWORKS:
    globals()[f"build_{_name}"] = lambda name=_name: built(name)


@pytest.mark.parametrize("name", list(NETWORKS))
def test_courses_of_image_classifiers(name):
    model = module_model(f"{__name__}:build_{name}", input=(3, 16, 16), run="whole")
    randomise(model.module, seed=0)
    assert list(model.steps) == NETWORKS[name][1] and model.num_classes == 5
    assert certify(model, torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)))["bit_exact"]


def test_the_configuration_says_what_an_input_looks_like():
    model = module_model(f"{__name__}:build_ViT")
    assert model.program.input_shape == (3, 16, 16)

"""Contract checks for plugin authors, and tiny models and datasets to test with. Importing this imports no torch.

In a plugin's own tests::

    from stabilitykit.testing import check_property, failures

    def test_contract():
        assert not failures(check_property(MyProperty))
"""

from stabilitykit.testing.checks import Check, failures
from stabilitykit.testing.dataset import check_dataset
from stabilitykit.testing.fixtures import TinyDataset, TinyModel, tiny_context
from stabilitykit.testing.model import check_model
from stabilitykit.testing.plugin import check_component, check_plugin
from stabilitykit.testing.property import check_property

__all__ = [
    "Check",
    "TinyDataset",
    "TinyModel",
    "check_component",
    "check_dataset",
    "check_model",
    "check_plugin",
    "check_property",
    "failures",
    "tiny_context",
]

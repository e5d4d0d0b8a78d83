"""Contract checks for plugin authors, and tiny models and datasets to test with. Importing this imports no torch.

In a plugin's own tests::

    from stabilitykit.testing import check_property, failures

    def test_contract():
        assert not failures(check_property(MyProperty))
"""

from stabilitykit.testing.checks import Check, failures
from stabilitykit.testing.command import check_command
from stabilitykit.testing.dataset import check_dataset
from stabilitykit.testing.fixtures import TinyDataset, TinyModel, tiny_context
from stabilitykit.testing.inputs import Inputs
from stabilitykit.testing.model import check_model
from stabilitykit.testing.plugin import check_component, check_plugin
from stabilitykit.testing.property import check_property
from stabilitykit.testing.run import events_of, tiny_result, tiny_run
from stabilitykit.testing.section import check_section

__all__ = [
    "Check",
    "Inputs",
    "TinyDataset",
    "TinyModel",
    "check_command",
    "check_component",
    "check_dataset",
    "check_model",
    "check_plugin",
    "check_property",
    "check_section",
    "events_of",
    "failures",
    "tiny_context",
    "tiny_result",
    "tiny_run",
]

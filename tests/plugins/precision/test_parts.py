"""Parts alone on the images whose decision changes, what a failing part costs, and what is said of it."""

import copy

import numpy as np
import pytest
import torch
from stabilitykit_precision.alone import alone
from stabilitykit_precision.integers import IntegerScheme, round_weights
from stabilitykit_precision.layers import quantisable
from stabilitykit_precision.network import in_format
from stabilitykit_precision.property import Precision
from stabilitykit_precision.rounding import rounded_input, rounded_weight
from stabilitykit_precision.sections import decisions, sentences

import stabilitykit
from stabilitykit.reporting import RunData
from stabilitykit.reporting.balance import check_balanced
from stabilitykit.testing.fixtures import TinyDataset, TinyModel, tiny_context


def coarse():
    """A model with one large weight: of its block nothing is left with one int8 scale for all of a tensor."""
    model = TinyModel(seed=20)
    with torch.no_grad():
        model.module["blocks"][1][0].weight[0, 0] = 60.0
    return model


def context_of(model, count=60):
    return tiny_context(model, TinyDataset(seed=0, count=count), batch_size=16)


@pytest.mark.parametrize("samples", [0, 4])
def test_parts_alone_run_on_the_changed_decisions_too(samples):
    model = coarse()
    context = context_of(model)
    result = Precision("int8", "per-tensor", "dynamic", samples=samples).evaluate(context)
    flipped = context.rows_of([row[1] for row in result.tables["flips"].rows])
    assert len(flipped) > 4  # more than the sample of 4, of which only as many are run
    network = in_format(model, "int8", IntegerScheme(False, inputs=True, static=False), [])
    everything = alone(context, network, np.arange(60)).flips
    rows = result.tables["parts"].rows
    assert [row[7] for row in rows] == [4 if samples else len(flipped)] * len(rows)
    main = result["main_part.int8"]
    counts = [row[6] for row in rows]
    assert main.n == rows[0][7] and main.value == max(counts) / main.n and max(counts) > 0
    assert rows[main.witness["part"]][6] == max(counts) and main.witness["at"] == "block 1"
    if not samples:
        assert counts == everything[:, flipped].sum(axis=1).tolist()
        assert [row[3] for row in rows] == everything.sum(axis=1).tolist()
    else:
        assert all(count <= int(part[flipped].sum()) for count, part in zip(counts, everything))


def test_where_no_decision_changes_the_main_part_is_undefined():
    result = Precision("fp16").evaluate(context_of(TinyModel(seed=0), 12))
    assert result["flips.fp16"].value == 0 and result["main_part.fp16"].value is None
    assert "changes no decision" in result["main_part.fp16"].note
    assert sentences(result)[0].startswith("fp16 changes 0 of 12 decisions, accuracy ")


class WholeOnly(TinyModel):
    """Runs in bf16 as a whole; its blocks, called by themselves, do not."""

    def logits(self, inputs):
        self.inside = True
        try:
            return super().logits(inputs)
        finally:
            self.inside = False

    def block(self, t, state):
        if state.dtype == torch.bfloat16 and not self.inside:
            raise RuntimeError("no kernel for it")
        return super().block(t, state)


def test_parts_that_do_not_run_cost_the_whole_network_nothing():
    model = WholeOnly(seed=20)
    model.inside = False
    result = Precision("bf16").evaluate(context_of(model))
    plain = Precision("bf16").evaluate(context_of(TinyModel(seed=20)))
    assert result.tables["flips"].rows == plain.tables["flips"].rows != []
    assert result.tables["parts"].rows == []
    assert "bf16: its parts could not be run alone (RuntimeError: no kernel for it)" in result.notes


class FloatOnly(TinyModel):
    """Does not run in 16 bits: it multiplies by a matrix of float32."""

    def block(self, t, state):
        state = super().block(t, state)
        return (state.flatten(1) @ torch.eye(16)).reshape(state.shape)


def test_a_network_that_does_not_run_in_the_format_is_emulated_and_says_so():
    from stabilitykit.dynamics.lowprecision import LowPrecision, round_to

    model = FloatOnly(seed=20)
    context = context_of(model, 16)
    network = in_format(model, "bf16", None, [next(context.batches())[1]])
    assert network.scheme.startswith("emulated: ") and "does not run in bfloat16 on cpu (RuntimeError" in network.scheme
    _, inputs = next(context.batches())
    with torch.inference_mode():
        expected = LowPrecision(model, "bf16").twin.logits(round_to(inputs, "bf16"))
        assert torch.equal(network.logits(inputs), expected)
        assert not torch.equal(expected, model.logits(inputs))
    assert "emulated" in Precision("bf16").evaluate(context)["flips.bf16"].note


@pytest.mark.parametrize("format", ["fp16", "int8-weights"])
def test_under_autocast_the_baseline_is_autocast_and_what_is_converted_is_not(format):
    """fp16 is the network cast by hand whatever the trajectory was extracted in; int8 differs by its weights alone."""
    found = {}

    class Watched(Precision):
        def _measured(self, context, name, before, notes):
            measured = super()._measured(context, name, before, notes)
            found[name] = measured.after.logits
            return measured

    model, data = TinyModel(seed=20), TinyDataset(seed=0, count=16)
    stabilitykit.evaluate(
        model, data, Watched(format), batch_size=16, device="cpu", cache=False, extract_dtype="bfloat16"
    )
    twin = copy.deepcopy(model)
    inputs = model.preprocess(data.images(range(16)))
    with torch.inference_mode():
        if format == "fp16":
            twin.module.to(torch.float16)
            expected = twin.logits(inputs.to(torch.float16))
        else:
            round_weights(quantisable(twin.module)[0], True)
            with torch.autocast("cpu", torch.bfloat16):
                expected = twin.logits(inputs)
    np.testing.assert_array_equal(found[format], expected.float().numpy())


def test_the_report_shows_every_changed_image_and_where_it_comes_from(tmp_path):
    model, data = coarse(), TinyDataset(seed=0, count=60)
    run = stabilitykit.evaluate(
        model,
        data,
        Precision("bf16+int8", "per-tensor", "dynamic", samples=0),
        batch_size=16,
        device="cpu",
        cache=False,
        output=tmp_path / "run",
    )
    result = run["precision"]
    flips = [row for row in result.tables["flips"].rows if row[0] == "int8"]
    main = result["main_part.int8"]
    said = sentences(result)[1]
    assert said.startswith(f"int8 changes {len(flips)} of 60 decisions, accuracy ")
    assert said.endswith(f"; most of it comes from block 1 (alone it changes {len(flips)} of {main.n}).")
    html = str(decisions(RunData.read(tmp_path / "run")))
    check_balanced(html)
    images = {row[1] for row in result.tables["flips"].rows}
    assert html.count("data:image/png") == len(images) > 1
    for row in flips:
        assert f"image {row[1]}" in html and f"int8: {row[3]} → {row[4]}" in html


def test_static_int8_of_the_whole_network_is_calibrated_and_rounded():
    """Ranges by plain minima and maxima over the calibration batches, each layer rounded by hand."""
    model = TinyModel(seed=20)
    inputs = [batch for _, batch in context_of(model, 24).batches()]
    network = in_format(model, "int8", IntegerScheme(inputs=True), inputs)
    layers = [module for module in model.module.modules() if isinstance(module, torch.nn.Linear)]
    seen = {layer: [] for layer in layers}
    hooks = [layer.register_forward_pre_hook(lambda layer, given: seen[layer].append(given[0])) for layer in layers]
    with torch.inference_mode():
        for batch in inputs:
            model.logits(batch)
    for hook in hooks:
        hook.remove()
    twin = copy.deepcopy(model)
    for ours, layer in zip((m for m in twin.module.modules() if isinstance(m, torch.nn.Linear)), layers):
        ours.weight.copy_(rounded_weight(ours.weight, True))
        low, high = (torch.stack([f(v) for v in seen[layer]]).reshape(-1) for f in (torch.min, torch.max))
        ends = low.min().reshape(1), high.max().reshape(1)
        ours.register_forward_pre_hook(lambda _, given, ends=ends: (rounded_input(given[0], *ends),))
    with torch.inference_mode():
        for batch in inputs:
            assert torch.equal(network.logits(batch), twin.logits(batch))
            assert not torch.equal(network.logits(batch), model.logits(batch))


class OwnInputs(TinyModel):
    """Takes inputs of its own format only, as most networks do."""

    def initial_state(self, inputs):
        assert inputs.dtype == self.module["stem"].weight.dtype
        return super().initial_state(inputs)


def test_inputs_are_converted_with_the_network():
    model = OwnInputs(seed=20)
    network = in_format(model, "bf16", IntegerScheme(), [next(context_of(model, 16).batches())[1]])
    assert network.converted and "converted to bfloat16 and run in it" in network.scheme

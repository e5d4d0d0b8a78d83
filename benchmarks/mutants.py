"""Small errors in code that guards trust, each with the tests that must notice it. See `benchmarks/mutations.py`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    """One small error.

    Attributes:
        file: from the root of the repository.
        old: text that occurs in it exactly once.
        new: what stands there instead.
        breaks: what goes wrong, in a few words.
        tests: files or node ids for pytest.
        equivalent: why no test can notice it; empty for all that one must.
    """

    file: str
    old: str
    new: str
    breaks: str
    tests: tuple[str, ...] = ()
    equivalent: str = ""


def _of(file: str, tests: str, *rows: tuple[str, ...]) -> list[Mutant]:
    """Mutants of one file.

    Arguments:
        tests: names below tests/, apart by blanks.
        rows: (old, new, what breaks), and for an equivalent one the reason.
    """
    named = tuple(f"tests/{name}" for name in tests.split())
    return [Mutant(file, row[0], row[1], row[2], named, *row[3:]) for row in rows]


CACHE = _of(
    "stabilitykit/evaluation/cache.py",
    "core/test_cache.py core/test_identity.py",
    ('if content_key(kept["record"]) != self.key:', "if False:", "an entry moved to another address is used"),
    ('if kept["sha256"] != _digest(array, 0, self.shape[1]).hexdigest():', "if False:", "a damaged entry is used"),
    (
        'if not 0 < rows <= self.shape[1] or digest.hexdigest() != before["sha256"]:',
        "if not 0 < rows <= self.shape[1]:",
        "damaged rows are gone on with",
    ),
    (
        "if array is not None and (proof is None or proof.reproduces(array, shape[1], drift)):",
        "if array is not None:",
        "the cache gives another network's numbers",
    ),
    (
        "return (rows, digest) if proof is None or proof.reproduces(array, rows, 0.0) else (-1, None)",
        "return rows, digest",
        "another network's extraction is gone on with",
    ),
    ("for entry in entries if held else ():", "for entry in entries:", "without a lock, a half-filled array is used"),
    ("if found != shape or fortran or kind != dtype:", "if fortran or kind != dtype:", "an array of another shape"),
    ("if found != shape or fortran or kind != dtype:", "if found != shape or fortran:", "an array of another dtype"),
    (
        "            self.files.remove(*self.names, RECORD)\n",
        "",
        "a record of before vouches for new rows",
        "its digest would not fit the new rows; removing it early spares reading them",
    ),
    ("strangers += array is not None", "strangers += 0", "another network's entry is passed over in silence"),
    (
        "digest.update(np.ascontiguousarray(rows.swapaxes(0, 1)).data)",
        "digest.update(np.ascontiguousarray(rows[-1]).data)",
        "only the last depth is in the digest",
    ),
)
CACHE += _of(
    "stabilitykit/evaluation/proof.py",
    "core/test_identity.py",
    (
        "return again.tobytes() == np.ascontiguousarray(kept).tobytes()",
        "return bool(np.allclose(again, kept))",
        "nearly equal networks share",
    ),
    ("<= DRIFT_FACTOR * drift)", "<= 1e6 * drift)", "a drifting device is allowed anything"),
    (
        "for first in sorted({0, (self._rows - 1) // self._size * self._size}):",
        "for first in (0,):",
        "last batch unseen",
    ),
    (
        "return [first for first in whole if first == 0 or first in self._done]",
        "return whole[:1]",
        "one batch is looked at",
    ),
    (
        "self._batch(others[-1] if chance.random() < 0.5 else chance.choice(others))",
        "self._batch(others[-1])",
        "middle batches are never looked at",
    ),
    (
        "        if self.exact:\n            return 0.0\n        again",
        "        if True:\n            return 0.0\n        again",
        "no drift is recorded",
    ),
)
CACHE += _of(
    "stabilitykit/evaluation/proof.py",
    "core/test_cache_key.py",
    (
        "for source in dict.fromkeys(map(_source, (*things, *own))):",
        "for source in ():",
        "changed source code keeps the address",
    ),
    ("{model.module!r} {settings}", "", "settings of modules are not in the address"),
)
CACHE += _of(
    "stabilitykit/evaluation/trajectories.py",
    "core/test_cache_key.py",
    ('        "model": asked.fingerprint,\n', "", "the key does not know the model"),
    ('        "dataset": asked.dataset.fingerprint(),\n', "", "the key does not know the dataset"),
    (
        '"indices": hashlib.sha256(indices.astype(np.int64).tobytes()).hexdigest(),',
        '"indices": len(indices),',
        "the key does not know which images",
    ),
    (
        '        "preprocessing": to_plain(dict(asked.model.preprocessing)),\n',
        "",
        "the key does not know the preprocessing",
    ),
    ('        "readout": asked.readout.fingerprint(),\n', "", "the key does not know the readout"),
    ("        **asked.extraction.logits_record(),\n", "", "the key does not know dtype, batch size, layout, compiler"),
    ('        "device": asked.device.type,\n', "", "the key does not know the device"),
    ('        "threads": torch.get_num_threads(),\n', "", "the key does not know the threads"),
    ('        "torch": torch.__version__,\n', "", "the key does not know torch's version"),
    ('        "plugin": asked.model_choice.plugin,\n', "", "the key does not know the plugin"),
    (
        '        "code": code_digest(asked.model, trajectory_module, readout_module),\n',
        "",
        "the key does not know the code",
    ),
    (
        "_cache_record(asked, mine), shape, fill, model.readout_dtype, proof_of(asked, mine)",
        "_cache_record(asked, mine), shape, fill, model.readout_dtype, None",
        "a cached trajectory needs no proof",
    ),
    ('exact=asked.device.type == "cpu")', "exact=False)", "on a CPU, nearly the same bits are enough"),
    (
        "    for array in (logits, labels):\n        array.flags.writeable = False\n",
        "",
        "a property can write into the shared trajectory",
    ),
)
CONDITIONS = _of(
    "stabilitykit/dynamics/extraction.py",
    "core/test_extraction_conditions.py::test_logits_are_kept_apart_unless_only_the_space_or_the_readout_differs "
    "core/test_extraction_conditions.py::test_plain_takes_back_what_is_only_faster",
    ('_condition("batch size")', '_condition("batch size", moves_logits=False)', "cache key without the batch size"),
    (
        '_condition("precision", key="extract_dtype")',
        '_condition("precision", key="extract_dtype", moves_logits=False)',
        "cache key without the dtype",
    ),
    (
        '_condition("NHWC", reference=False)',
        '_condition("NHWC", moves_logits=False, reference=False)',
        "cache key without the layout",
    ),
    (
        '_condition("compiled", reference=False)',
        '_condition("compiled", moves_logits=False, reference=False)',
        "cache key without the compiler",
    ),
    (
        'return replace(self, dtype="float32" if self.autocast is not None else self.dtype, **ordinary)',
        "return replace(self, **ordinary)",
        "the plain reference is the fast one",
    ),
)
CONDITIONS += _of(
    "stabilitykit/evaluation/snapshot.py",
    "core/test_snapshot.py",
    ("if model.fingerprint() != self.fingerprint:", "if False:", "changed weights go unseen"),
    ("if structure(model) != self._structure:", "if False:", "hooks and replaced methods go unseen"),
    ("if not np.array_equal(dataset.labels, self._labels):", "if False:", "changed labels go unseen"),
    (
        "            model.module.eval()  # modes are no damage: they are put back\n",
        "",
        "a network is left in training mode",
    ),
    (
        "                    parameter.requires_grad_(wanted)\n",
        "                    pass\n",
        "gradients stay switched on",
    ),
    (
        '("_forward_hooks", "_forward_pre_hooks", "_backward_hooks")',
        '("_forward_hooks", "_backward_hooks")',
        "pre-hooks go unseen",
    ),
    (
        '_replaced(model, ("preprocess", "initial_state", "block", "readout", "logits"))',
        '_replaced(model, ("preprocess", "initial_state", "block"))',
        "a replaced readout goes unseen",
    ),
    ('            _replaced(part, ("forward",)),\n', "", "a replaced forward goes unseen"),
)
CONDITIONS += _of(
    "stabilitykit/evaluation/subject.py",
    "core/test_snapshot.py core/test_evaluation.py",
    (
        "            labels = np.array(self.dataset.labels)\n",
        "            labels = self.dataset.labels\n",
        "the labels to compare with are the changed ones",
    ),
    (
        "needed = {name: copy.deepcopy(results[name])",
        "needed = {name: results[name]",
        "a property can change another's result",
    ),
    (
        "            if what:  # readouts of a changed model must not reach the others, let alone the cache\n",
        "            if False:\n",
        "readouts of a changed model reach the cache",
    ),
    (
        "        if self._irreparable:\n            raise",
        "        if False:\n            raise",
        "a spoiled model is measured",
    ),
    ("        self.indices.flags.writeable = False\n", "", "a property can write into the shared indices"),
)
RESULTS = _of(
    "stabilitykit/evaluation/acceptance.py",
    "core/test_acceptance.py",
    ("SUSPICIOUS = 1e-3", "SUSPICIOUS = 1e3", "the recheck's threshold times 10^6"),
    (
        "result.measurements[number] = replace(m, recheck=residual)",
        "result.measurements[number] = replace(m, recheck=0.0)",
        "every recheck finds 0",
    ),
    (
        "allow_nan=False)",
        "allow_nan=True)",
        "infinities are stored as no JSON",
        "to_plain has made text of them before",
    ),
    (
        'stored = PropertyResult.from_json({**json.loads(text), "per_image": json.loads(json.dumps(columns))})',
        "stored = result",
        "what is reported is not what is stored",
    ),
    ("if len(text) > MAX_RESULT_BYTES:", "if False:", "a result of any size is stored"),
    ("if not stored.measurements and not stored.tables:", "if False:", "an empty result counts as measured"),
    ("not all(isinstance(m, Measurement) for m in result.measurements):", "False:", "anything passes as a measurement"),
)
ROWS = _of(
    "stabilitykit/review/judging_decisions.py",
    "core/test_rows.py core/test_verify.py",
    ("            elif reason is None:\n", "            elif False:\n", "altered decisions pass"),
)
ROWS += _of(
    "stabilitykit/review/consistency.py",
    "core/test_rows.py core/test_verify.py",
    ("    if files.images != true:\n", "    if False:\n", "an altered images.csv passes"),
)
RESULTS += _of(
    "stabilitykit/base/results.py",
    "core/test_results.py core/test_acceptance.py",
    ("    if math.isnan(number):\n", "    if False:\n", "NaN is a value"),
    ("    if len(set(names)) < len(names):\n", "    if False:\n", "two measurements of one name"),
    (
        "denominator in (Kind.UPPER, Kind.EXACT)",
        "denominator in (Kind.UPPER, Kind.LOWER, Kind.EXACT)",
        "a bound divided by a wrong-sided one is a bound",
    ),
)
RESULTS += _of(
    "stabilitykit/review/consistency.py",
    "core/test_consistency.py",
    ("if key in m.witness and list(m.witness[key]) != true:", "if False:", "the witness's classes are ignored"),
    (
        '            ("orders", [int(orders[i]) for i in indices]),\n',
        "",
        "the witness's numbers in their class are ignored",
    ),
    ("0 <= i < len(labels) for i in indices", "True for i in indices", "a witness may name images that are not there"),
    ("or (high is not None and m.value > high)", "", "a value above its interval stands"),
    ("(low is not None and m.value < low) or", "", "a value below its interval stands"),
)
DYNAMICS = _of(
    "stabilitykit/dynamics/probe.py",
    "core/test_probe.py",
    ("            probe.weight.mul_(gain)\n", "            pass\n", "the probe's gain is dropped"),
    ("gains = [np.sqrt(n) / v.norm", "gains = [1.0 / v.norm", "the dimension is left out of the gain"),
    ("    nn.init.zeros_(probe.weight)\n", "", "probes start at random"),
    ("if sum(sizes) * num_classes > MAX_WEIGHTS:", "if False:", "probes of any size"),
    (
        "_losses(twins, gains, batch, _trained(batch))",
        "_losses(twins, gains, batch, slice(None))",
        "nothing is held out",
    ),
    ("guesses == batch.labels[rest]", "guesses == guesses", "every held-out guess is right"),
)
DYNAMICS += _of(
    "stabilitykit/dynamics/states.py",
    "core/test_probe.py core/test_lens.py",
    ("        model.module.eval()\n", "", "readouts are trained with dropout on"),
    ("np.random.default_rng(seed)", "np.random.default_rng()", "batches without a seed"),
    ("np.random.default_rng(seed)", "np.random.default_rng(0)", "one order of images whatever the seed"),
    (
        "np.asarray(dataset.labels)[self.indices]",
        "np.asarray(dataset.labels)[np.asarray(indices)]",
        "labels of other images",
    ),
    ("                column += part.shape[1]\n", "                column += 1\n", "kept states overwrite each other"),
)
DYNAMICS += _of(
    "stabilitykit/dynamics/lens.py",
    "core/test_lens.py",
    ("worse = not losses[0, t] < losses[1, t]", "worse = False", "a lens worse than the head is kept"),
    ("            parameter.requires_grad_(True)\n", "            pass\n", "the network stays frozen"),
    ("batch.final.log_softmax(dim=1)\n        for t", "batch.final\n        for t", "the target is no distribution"),
)
DYNAMICS += _of(
    "stabilitykit/dynamics/lowprecision.py",
    "core/test_perturbed.py core/test_lowprecision.py",
    (
        "if any(parameter.data_ptr() in mine",
        "if False and any(parameter.data_ptr() in mine",
        "a copy that shares weights is perturbed",
    ),
    ("largest / 127,", "largest / 128,", "128 levels of int8"),
    (".round().clamp(-127, 127)", ".floor().clamp(-127, 127)", "int8 rounds down"),
    (
        "module.weight.copy_(quantise(module.weight, dim=_output_dim(module)))",
        "module.weight.copy_(quantise(module.weight, dim=1))",
        "int8 scales per input channel",
    ),
    ("                module.register_forward_pre_hook(_quantise_inputs)\n", "", "int8 inputs stay in float32"),
    (
        "            module.register_forward_hook(lambda",
        "            (lambda *a: None)(lambda",
        "outputs of layers are not rounded",
    ),
    (
        "self.twin.block(t, _each(lambda part: round_to(part, self.format), state))",
        "self.twin.block(t, (state))",
        "the state between blocks is not rounded going in",
    ),
    (
        'return 1 if getattr(module, "transposed", False) else 0',
        "return 0",
        "transposed convolutions are quantised by the wrong channel",
    ),
)
DYNAMICS += _of(
    "stabilitykit/dynamics/trajectory.py",
    "core/test_trajectory.py::test_blind_depths_coincide_up_to_what_the_batch_size_moves",
    ("return spread <= part * size", "return spread <= 100 * part * size", "small differences are blind"),
    ("return spread <= part * size", "return spread <= 0 * part * size", "the last batch ends blindness"),
)
DYNAMICS += _of(
    "stabilitykit/dynamics/perturbed.py",
    "core/test_lowprecision.py core/test_perturbed.py",
    ("if not np.isfinite(logits).all():", "if False:", "an overflow is measured"),
    ("true = model.block(t, state)", "true = model.block(t, model.initial_state(inputs))", "jumps of another orbit"),
    (
        "jumps.append(np.sqrt(np.square(there - here).sum(axis=1)))",
        "jumps.append(np.square(there - here).sum(axis=1))",
        "jumps are squared",
    ),
    ("norms.append(expected.norm(dim=1)", "norms.append(found.norm(dim=1)", "norms of the perturbed state"),
    ("here if state is true else", "here if True else", "no jump at all"),
)
DYNAMICS += _of(
    "stabilitykit/dynamics/space.py",
    "core/test_trajectory.py",
    ("values = np.asarray(logits, dtype=np.float64)", "values = np.asarray(logits)", "the softmax is taken in float32"),
    ("values - values.max(axis=-1, keepdims=True)", "values", "large logits overflow"),
    ("values = logits.double()", "values = logits", "the differentiable softmax is taken in float32"),
)
DYNAMICS += _of(
    "stabilitykit/dynamics/readout.py",
    "core/test_probe.py core/test_trajectory.py",
    (
        "        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())\n",
        "        pass\n",
        "all probes have one fingerprint",
    ),
    (
        'torch.float64 if model.readout_dtype == "float64" else torch.float32',
        "torch.float32",
        "readouts of float64 networks are rounded",
    ),
    ("probe = self.probes[t]\n", "probe = self.probes[-1]\n", "the last probe at every depth"),
)
DYNAMICS += _of(
    "stabilitykit/dynamics/compiled.py",
    "core/test_extraction.py::test_a_compiler_that_fails_or_computes_something_else_is_found_out "
    "core/test_extraction.py::test_recorded_operations_are_the_models_bit_for_bit",
    (
        "if not self.difference <= (LOW_TOLERANCE if low else TOLERANCE)",
        "if not self.difference <= 1e9",
        "a compiler may compute anything",
    ),
)
DYNAMICS += _of(
    "stabilitykit/dynamics/trajectory.py",
    "core/test_trajectory.py",
    ("        if not np.isfinite(logits).all():\n", "        if False:\n", "a NaN readout is measured"),
    ("        if not bool(finite.all()):\n", "        if False:\n", "NaN pixels are measured"),
    ("        out[:, rows] = logits\n", "        out[:, rows] = logits[:, ::-1]\n", "rows of a batch in another order"),
)
MACHINE = _of(
    "stabilitykit/machine/determinism.py",
    "core/test_determinism.py",
    (
        "torch.backends.cuda.matmul.allow_tf32 = False",
        "torch.backends.cuda.matmul.allow_tf32 = True",
        "TF32 is left on",
    ),
    ("torch.backends.cudnn.allow_tf32 = False", "pass", "TF32 is left on in convolutions"),
    ("torch.backends.cudnn.benchmark = False", "pass", "algorithms are chosen by the clock"),
    ('        torch.set_deterministic_debug_mode("warn")\n', "", "deterministic algorithms are not asked for"),
    (
        "torch.use_deterministic_algorithms(True, warn_only=True)",
        "torch.use_deterministic_algorithms(False)",
        "deterministic algorithms are off beside the compiler",
    ),
    ('        os.environ["TORCHINDUCTOR_DETERMINISTIC"] = "1"\n', "", "the compiler is not told"),
    ("    torch.manual_seed(seed)\n", "", "torch is not seeded"),
    ("    np.random.seed(seed % 2**32)\n", "", "numpy is not seeded"),
    ("    random.seed(seed)\n", "", "Python is not seeded"),
    ('os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")', "pass", "cuBLAS chooses its workspace"),
)
MACHINE += _of(
    "stabilitykit/machine/device.py",
    "core/test_device.py",
    ("if (device.index or 0) >= count:", "if False:", "a GPU that is not there"),
    ("        if count == 0:\n", "        if False:\n", "CUDA on a machine without"),
    ('elif device.type != "cpu":', "elif False:", "any device of torch's is taken"),
    ('"cuda" if torch.cuda.is_available() else "mps"', '"mps"', "auto passes over CUDA"),
    ('if name == "cuda" and "LOCAL_RANK" in os.environ:', "if False:", "all ranks on one GPU"),
)
MACHINE += _of(
    "stabilitykit/machine/process_state.py",
    "core/test_process_state.py",
    (
        'if new is None or id(new) in familiar or not _written_in(new, key[0].partition(".")[0]):',
        "if new is None:",
        "a replaced function goes unseen",
    ),
    ("if new is None or id(new) in familiar or", "if new is None or", "two functions that changed places go unseen"),
    ("            torch.backends.cudnn.allow_tf32,\n", "", "TF32 switched on goes unseen"),
    ("            torch.are_deterministic_algorithms_enabled(),\n", "", "determinism switched off goes unseen"),
    (
        '        "torch\'s default dtype": str(torch.get_default_dtype()),\n',
        '        "torch\'s default dtype": "",\n',
        "another default dtype goes unseen",
    ),
    ("bool(torch.tensor(1e-310, dtype=torch.float64) * 1.0 == 0.0),", "False,", "flushed denormals go unseen"),
    ("new = [now[ident] for ident in now if ident not in was]", "new = []", "a thread left running goes unseen"),
    (
        "gone = [key for key, value in was.items() if now.get(key) != value]",
        "gone = []",
        "changed environment variables go unseen",
    ),
    (
        '            "the current folder": folder,\n',
        '            "the current folder": "",\n',
        "another current folder goes unseen",
    ),
    ('            "the umask": umask,\n', "", "another umask goes unseen"),
)
MACHINE += _of(
    "stabilitykit/machine/distributed.py",
    "core/test_distributed.py::test_rows_are_split_at_whole_batches",
    (
        "return [min(count, (total * rank // size) * batch_size)",
        "return [min(count, count * rank // size)",
        "ranks split batches",
    ),
)
SUPERVISION = _of(
    "stabilitykit/supervision/supervisor.py",
    "core/test_supervision.py",
    ("kill = bool(self._signal) or listening.too_long", "kill = bool(self._signal)", "an overdue worker is waited for"),
    ('self._status = "interrupted"', 'self._status = "complete"', "an interrupted run says complete"),
    ("            listening.task = None\n", "            pass\n", "a death between tasks costs a finished cell"),
    (
        "                self._inheritance.lost[slug] = error",
        "                _ = error",
        "a deadly cell is run again for ever",
    ),
    ('self._inheritance.broken[task["key"]] = ended', "pass", "a deadly plugin is loaded again for ever"),
    (
        "return None if self._may_go_on() else 1\n\n    def _may_go_on",
        "return None\n\n    def _may_go_on",
        "what was printed is printed twice",
    ),
    ("        self._inheritance.cells.append(cell)\n", "", "finished cells are measured again after a death"),
    (
        "        if self._signal:\n            return self._interrupted()\n",
        "",
        "an interruption ends in the worker's code",
    ),
    (
        'if task is None or task["kind"] == "command" or "RANK" in os.environ:',
        'if task is None or task["kind"] == "command":',
        "one of several ranks goes on alone",
    ),
    ("            self._inheritance.draws = False\n", "", "deadly pictures are drawn again for ever"),
)
SUPERVISION += _of(
    "stabilitykit/supervision/listening.py",
    "core/test_supervision.py",
    (
        "return self.task is not None and self._until is not None and time.monotonic() >= self._until",
        "return False",
        "the time limit is ignored",
    ),
)
SUPERVISION += _of(
    "stabilitykit/supervision/child.py",
    "core/test_supervision.py",
    ("for send in (os.killpg, os.kill):", "for send in (os.kill,):", "children of a dead worker live on"),
)
SUPERVISION += _of(
    "stabilitykit/supervision/supervisor.py",
    "core/test_hooks.py",
    (
        "if self._audience and self._earlier.get(kept.slug) != cell:",
        "if True:",
        "cells that --resume kept are told again",
    ),
)
SUPERVISION += _of(
    "stabilitykit/supervision/hearer.py",
    "core/test_hooks.py",
    ("self._child is not None and self._follows.overdue", "False", "a hook that hangs is waited for"),
    ("if text not in self._complaints:", "if True:", "a hook that fails warns at every cell"),
    ("self._asks = self._untold.popleft(), False", "self._asks = self._untold.pop(), False", "cells told out of order"),
    ("        if not self.done:\n", "        if False:\n", "a hook that Ctrl-C ended goes unnamed"),
)
SUPERVISION += _of(
    "stabilitykit/supervision/audience.py",
    "core/test_hooks.py",
    ("until = min(until, time.monotonic() + GRACE)", "pass", "Ctrl-C waits for hooks"),
)
SUPERVISION += _of(
    "stabilitykit/plugins/listening.py",
    "core/test_hooks.py",
    ("(**json.loads(json.dumps(event.arguments)))", "(**event.arguments)", "a hook changes what the next one is told"),
)
SUPERVISION += _of(
    "stabilitykit/supervision/worker.py",
    "core/test_supervision.py",
    ("        if os.getpid() != self._process:", "        if False:", "a forked child speaks for the worker"),
    ("        if self._worker.busy:\n", "        if False:\n", "noise of plugins lands on stdout"),
    ("            code = command()\n", "            command()\n", "the command's exit code is lost"),
    ("            code = error.exit_code\n", "            pass\n", "bad input ends in 1 instead of 2"),
    ("            os.dup2(2, 1)  # whatever", "            pass  # whatever", "compiled code prints into the result"),
    ("    os.setsid()\n", "", "Ctrl-C reaches plugin code"),
    ("ctypes.CDLL(None).prctl(1, signal.SIGKILL)", "pass", "a worker outlives its supervisor"),
)
SUPERVISION += _of(
    "stabilitykit/supervision/channel.py",
    "core/test_supervision.py",
    ("if size > LARGEST:", "if False:", "a message of any size is read"),
)
FILES = _of(
    "stabilitykit/base/files.py",
    "core/test_files.py core/test_folders.py",
    ('_CAREFUL = getattr(os, "O_NOFOLLOW", 0) |', "_CAREFUL =", "opening a file follows a link"),
    ("        if stat.S_ISLNK(mode):\n", "        if False:\n", "links out of a run folder are followed"),
    ("        if stat.S_IFMT(mode) in _SPECIAL:\n", "        if False:\n", "pipes in a run folder are waited for"),
    ('if name in ("", ".", "..") or "/" in name', "if False", "a name leads out of the folder"),
    (
        "    if not stat.S_ISREG(os.fstat(handle).st_mode):\n        os.close",
        "    if False:\n        os.close",
        "a pipe is read",
    ),
    (
        "            path = path / name\n            self._refuse_foreign(path)\n",
        "            path = path / name\n        self._refuse_foreign(path)\n",
        "links on the way are followed",
    ),
    ("            os.fsync(stream.fileno())\n", "", "a power cut leaves an empty file"),
    (
        "            os.replace(temporary, path)\n",
        "            os.replace(temporary, path) if not path.exists() else path.write_bytes(raw)\n",
        "a crash leaves half a file",
    ),
    (
        "                    if try_lock(stream.fileno()):\n",
        "                    if True:\n",
        "a living writer's file is removed",
    ),
    (
        "                elif not entry.is_file(follow_symlinks=False):\n",
        "                elif False:\n",
        "links deep in a folder go unseen",
    ),
)
FILES += _of(
    "stabilitykit/base/locks.py",
    "core/test_folders.py core/test_files.py",
    (
        "        if held is False:\n            until",
        "        if False:\n            until",
        "two processes in one folder",
    ),
    ('getattr(os, "O_NOFOLLOW", 0)', "0", "a lock makes files through a link"),
    ("        yield bool(held)\n", "        yield True\n", "where there are no locks, one is claimed"),
    (
        "        if not stat.S_ISREG(os.fstat(handle).st_mode):\n            raise",
        "        if False:\n            raise",
        "a pipe is taken for a lock",
    ),
)
FILES += _of(
    "stabilitykit/base/text.py",
    "core/test_text.py::test_printable_text_has_no_control_characters_and_says_what_was_there "
    "core/test_text.py::test_no_cell_is_a_formula core/test_text.py::test_numbers_stay_numbers "
    "core/test_text.py::test_what_only_begins_like_a_number_is_quoted "
    "core/test_text.py::test_floats_read_back_to_the_last_digit core/test_text.py::test_errors_stay_on_their_line "
    "core/test_text.py::test_prints_warnings_and_libraries_pass_the_same_way",
    ("\\x7f-\\x9f", "\\x7f", "C1 control characters reach the terminal"),
    ("\\u2028-\\u202e", "\\u2028-\\u2029", "text that turns the direction of writing"),
    ('tuple("=+-@\\t\\r")', 'tuple("=+-\\t\\r")', "a spreadsheet runs @formulas"),
    ("_NUMBER.fullmatch(value)", "_NUMBER.match(value)", "-1+cmd() passes as a number"),
    (
        "return repr(value) if isinstance(value, float)",
        'return f"{value:.6g}" if isinstance(value, float)',
        "CSV loses digits",
    ),
    ("            text = one_line(body) + text[len(body) :]\n", "            pass\n", "a name breaks an error's line"),
)
RUNS = _of(
    "stabilitykit/runs/folder.py",
    "core/test_recorder.py core/test_evaluation.py core/test_folders.py",
    ("        if existing and not resume:\n", "        if False:\n", "an earlier run is overwritten"),
    (
        "        if existing and not holds_run and not begun:\n",
        "        if False:\n",
        "a folder of other files is used",
    ),
    ('or data["schema"] > SCHEMA_VERSION:', ":", "a run of a newer version is read"),
    (
        "        for name in PARTS:\n            self.files.check(name)\n",
        "        pass\n",
        "links in a run folder are followed",
    ),
    ('        if data["status"] == "ok" and result is None:\n', "        if False:\n", "a cell without a result is ok"),
    ('if not self.files.holds("cells", f"{cell.slug}.json")]', "if False]", "cells that a plugin removed stay lost"),
    (
        "return f\"{safe}.{hashlib.sha256(text.encode('utf-8', 'replace')).hexdigest()[:8]}\"",
        "return safe",
        "two cells share a file",
    ),
)
RUNS += _of(
    "stabilitykit/runs/times.py",
    "core/test_recorder.py",
    ("        self.seconds |= self._noted()\n", "", "a killed run loses the times of its cells"),
    ("        self._folder.remove(JOURNAL_FILE)\n", "", "lines of times stay when they are in times.json"),
    (
        "            except (TypeError, ValueError):\n",
        "            except TypeError:\n",
        "half a line ends the reading",
    ),
)
RUNS += _of(
    "stabilitykit/runs/recorder.py",
    "core/test_recorder.py core/test_evaluation.py",
    (
        'self._folder.write_run({**self.content(), "status": "running"})',
        'self._folder.write_run({**self.content(), "status": "complete"})',
        "a killed run says complete",
    ),
    (
        "            self._folder.complete(self.cells, self.decisions.values())\n",
        "",
        "cells removed meanwhile stay lost",
    ),
    (
        "        self._folder.write_cell(cell)\n",
        "        self._folder.write_cell(cell) if len(self.cells) < 2 else None\n",
        "cells are written at the end only",
    ),
)
RUNS += _of(
    "stabilitykit/evaluation/job.py",
    "core/test_resume.py core/test_identity.py core/test_evaluation.py",
    (
        "if done is None or not done.ok or not self.world.leads:",
        "if done is None or not self.world.leads:",
        "--resume keeps failed cells",
    ),
    (
        "changed = [key for key in {**record, **now} if record.get(key) != now.get(key)]",
        "changed = []",
        "--resume keeps cells of other settings",
    ),
    (
        "elif done.record.get(COMPUTES) and done.record[COMPUTES] == subject.computes():",
        "elif True:",
        "--resume keeps cells of another network",
    ),
    (
        "elif done.record.get(COMPUTES) and done.record",
        "elif done.record.get(COMPUTES) is None or done.record",
        "--resume keeps cells that prove nothing",
    ),
    ("if before is not None and before != request:", "if False:", "--resume goes on with another request"),
    (
        "        if replaced:\n            self._failed",
        "        if False:\n            self._failed",
        "a property that replaced a function has its number",
    ),
    ("        elif what:\n", "        elif False:\n", "a property that changed the model has its number"),
    ("                subject.require_intact()\n", "", "a spoiled model is measured by the next property"),
    (
        '        make_deterministic(self.settings.seed)\n        try:\n            with task("cell"',
        '        try:\n            with task("cell"',
        "one cell's random numbers depend on the cells before",
    ),
)
SEARCH = _of(
    "stabilitykit/search/pairs/search.py",
    "core/search/test_margins.py",
    (
        "error = 4 * sum(values.shape[::2], 8) * 2.0**-52",
        "error = 0.0 * sum(values.shape[::2], 8) * 2.0**-52",
        "the mean search has no margin",
    ),
    (
        "error = 4 * sum(values.shape[::2], 8) * 2.0**-52",
        "error = 4 * sum(values.shape[::2], 8) * 2.0**-60",
        "the mean search's margin is too small",
    ),
    (
        "return max(float(part.max()), -float(part.min()))",
        "return float(part.max())",
        "negative readouts have no margin",
    ),
)
SEARCH += _of(
    "stabilitykit/search/pairs/bounds.py",
    "core/search/test_margins.py",
    ("WIDEN = 1.0 + 8 * EPS", "WIDEN = 1.0", "pairs that tie are dropped"),
    (
        "return best * depths * (1.0 + 8 * EPS * (depths + 4)) + TINY",
        "return best * depths + TINY",
        "pairs that tie in the mean are dropped",
    ),
    (
        "return best * best * WIDEN + TINY",
        "return best * best * WIDEN",
        "pairs whose squares underflow are dropped",
        "the root of a subnormal square, squared, rounds back to it",
    ),
    (
        "lowered = 1.0 - 4 * (values.shape[2] + 8) * EPS",
        "lowered = 1.0",
        "long readouts are summed in any order without margin",
    ),
    (
        "gap = max(np.float64(low[q, d, k]) - v, v - np.float64(high[q, d, k]))\n        if gap > 0.0:",
        "gap = max(np.float64(low[q, d, k]) - v, v - np.float64(low[q, d, k]))\n        if gap > 0.0:",
        "a box is a point",
    ),
)
SEARCH += _of(
    "stabilitykit/search/pairs/peaks_kernels.py",
    "core/search/test_peaks.py",
    ("ROOT = 1.4143", "ROOT = 1.0", "images that peak elsewhere are missed"),
    ("            top = other_height + reach", "            top = other_height", "a window of peaks is too narrow"),
)
SEARCH += _of(
    "stabilitykit/search/pairs/peaks.py",
    "core/search/test_peaks.py",
    ("if not all(x[0] >= -LARGEST and x[1] <= LARGEST for x in seen):", "if False:", "a NaN is not named"),
)
SEARCH += _of(
    "stabilitykit/search/pairs/tree_kernels.py",
    "core/search/test_peaks.py",
    ("            return t\n    return 0", "            return 0\n    return 0", "long readouts have no depth"),
)
SEARCH += _of(
    "stabilitykit/search/pairs/screen_keys.py",
    "core/search/test_margins.py core/search/test_screen.py::test_lower_bounds_never_exceed_distances",
    ("return 1.05 * (m + 41) * UNIT", "return 0.0", "the screen's float32 products have no margin"),
)
SEARCH += _of(
    "stabilitykit/search/pairs/screen_kernels.py",
    "core/search/test_margins.py",
    ("* (1.0 + 2.0**-22))", "* (1.0 - 2.0**-22))", "the screen's limit is rounded down"),
)
SEARCH += _of(
    "stabilitykit/search/pairs/sweep.py",
    "core/search/test_margins.py",
    (
        "error = 4 * (readout + 4) * 2.0**-52 * np.sqrt(readout) * largest",
        "error = 0.0 * largest",
        "keys of the sweep have no margin",
    ),
    (
        "window = int(np.ceil(reach / widths[2] * (1 + 1e-6))) + 2",
        "window = int(reach / widths[2])",
        "the sweep's window is too narrow",
    ),
    (
        "reach = bound * (1 + 1e-12) + keys.error + UNDERFLOW",
        "reach = bound * 0.99 + keys.error",
        "the sweep's reach is too short",
    ),
    ("[0, 1, columns - 1, columns, columns + 1]", "[0, 1, columns, columns + 1]", "a neighbouring cell is left out"),
)
SEARCH += _of(
    "stabilitykit/search/pairs/sweep_kernels.py",
    "core/search/test_margins.py",
    (
        "return reach * reach * (1.0 + 1e-14) + TINY",
        "return reach * reach * (1.0 - 1e-14)",
        "the sweep's limit is rounded down",
    ),
    (
        "return 1.0 + (columns.shape[0] + 8) * 2.0**-23, 1e-36",
        "return 1.0, 1e-36",
        "the sweep's float32 sums have no margin",
    ),
)
SEARCH += _of(
    "stabilitykit/search/pairs/grid_keys.py",
    "core/search/test_grid.py::test_keys_are_nearer_than_their_images_but_for_the_error",
    (
        "error += 2.0**-23 * 1.001 * float(np.maximum(np.abs(low), np.abs(high)).max()) + 1e-44",
        "error += 0.0",
        "keys of the grid in float32 have no margin",
    ),
)
SEARCH += _of(
    "stabilitykit/search/pairs/grid.py",
    "core/search/test_grid.py",
    (
        "window = int(np.ceil(reach / widths[count] * (1 + 1e-6))) + 2",
        "window = int(reach / widths[count] / 2)",
        "the grid's window is too narrow",
    ),
    (
        "steps = np.array(list(itertools.product((-1, 0, 1), repeat=count)), dtype=np.int64)",
        "steps = np.array(list(itertools.product((0, 1), repeat=count)), dtype=np.int64)",
        "the grid leaves out neighbouring cells",
    ),
    ("if bound[cell] <= guess or guess >= widest:", "if bound[cell] < np.inf:", "any pair within a cell is an answer"),
)
SEARCH += _of(
    "stabilitykit/search/pairs/grid_kernels.py",
    "core/search/test_grid.py",
    (
        "best * depths * (1.0 + 1e-12) + KEYS * error",
        "best * (1.0 + 1e-12) + KEYS * error",
        "the mean's reach is too short",
    ),
    ("near += np.int32(far <= reach) << np.int32(n)", "near |= np.int32(far <= reach)", "a block tells no image"),
    ("near += np.int32(total <= reach) << np.int32(n)", "near |= np.int32(total <= reach)", "a sum tells no image"),
)
SEARCH += _of(
    "stabilitykit/search/pairs/search.py",
    "core/search/test_grid.py::test_known_pairs_change_no_answer",
    ("if pair[0, 0] < pair[0, 1]:", "if True:", "a known pair of one group is a bound"),
)
SEARCH += _of(
    "plugins/stabilitykit_expansivity/curve.py",
    "plugins/expansivity/test_expansivity.py::test_curve_is_that_of_a_search_of_every_subsample",
    (
        "if np.isin(ends, rows).all():",
        "if np.isin(ends, rows).any():",
        "the whole sample's pair is outside a subsample",
    ),
)
CERTIFICATES = _of(
    "plugins/stabilitykit_lipschitz/rounding.py",
    "plugins/lipschitz/test_rounding.py",
    ("k = (terms + 2) * UNIT", "k = 0.0 * terms", "sums have no rounding"),
    (
        "return float(np.nextafter(value * (1.0 + 1e-14), np.inf)) if value > 0 else TINY",
        "return value",
        "bounds are not rounded upward",
    ),
    (
        "if is_positive(level * np.eye(len(gram)) - gram, error + 4 * UNIT * (level + rows.max() ** 2)):",
        "if True:",
        "a norm bound is not proven",
    ),
    ("= (residual + lost + error) * (1.0 + 1e-10) <= shift", "= shift > -np.inf", "any factor proves positivity"),
    (
        "= (residual + lost + error) * (1.0 + 1e-10) <= shift",
        "= (residual + lost) * (1.0 + 1e-10) <= shift + 1e-3",
        "a residual may be large",
    ),
    (
        "    shifted = a - shift[..., None, None] * np.eye(size)\n",
        "    shifted = a + shift[..., None, None] * np.eye(size)\n",
        "an indefinite matrix is positive",
    ),
    (
        "return times(scale, math.sqrt(float(np.sum(scaled * scaled))) * (1.0 + gamma(matrix.size)))",
        "return times(scale, math.sqrt(float(np.sum(scaled * scaled))) * (1.0 - 1e-12))",
        "the Frobenius norm is rounded down",
    ),
)
CERTIFICATES += _of(
    "plugins/stabilitykit_lipschitz/certificate.py",
    "plugins/lipschitz/test_certificate.py",
    (
        "        if residual <= margin:\n            return True\n",
        "        return True\n",
        "any multipliers are a proof",
    ),
    ("if 3.0 * residual <= margin:", "if True:", "a certificate is not checked"),
    (
        "    if any(i not in factor.diag for i in states):\n        return np.inf\n",
        "    if any(i not in factor.diag for i in states):\n        return 0.0\n",
        "half a factor proves",
    ),
    (
        "for s in [mu, *t]):\n        return False",
        "for s in [mu]):\n        return False",
        "negative multipliers are a proof",
        "their roots are NaN, and a matrix of NaN has no factor",
    ),
    (
        "error[np.diag_indices(len(error))] += (scaled.diagonal[i] - shift) - diagonal[i]",
        "error[np.diag_indices(len(error))] += scaled.diagonal[i] - diagonal[i]",
        "the margin is not subtracted",
    ),
    (
        "sums = [np.full(len(v), 8.0 * UNIT) for v in d]",
        "sums = [np.zeros(len(v)) for v in d]",
        "forming the matrix costs no rounding on the diagonal",
    ),
    (
        "total_mu = float(proof.sum())",
        "total_mu = float(proof.max())",
        "the l-infinity bound is the largest multiplier",
    ),
)
CERTIFICATES += _of(
    "plugins/stabilitykit_lipschitz/farkas.py",
    "plugins/lipschitz/test_exact.py::test_only_empty_systems_are_ruled_out "
    "plugins/lipschitz/test_exact.py::test_empty_systems_are_ruled_out_by_their_own_multipliers "
    "plugins/lipschitz/test_farkas.py",
    ("> 4.0 * gamma(a.shape[0] + a.shape[1] + 8) * size + UNIT", "> 0.0", "a pattern is ruled out by rounding"),
    ("    y = np.maximum(y, 0.0)\n", "", "negative multipliers rule patterns out"),
    ("all(v >= 0 for v in exact) and", "", "multipliers of both signs rule patterns out"),
    (
        "least = float(np.minimum(sides * low, sides * high).sum())",
        "least = float((sides * low).sum())",
        "one corner stands for the box",
    ),
)
CERTIFICATES += _of(
    "plugins/stabilitykit_lipschitz/slopes.py",
    "plugins/lipschitz/test_slopes.py",
    (
        "return np.maximum(low, least), np.minimum(high, most)",
        "return low, high",
        "local slopes are wider than global ones",
    ),
    (
        "return np.maximum(low, least), np.minimum(high, most)",
        "return np.maximum(low, least), np.minimum(high, most) * 0.99",
        "local slopes are too small",
    ),
    ("            high = np.where(inside, np.maximum(high, most), high)\n", "", "a turning point inside is missed"),
)
CERTIFICATES += _of(
    "plugins/stabilitykit_lipschitz/trace.py",
    "plugins/lipschitz/test_reading.py plugins/lipschitz/test_batch.py",
    (
        "if not (inside == inside[:1]).all() or (inside.size and not 0 <= inside.min() <= inside.max() < size):",
        "if False:",
        "networks that mix images are read",
    ),
)
CERTIFICATES += _of(
    "plugins/stabilitykit_lipschitz/product.py",
    "plugins/lipschitz/test_rounding.py",
    ("return (bound + error) * (1 + 1e-14)", "return bound", "folding's rounding is left out of the product"),
    ("    return total * (1 + 1e-10)\n", "    return 0.0\n", "folding's rounding is left out of the certificate"),
)
CERTIFICATES += _of(
    "plugins/stabilitykit_adapters/equivalence.py",
    "plugins/adapters/test_equivalence.py",
    (
        '"bit_exact": max(differences) == 0.0 and tail == 0.0,',
        '"bit_exact": max(differences) < 1e-3 and tail < 1e-3,',
        "nearly the model is the model",
    ),
    ('"bit_exact": max(differences) == 0.0 and tail == 0.0,', '"bit_exact": tail == 0.0,', "states are not compared"),
    ('"deterministic": bool(torch.equal(plain, again)),', '"deterministic": True,', "noise goes unseen"),
    (
        'filled = model.readout(state, fill=float("nan"))',
        "filled = logits",
        "a tail that reads past the state goes unseen",
    ),
    (
        '            return float("inf")\n        if not',
        "            return 0.0\n        if not",
        "states of other shapes agree",
    ),
    (
        'worst = max(worst, float(gap.max()) if not bool(gap.isnan().any()) else float("inf"))',
        "worst = max(worst, float(gap.nan_to_num(0.0).max()))",
        "NaN agrees with numbers",
    ),
    ("    if idle:\n", "    if False:\n", "idle blocks go unseen"),
    (
        "        if bool(torch.equal(moved, logits)):\n",
        "        if False:\n",
        "a tail that ignores the state goes unseen",
    ),
    ("            parameter.data = data\n", "            pass\n", "the certificate zeroes the network"),
    ("    if layers:\n", "    if False:\n", "untrained BatchNorm goes unseen"),
    ("other = copy.deepcopy(model)", "other = model", "the certificate randomises the network"),
    (
        "        state = model.block(t, state)\n        differences.append",
        "        state = model.block(t, seen[t])\n        differences.append",
        "blocks are not chained",
        "by induction the chain is exact where every block is",
    ),
)
CERTIFICATES += _of(
    "stabilitykit/evaluation/cautions.py",
    "plugins/adapters/test_audit.py::test_audit_of_a_users_module",
    ("    if idle:\n", "    if False:\n", "the first screen says nothing of idle blocks"),
)
PROPERTIES = _of(
    "plugins/stabilitykit_expansivity/constants.py",
    "plugins/expansivity/test_expansivity.py::test_float32_storage_says_upper_bound_with_an_interval_that_holds",
    ("FLOAT32_SLACK = 2.0**-23", "FLOAT32_SLACK = 0.0", "float32 copies have no margin"),
)
PROPERTIES += _of(
    "plugins/stabilitykit_expansivity/constants.py",
    "plugins/expansivity/test_laws.py::test_blind_depths_change_no_constant "
    "plugins/topological/test_courses.py::test_properties_keep_the_contract",
    ("if t not in left_out]", "]", "blind depths count"),
    ("closest_pairs(trajectory.seen, groups", "closest_pairs(trajectory.values, groups", "blind depths are searched"),
    ("int(trajectory.seeing[found.block])", "int(found.block)", "depths count among those that are not blind"),
)
PROPERTIES += _of(
    "plugins/stabilitykit_shadowing/property.py",
    "plugins/shadowing/test_blind.py",
    ("                trajectory.seen, labels=", "                values, labels=", "steps into blind depths are free"),
    ("lower_bounds(context.trajectory.seen,", "lower_bounds(context.trajectory.values,", "verified with blind depths"),
)
PROPERTIES += _of(
    "plugins/stabilitykit_shadowing/digits.py",
    "plugins/shadowing/test_blind.py plugins/shadowing/test_digits.py",
    ("block = int(trajectory.seeing[number])", "block = int(number)", "the smallest jump is at another depth"),
    ("delta - SUBTRACTION) if lost", "delta) if lost", "a lower bound above what subtraction knows"),
    ('depth = int(np.argmax(orbit["jumps"])) + 1', "depth = 1", "digits of another jump"),
)
PROPERTIES += _of(
    "stabilitykit/dynamics/digits.py",
    "core/test_digits.py",
    ("np.put_along_axis(others, largest, 0.0, axis=-1)", "pass", "log1p counts the largest term"),
    ("SUBTRACTION = 2 * 24", "SUBTRACTION = 0 * 24", "subtraction loses nothing"),
    ("NETWORK_ULPS = 4.0", "NETWORK_ULPS = 0.04", "the network rounds a hundredth of what it does"),
)
PROPERTIES += _of(
    "plugins/stabilitykit_expansivity/constants.py",
    "plugins/expansivity/test_digits.py",
    ("np.flatnonzero(values < LIMIT)", "np.flatnonzero(values < 0.0)", "tables print what subtraction left"),
    ("max(0.0, found.value - SUBTRACTION), value)", "found.value, value)", "the search tells all pairs apart"),
)
PROPERTIES += _of(
    "stabilitykit/reporting/reference.py",
    "core/test_reference.py",
    ("and row.kind is not _OPPOSITE.get(kind)", "", "an upper bound is placed beside lower ones"),
    ("(constant, n, readout, space)", "(constant, row.n, readout, space)", "values of another N are neighbours"),
)
PROPERTIES += _of(
    "plugins/stabilitykit_topological/theorem.py",
    "plugins/topological/test_courses.py",
    (
        "elif certified and lip.kind not in (Kind.UPPER, Kind.EXACT):",
        "elif False:",
        "a bound without a certified Lip(g)",
    ),
)
PROPERTIES += _of(
    "plugins/stabilitykit_topological/true_orbits.py",
    "plugins/topological/test_courses.py",
    ("if only is None and not together:", "if False:", "changes on the true orbit are left out"),
    ("here[t] = there[t + 1]", "here[t] = here[t + 1]", "the readout before a transition is that of the perturbed one"),
    ("block(t, state) if only in (None, t) else true", "block(t, state)", "a reset goes on"),
)
PROPERTIES += _of(
    "plugins/stabilitykit_precision/network.py",
    "plugins/precision/test_precision.py plugins/precision/test_parts.py",
    ("enabled=False) if self.converted", "enabled=False) if False", "what is cast runs under autocast"),
    ("            network.logits(example[:TRIED])\n", "", "a network that does not run in the format is called cast"),
    ("        integers.calibrated()\n", "        pass\n", "int8 is the float network"),
    ("return self.twin.logits(self._enter(inputs))", "return self.twin.logits(inputs)", "inputs are not converted"),
)
PROPERTIES += _of(
    "plugins/stabilitykit_precision/layers.py",
    "plugins/precision/test_layers.py plugins/precision/test_precision.py",
    (
        'and not getattr(module, "transposed", False)',
        "and True",
        "transposed convolutions are rounded along their inputs",
    ),
    ("        if others:\n", "        if False:\n", "what stays in float is not named"),
    ("if isinstance(module._parameters.get(name), torch.Tensor))", ")", "a computed weight counts as rounded"),
)
PROPERTIES += _of(
    "plugins/stabilitykit_precision/integers.py",
    "plugins/precision/test_layers.py plugins/precision/test_precision.py",
    ("            if r.calls == 0\n", "            if False\n", "inputs that no hook sees go unsaid"),
    (
        "{id(weight): weight for layer",
        "{(id(weight), layer.name): weight for layer",
        "shared weights are rounded twice",
    ),
)
PROPERTIES += _of(
    "plugins/stabilitykit_precision/rounding.py",
    "plugins/precision/test_precision.py",
    ("/ 127.5)", "/ 127.0)", "scales are not torch's"),
    ("low.float().clamp_max(0)", "low.float()", "0 does not stay 0"),
)
PROPERTIES += _of(
    "plugins/stabilitykit_precision/alone.py",
    "plugins/precision/test_precision.py plugins/precision/test_parts.py",
    ("        moved = network.block(t, state, after)\n", "        moved = after\n", "no block runs in the format"),
    ("        state = after\n", "        state = moved\n", "parts do not run alone"),
)
PROPERTIES += _of(
    "plugins/stabilitykit_precision/property.py",
    "plugins/precision/test_precision.py plugins/precision/test_parts.py",
    (
        "rows = np.union1d(sampled, changed)",
        "rows = sampled",
        "the images whose decision changes are not run part by part",
    ),
    ("if context.rerun.tolerance != SAME_MACHINE:", "if False:", "another machine's rounding is an alarm"),
    (
        "(members,) = own_batches(row, len(context.indices), context.batch_size)",
        "members = row",
        "a witness is recomputed in another batch",
    ),
)
PROPERTIES += _of(
    "plugins/stabilitykit_adapters/course_steps.py",
    "plugins/adapters/test_courses.py",
    ('step: Step = "equal" if same else "transition"', 'step: Step = "equal"', "transitions count as equal steps"),
    (
        'names, step="residual", lead=cut)',
        'names, step="residual", lead=piece.start)',
        "what reorders is left out, too",
    ),
)
PROPERTIES += _of(
    "plugins/stabilitykit_adapters/course_model.py",
    "plugins/adapters/test_courses.py",
    ("return state if lead is None else self._led(", "return state if True else self._led(", "a lead is left out"),
    (
        "values = dict(zip(everything, self._replayer.run(part, (inputs,), inputs.shape[0])))",
        "values = dict(zip(everything, self._replayer.run(part, (inputs * 2,), inputs.shape[0])))",
        "the certificate compares states of other inputs",
    ),
    (
        "state = self._led(part, state, self.run.cuts[end])",
        "state = self._led(part, state, self.run.cuts[end]) * 1.01",
        "the end is not the network",
    ),
)
PROPERTIES += _of(
    "plugins/stabilitykit_adapters/equivalence.py",
    "plugins/adapters/test_equivalence.py plugins/adapters/test_courses.py",
    (
        '"bit_exact": max(differences) == 0.0 and tail == 0.0,',
        '"bit_exact": max(differences) == 0.0,',
        "an end that is not the network is called exact",
    ),
)
PROPERTIES += _of(
    "plugins/stabilitykit_separation/kernels.py",
    "plugins/separation/test_separated.py",
    ("values[t, other])) > eps:", "values[t, other])) >= eps:", "images eps apart count as separated"),
    (
        "if reach[a] + reach[b] + slack < best:",
        "if reach[b] + slack < best:",
        "pairs are skipped that are farther apart",
    ),
)
PROPERTIES += _of(
    "plugins/stabilitykit_separation/entropy.py",
    "plugins/separation/test_properties.py",
    ("if rounded or every > self.pairs else Kind.EXACT", "if rounded else Kind.EXACT", "a draw of pairs is exact"),
    ("elif near <= witness", "elif near < -1 <= witness", "sets that are not separated are verified"),
)
PROPERTIES += _of(
    "plugins/stabilitykit_separation/window.py",
    "plugins/separation/test_properties.py",
    ("if (labels[0] == labels[1]) != (name == WITHIN):", "if False:", "a pair of the other kind is verified"),
    ("inside[t].value < outside[t].value]", "inside[t].value <= 2 * outside[t].value]", "closed windows are open"),
    ("closest_pair(trajectory.seen, labels", "closest_pair(trajectory.values, labels", "blind depths are searched"),
)
PROPERTIES += _of(
    "plugins/stabilitykit_separation/outlying.py",
    "plugins/separation/test_properties.py",
    (
        "if not np.allclose((own, other), stored, rtol=relative, atol=absolute):",
        "if False:",
        "altered distances are verified",
    ),
    (
        "own[rows], own_distance[rows] = np.where(found >= 0, rows[found], -1), apart",
        "own[rows], own_distance[rows] = np.where(found >= 0, found, -1), apart",
        "neighbours are other images",
    ),
)
PROPERTIES += _of(
    "plugins/stabilitykit_adapters/outputs.py",
    "plugins/adapters/test_outputs.py",
    ("if values.dtype.itemsize < 4:", "if False:", "different probabilities have one logarithm"),
)
PROPERTIES += _of(
    "plugins/stabilitykit_lipschitz/readouts.py",
    "plugins/topological/test_courses.py",
    ("if shape == other_shape and same(head, other):", "if True:", "one bound serves readouts that differ"),
)
PROPERTIES += _of(
    "plugins/stabilitykit_lipschitz/property.py",
    "plugins/topological/test_courses.py",
    ("if not any(t > 0 for t in missing) and later:", "if later:", "depths without a certificate are passed over"),
)
PROPERTIES += _of(
    "plugins/stabilitykit_lipschitz/margins.py",
    "plugins/lipschitz/test_margins.py",
    ("        lower = apart - lost -", "        lower = apart -", "margins are larger than they are"),
    ("np.isnan(radii) | (margins <= 0)", "np.isnan(radii)", "lost decisions have radii"),
    ("near = np.flatnonzero(slack > CLOSE", "near = np.flatnonzero(slack > 1e9", "rows near each other lose digits"),
    ("total += (apart *", "total += 0 * (apart *", "classes are bounded by nothing"),
)
PROPERTIES += _of(
    "plugins/stabilitykit_lipschitz/local_radius.py",
    "plugins/lipschitz/test_margins.py",
    ("bound * radius * (1 + 4 * UNIT) < margin", "bound * radius < 2 * margin", "local radii that do not hold"),
    ("        if not margins[b] > 0:", "        if False:", "lost decisions have local radii"),
)
PROPERTIES += _of(
    "plugins/stabilitykit_lipschitz/answers.py",
    "plugins/lipschitz/test_local_many.py::test_remembered_regions_are_those_that_comparing_each_finds",
    ("np.full(LINES, float(region.radius))", "np.full(LINES, 2 * region.radius)", "balls have too wide shadows"),
    ("argsort(-self._bounds", "argsort(self._bounds", "a region inside is not the largest one"),
)
PROPERTIES += _of(
    "plugins/stabilitykit_lipschitz/closed_radii.py",
    "plugins/lipschitz/test_margins.py::test_radii_of_many_images_are_those_of_each_and_hold",
    ("* (1 + 4 * UNIT) < margins[at]", "* 0.5 < margins[at]", "closed radii that do not hold"),
    ("np.where(margins > 0, floors, 0.0)", "floors + 0.0", "lost decisions keep their floors"),
    ("            every = holds.all(1)", "            every = holds.any(1)", "one class decides for all"),
)
PROPERTIES += _of(
    "plugins/stabilitykit_lipschitz/centred.py",
    "plugins/lipschitz/test_margins.py::test_radii_of_many_images_are_those_of_each_and_hold "
    "plugins/lipschitz/test_local_many.py::test_no_slope_in_the_region_is_above_the_bound",
    ("total = total + own *", "total = total + 0 * own *", "slopes that move add nothing to the closed form"),
    ("rows][:, None] - matrix", "rows][:, None]", "pairs of classes are bounded by one of them"),
)
PROPERTIES += _of(
    "plugins/stabilitykit_lipschitz/propagation.py",
    "plugins/lipschitz/test_local_many.py::test_no_slope_in_the_region_is_above_the_bound "
    "plugins/lipschitz/test_local_many.py::test_a_region_with_constant_inputs_of_a_normalisation_is_refused",
    ("np.fmin(z_high, at + margin)", "np.fmin(z_high, at)", "pre-activations stay at the centre's"),
    ("for row in np.flatnonzero(~bounded):", "for row in ():", "constant inputs of normalisations are bounded"),
)
PROPERTIES += _of(
    "plugins/stabilitykit_lipschitz/layered_margins.py",
    "plugins/lipschitz/test_certified_radius.py::test_rows_of_the_last_layer_bound_every_pair",
    ("self._rows.of(a) * self._before", "self._rows.of(a)", "what lies before the last layer is left out"),
)
PROPERTIES += _of(
    "plugins/stabilitykit_lipschitz/whole_readout.py",
    "plugins/lipschitz/test_certified_radius.py::test_a_course_has_radii_where_its_readouts_are_no_chain_of_layers",
    (" and context.readout.same_as_next(t - 1)", "", "depths of other readouts share a bound"),
)
PROPERTIES += _of(
    "plugins/stabilitykit_lipschitz/displacement.py",
    "plugins/lipschitz/test_certified_radius.py::test_formats_never_change_more_than_is_not_certified",
    ("own = state if before is None else self._step(t, inputs, before)", "own = state", "blocks alone are all before"),
)
PROPERTIES += _of(
    "plugins/stabilitykit_lipschitz/layered_property.py",
    "plugins/lipschitz/test_property.py::test_layer_wise_bounds_serve_readouts_that_are_no_chain",
    ("if abs(slope - measurement.value) <= slack else", "if True else", "any slope is verified"),
)
PROPERTIES += _of(
    "plugins/stabilitykit_lipschitz/radius_again.py",
    "plugins/lipschitz/test_certified_radius.py",
    ("slope > bound[0] * (1 + AWAY):", "False:", "a bound below autograd's slope is verified"),
)
PROPERTIES += _of(
    "plugins/stabilitykit_shadowing/bracket_lower.py",
    "plugins/shadowing/test_bracket.py plugins/shadowing/test_profile.py",
    ("MARGIN = 1e-12", "MARGIN = -1e-6", "the lower side is above the upper one"),
)
DATA = _of(
    "plugins/stabilitykit_vision/ranges.py",
    "plugins/vision/test_guards.py plugins/vision/test_ranges.py",
    ("        if not inside.all():\n", "        if False:\n", "pixels outside their range are measured"),
    ("            if not finite.all():\n", "            if False:\n", "NaN pixels are measured"),
    ("    if brightest <= 0:\n", "    if False:\n", "black images are measured"),
    ("    if brightest <= HARDLY * (1 + 1e-3):\n", "    if False:\n", "pixels 0..15 taken for 0..255 are measured"),
    ("    if given or brightest >= DIM:\n", "    if brightest >= DIM:\n", "a range given by hand is doubted"),
    ("or parsed.low >= parsed.high:", ":", "an empty range is taken"),
    (
        "stored.astype(np.float32) / np.float32(self.high)",
        "stored.astype(np.float32) / np.float32(256)",
        "bytes are divided by 256",
    ),
    (
        '    if dtype.kind == "u" and dtype.itemsize == 2:\n        return Range(0, 65535)\n',
        "",
        "16 bits have no range",
    ),
)
DATA += _of(
    "plugins/stabilitykit_vision/labels.py",
    "plugins/vision/test_guards.py plugins/vision/test_labels.py",
    ("((rows != 0).sum(axis=1) == 1)", "True", "rows with two ones are a class"),
    ("        if not whole.all():\n", "        if False:\n", "fractions are classes"),
    ("    if low < 0 or high >= count:\n", "    if low < 0:\n", "labels beyond the classes"),
    ("    if low < 0 or high >= count:\n", "    if high >= count:\n", "negative labels"),
    ("    values = values - first\n", "", "labels_from is ignored"),
    ("    if unknown is not None:\n", "    if False:\n", "a label without a class"),
)
DATA += _of(
    "stabilitykit/dynamics/dataset.py",
    "core/test_dataset.py",
    ("        if len(labels) != len(self):\n", "        if False:\n", "labels of other images"),
    ("if labels.min() < 0 or labels.max() >= classes:", "if labels.min() < 0:", "a label beyond the class names"),
    (
        "            order[members] = np.arange(len(members))\n",
        "            order[members] = members\n",
        "numbers within a class count all images",
    ),
)
DATA += _of(
    "stabilitykit/base/memory.py",
    "core/test_memory.py",
    ("if room is not None and declared > room * SHARE:", "if False:", "an archive beyond memory is unpacked"),
    ("if not asked_for and declared > SUSPICIOUS_BYTES and", "if False and", "a bomb is unpacked"),
)

REVIEW = _of(
    "stabilitykit/review/again.py",
    "core/test_verify.py::test_red core/test_verify.py::test_settings_changed_in_run_json_turn_numbers_red "
    "core/test_verify.py::test_green core/test_again.py",
    (
        'if fingerprint != record["model"]["fingerprint"] and fingerprint not in former:',
        "if False:",
        "changed weights are not named",
    ),
    (
        'if not isinstance(dataset, Mapping) or dataset.get("fingerprint") != record["dataset"]["fingerprint"]:',
        "if False:",
        "changed images are not named",
    ),
    ("if key in recorded and recorded[key] != record[key]", "if False", "verify ignores changed settings"),
    ("            if damage:\n", "            if False:\n", "verify goes on with a model that a property changed"),
    (
        "        found |= {name: value for name, value in more.items() if found.get(name) is None}\n",
        "",
        "numbers that rest on all images are not recomputed",
    ),
)
REVIEW += _of(
    "stabilitykit/review/judging.py",
    "core/test_verify.py::test_red core/test_verify.py::test_witness_classes_are_compared_without_measuring_again "
    "core/test_verify.py::test_every_altered_leaf_fails_or_is_listed_by_name core/test_verify.py::test_green",
    (
        "elif isinstance(witness, float) and m.value is not None and not close(witness, m.value, tolerance):",
        "elif False:",
        "a recomputed witness is not compared",
    ),
    (" or inconsistent(self.pair.dataset, m)\n", "\n", "verify ignores the witness's classes"),
    ("disagreements(files, cells, plan)\n    ]", "()\n    ]", "measurements.csv is never compared"),
    ("            wrong += self._table(", "            self._table(", "tables are not compared"),
    ('        wrong += self._failing("", outside, self._as_stored(self.again.cell))\n', "", "records are not compared"),
    ('wrong = self._failing("result", rest, now)', "wrong = []", "notes and images are not compared"),
)
REVIEW += _of(
    "stabilitykit/review/circumstances.py",
    "core/test_again.py core/test_verify.py::test_another_machine_is_compared_within_the_drift "
    "core/test_verify.py::test_red "
    "core/test_verify.py::test_numbers_are_equal_to_the_last_bit_on_the_machine_of_the_run",
    ("return DRIFT if self.other_machine else (0.0, 0.0)", "return DRIFT", "the same machine may give other bits"),
    (
        "DRIFT: Tolerance = (100 * LOGIT_BOUND,",
        "DRIFT: Tolerance = (1e6 * LOGIT_BOUND,",
        "another machine may give any number",
    ),
    (
        'if path == f"record.{COMPUTES}" and self.other_machine:',
        'if path == f"record.{COMPUTES}":',
        "the digest of what is computed is not compared",
    ),
)
REVIEW += _of(
    "stabilitykit/review/leaves.py",
    "core/test_leaves.py",
    ("isinstance(reported, bool) is not isinstance(recomputed, bool) or reported", "reported", "true is 1"),
    ("range(max(len(reported), len(recomputed)))", "range(min(len(reported), len(recomputed)))", "longer lists agree"),
    (
        "[*reported, *(key for key in recomputed if key not in reported)]",
        "list(reported)",
        "what a run lacks goes unseen",
    ),
    ("math.isclose(*numbers, rel_tol=relative, abs_tol=absolute)", "True", "any two numbers are close"),
)
REVIEW += _of(
    "stabilitykit/review/consistency.py",
    "core/test_consistency.py core/test_verify.py::test_every_altered_leaf_fails_or_is_listed_by_name "
    "core/test_verify.py::test_cells_that_are_gone_or_were_copied "
    "core/test_verify.py::test_settings_changed_in_run_json_turn_numbers_red",
    (
        "if (column in header and safe_cell(row[column]) != true[column]) or len(row) > len(header):",
        "if False:",
        "fields of measurements.csv are not compared",
    ),
    (
        "        for column in CSV_COLUMNS:\n",
        '        for column in ("value",):\n',
        "only values of measurements.csv are compared",
    ),
    (
        "            if name in cell.record and cell.record[name] != value:\n",
        "            if False:\n",
        "settings changed in run.json go unseen",
    ),
    ('        if name != f"{cell.slug}.json":\n', "        if False:\n", "a cell in another's place goes unseen"),
    ('            yield key, "", "its file is missing in cells/"\n', "            pass\n", "missing cells go unseen"),
)
REVIEW += _of(
    "stabilitykit/review/comparison.py",
    "core/test_compare.py::test_space_readout_and_data_are_compared "
    "core/test_compare.py::test_a_ratio_is_the_other_value_over_the_first",
    (
        "return self.record.get(key, CONDITIONS[key][1])",
        "return CONDITIONS[key][1]",
        "compare ignores how numbers were measured",
    ),
    ("found = other.value / first.value", "found = first.value / other.value", "ratios are upside down"),
)
REVIEW += _of(
    "stabilitykit/review/resampling.py",
    "core/test_compare.py::test_a_change_is_real_where_its_interval_leaves_out_no_change "
    "core/test_compare.py::test_too_few_differing_images_are_never_a_real_change "
    "core/test_compare.py::test_block_interval_is_scipys_and_follows_the_ratios "
    "core/test_compare.py::test_blocks_are_disjoint_and_paired_where_the_images_are_the_same",
    ("    if obstacle:\n", "    if False:\n", "a change is called real between other settings"),
    ("    if not interval.confidence:\n", "    if False:\n", "a spread decides that a change is real"),
    (
        "real = not interval.low <= neutral <= interval.high",
        "real = interval.high < neutral",
        "only a fall is called real",
    ),
    ('neutral = 1.0 if interval.of == "ratio" else 0.0', "neutral = 0.0", "every ratio is called a real change"),
    ("FEWEST = 6\n", "FEWEST = 1\n", "a change of one image is called real"),
    ("order[k * size : (k + 1) * size]", "order[:size]", "the blocks are one and the same"),
    (
        "zip((self.first, self.other), (rows[0], rows[-1]))",
        "zip((self.first, self.other), (rows[0], rows[0]))",
        "other images are taken for the same",
    ),
    ("len(values) == BLOCKS and min(values) > 0", "min(values) > 0", "blocks without a constant are left out"),
    ("stats.t.ppf((1 + LEVEL) / 2,", "stats.t.ppf(LEVEL,", "intervals over blocks hold 90 %"),
)
REVIEW += _of(
    "stabilitykit/review/settings.py",
    "core/test_gate.py "
    "core/test_compare.py::test_any_setting_that_differs_is_said "
    "core/test_compare.py::test_a_setting_that_nobody_thought_of_is_said_too "
    "core/test_compare.py::test_other_images_of_one_dataset_are_said",
    (
        "found = {key: value for key, value in record.items() if key not in NO_SETTINGS}",
        'found = {key: record[key] for key in ("readout", "space", "batch_size", "seed") if key in record}',
        "settings are a list of names",
    ),
    ('    return found | {"preprocessing":', '    return found or {"preprocessing":', "preprocessing is not compared"),
    ('if record.get("limit") is None or', "if True or", "a part of the images counts as all of them"),
)
REVIEW += _of(
    "stabilitykit/review/conditions.py",
    "core/test_compare.py::test_any_setting_that_differs_is_said "
    "core/test_compare.py::test_a_setting_that_nobody_thought_of_is_said_too "
    "core/test_compare.py::test_other_images_of_one_dataset_are_no_obstacle_but_other_data_are "
    "core/test_compare.py::test_other_images_of_one_dataset_are_said "
    "core/test_compare.py::test_another_code_or_machine_is_said_and_decides_nothing",
    ('if mine.get("fingerprint") != theirs.get("fingerprint"):', "if False:", "other data count as the same"),
    ("        for found in differences(mine, options):\n", "        for found in ():\n", "options are not compared"),
    ("    if subset(first) != subset(other):\n        yield", "    if False:\n        yield", "other images go unsaid"),
    ("    if moved:\n", "    if False:\n", "another machine goes unsaid"),
)
CHAIN = _of(
    "stabilitykit/evaluation/chain_check.py",
    "core/test_chain_check.py",
    (
        "    if reasons and not settings.uncertified:\n",
        "    if False:\n",
        "a model that its blocks are not is measured",
    ),
    ("ROUNDING = 1e-5\n", "ROUNDING = 10.0\n", "any difference is rounding"),
    (
        "        result.measurements[:] = [replace",
        "        _ = [replace",
        "numbers of uncertified models are not marked",
    ),
    ("    if repeat > ROUNDING:\n", "    if False:\n", "noise goes unseen"),
    (
        "        if drift > ROUNDING and not _is_rounding(model, mixed, depths, drift):\n",
        "        if False:\n",
        "statistics over the batch go unseen",
    ),
    ("        chain = max(chain, _relative(chained, plain))\n", "", "blocks and model are not compared"),
    ("<= DOUBLE_ROUNDING", "<= 1e9", "every drift vanishes in float64"),
    ("if gap.numel() else 0.0\n    finite", "if False else 0.0\n    finite", "all differences are 0"),
)
CHAIN += _of(
    "stabilitykit/training/fitting.py",
    "core/test_fitting.py core/test_checkpoints.py",
    (
        "    if fit.wrong or (resampled and not how.resample):\n",
        "    if resampled and not how.resample:\n",
        "a checkpoint that does not fit is loaded",
    ),
    ("    if fit.wrong or (resampled and not how.resample):\n", "    if fit.wrong:\n", "weights are resampled unasked"),
    ("    _require_finite(fit.used, found.path)\n", "", "NaN weights are measured"),
    (
        "            elif not _same_kind(given, want):\n",
        "            elif False:\n",
        "quantised weights without scales are loaded",
    ),
    ("fit.rounded += [] if exact else [name]", "pass", "rounding of weights goes unsaid"),
    (
        "                    fit.torn.append(name)\n",
        "                    pass\n",
        "tied weights that differ are loaded",
    ),
    (
        "        fit.unused = [n for n, t in state.items() if n not in self.tensors and not self.known(n, t)]\n",
        "",
        "tensors nobody reads are dropped",
    ),
)
CHAIN += _of(
    "stabilitykit/training/containers.py",
    "core/test_checkpoints.py core/test_fitting.py",
    (
        'return torch.load(path, map_location="cpu", weights_only=True)',
        'return torch.load(path, map_location="cpu", weights_only=False)',
        "a checkpoint runs code",
    ),
)

MUTANTS = [
    *CACHE,
    *CONDITIONS,
    *RESULTS,
    *ROWS,
    *DYNAMICS,
    *MACHINE,
    *SUPERVISION,
    *FILES,
    *RUNS,
    *SEARCH,
    *CERTIFICATES,
    *PROPERTIES,
    *DATA,
    *REVIEW,
    *CHAIN,
]

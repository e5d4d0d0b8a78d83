"""A gate: conditions under which a finished run fails a build, on its own or against a baseline.

:mod:`condition` reads a condition (nothing of it is evaluated by Python), :mod:`pairing` finds what belongs to what in
two runs, :mod:`likeness` says whether two numbers may be compared, :mod:`change` is the rule where no condition is
given, :mod:`judge` puts them together and :mod:`verdicts` is what comes out. What cannot be decided closes the gate.
"""

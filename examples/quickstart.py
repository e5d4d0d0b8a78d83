"""Measure the embedded model on the embedded digits, look at the closest confusable pair, keep the run.

Run: python examples/quickstart.py [folder]
"""

import sys

import stabilitykit


def main() -> None:
    folder = sys.argv[1] if len(sys.argv) > 1 else None
    run = stabilitykit.evaluate("resnet18-digits", "digits", ["expansivity", "shadowing"], output=folder)
    for measurement in run["expansivity"].measurements:
        print(f"{measurement.name:40} {measurement.value:.6g}  ({measurement.kind}, N = {measurement.n})")

    closest = run["expansivity"]["expansive_constant.min"]
    (first, second), block = closest.witness["indices"], closest.witness["block"]
    print(
        f"\nimages {first} and {second} ({' and '.join(closest.witness['classes'])}) are {closest.value:.3g} apart "
        f"at depth {block}; along depth: {[f'{d:.2g}' for d in closest.witness['distances']]}"
    )
    print(run.frame()[["property", "measurement", "value", "kind", "n"]].to_string(index=False))


if __name__ == "__main__":
    main()

"""Finite-time Lyapunov exponents as a stabilitykit property; the implementation is named here, not imported."""

from stabilitykit import Component, Option, hookimpl


@hookimpl
def stabilitykit_properties() -> list[Component]:
    return [
        Component(
            kind="property",
            name="lyapunov",
            target="stabilitykit_lyapunov.lyapunov:Lyapunov",
            summary="finite-time Lyapunov exponents: how blocks stretch small changes of a state",
            reference="Storm et al. 2024, Finite-time Lyapunov exponents of deep neural networks",
            options=(
                Option("k", "int", 3, "singular values per Jacobian", minimum=1),
                Option("images", "int", 8, "images, drawn with the run's seed", minimum=1),
                Option("iterations", "int", 60, "most subspace iterations per Jacobian", minimum=1),
                Option("tolerance", "float", 1e-6, "relative residual at which an image stops", minimum=0),
                Option("dtype", "str", "float64", "arithmetic of the network's copy", choices=("float64", "float32")),
            ),
        )
    ]

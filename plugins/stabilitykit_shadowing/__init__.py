"""g-shadowing (Definition 2): how well are approximate orbits of a network followed by true ones?"""

from stabilitykit import Component, Option, ReportSection, hookimpl


@hookimpl
def stabilitykit_properties() -> list[Component]:
    return [
        Component(
            kind="property",
            name="shadowing",
            target="stabilitykit_shadowing.property:Shadowing",
            summary="g-shadowing constants Sh_exact, Sh_profile, Sh_paper, Sh_best, witnesses, the profile s(eps)",
            reference="Definition 2, Table 2",
            primary="family",
            options=(
                Option(
                    "family",
                    "str",
                    "nearest",
                    "pseudo-orbits: nearest images, low precision, or noise",
                    choices=("nearest", "precision", "noise"),
                ),
                Option("same_class", "bool", False, "nearest: step only to images of the same class"),
                Option("unvisited", "bool", False, "nearest: never step back to an image of the same orbit"),
                Option(
                    "format", "str", "bf16", "precision: number format of the blocks", choices=("bf16", "fp16", "int8")
                ),
                Option(
                    "noise_scale", "float", 0.01, "noise: length of the kick relative to the state's norm", minimum=0.0
                ),
                Option(
                    "tracers",
                    "str",
                    "data",
                    "true orbits that may trace: the images, those of the orbit's first class, or refined from images",
                    choices=("data", "same_class", "refined"),
                ),
                Option("start_tracer", "bool", True, "may the image an orbit starts from trace it"),
                Option("refine_orbits", "int", 256, "refined: orbits to refine, 0 for all", minimum=0),
                Option("refine_steps", "int", 30, "refined: gradient steps on h_0", minimum=1),
                Option("bracket", "bool", True, "bound s(eps) over all sample pseudo-orbits as well"),
                Option("exact", "bool", True, "decide s(eps) over all sample pseudo-orbits (needs bracket)"),
                Option(
                    "chains",
                    "bool",
                    False,
                    "also Sh_chain.mean and .max: the chains of the authors' code, which only the first block makes",
                ),
            ),
        )
    ]


@hookimpl
def stabilitykit_report_sections() -> list[ReportSection]:
    return [
        ReportSection("traced", "Best-traced images (Tables 4 and 5)", "stabilitykit_shadowing.sections:traced", 70),
        ReportSection("shadowing-profile", "Shadowing profile", "stabilitykit_shadowing.sections:profile", 80),
    ]

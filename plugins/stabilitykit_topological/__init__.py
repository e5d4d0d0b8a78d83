"""Topological g-stability (Definition 3): Theorem 1's bound, direct perturbation of the blocks, and Table 2."""

from stabilitykit import Component, Option, ReportSection, hookimpl

FAMILIES = ("gaussian", "bf16", "fp16", "int8", "pruning", "reset")


@hookimpl
def stabilitykit_properties() -> list[Component]:
    return [
        Component(
            kind="property",
            name="topological",
            target="stabilitykit_topological.theorem:Topological",
            summary="topological g-stable constant T_g >= Sh_g / Lip(g), with the direction of its two ingredients",
            reference="Theorem 1, Table 2",
            needs=("shadowing", "lipschitz"),
        ),
        Component(
            kind="property",
            name="perturbation",
            target="stabilitykit_topological.perturbation:BlockPerturbation",
            summary="topological g-stability measured directly: perturb the blocks, trace the perturbed orbits",
            reference="Definition 3",
            primary="families",
            options=(
                Option(
                    "families",
                    "str",
                    "gaussian+bf16+int8+pruning+reset",
                    "which perturbations, separated by + or spaces (also fp16), or all",
                    words=(*FAMILIES, "all"),
                ),
                Option(
                    "scales",
                    "str",
                    "0.01+0.1",
                    "gaussian: noise relative to each weight tensor's root mean square, separated by + or spaces",
                ),
                Option(
                    "fractions",
                    "str",
                    "0.3",
                    "pruning: shares of the smallest weights set to zero, separated by + or spaces",
                ),
                Option(
                    "samples",
                    "int",
                    None,
                    "images whose orbits are perturbed (seeded choice), 0 for all (default: a tenth, 20 to 100)",
                    minimum=0,
                ),
            ),
        ),
        Component(
            kind="property",
            name="table2",
            target="stabilitykit_topological.table2:Table2",
            summary="the paper's Table 2: g-expansive, g-shadowing, Lip(g), topological g-stable, each with its kind",
            reference="Table 2",
            wants=("expansivity", "shadowing", "lipschitz", "topological"),
        ),
    ]


@hookimpl
def stabilitykit_report_sections() -> list[ReportSection]:
    where = "stabilitykit_topological.sections:"
    return [
        ReportSection("table-2", "Table 2", where + "table2", 8),
        ReportSection("theorem-1", "Topological stability (Theorem 1)", where + "quotients", 100),
        ReportSection("perturbation", "Perturbed blocks", where + "perturbation", 110),
    ]

"""How trajectories separate: entropy of separated sets, the window between classes, images far from their own class."""

from stabilitykit import Component, Option, ReportSection, hookimpl

QUANTILE = r"(0|1|0?\.\d+|1\.0+)"
FIRST_DEPTH = Option("first_depth", "int", 0, "depths before this one do not count", minimum=0)


@hookimpl
def stabilitykit_properties() -> list[Component]:
    return [
        Component(
            kind="property",
            name="entropy",
            target="stabilitykit_separation.entropy:TrajectoryEntropy",
            summary="trajectory entropy h_T(eps) = log s_T(eps) / T by greedy (T, eps)-separated sets, per class",
            reference="Bowen 1971; Dinaburg 1970",
            options=(
                Option(
                    "quantiles",
                    "str",
                    "0.01+0.02+0.05+0.1+0.2+0.3+0.5+0.7+0.9",
                    "eps of the curve: quantiles, in [0, 1], of the distances d_T of pairs, separated by + or spaces",
                    pattern=f"{QUANTILE}([+ ]+{QUANTILE})*",
                ),
                Option("at", "float", 0.1, "the quantile whose eps the headline takes", minimum=0.0, maximum=1.0),
                Option("pairs", "int", 200_000, "pairs behind the quantiles, or all if fewer", minimum=1),
                FIRST_DEPTH,
            ),
        ),
        Component(
            kind="property",
            name="window",
            target="stabilitykit_separation.window:Window",
            summary="largest distance within a class against the smallest across classes, per depth and over depth",
            reference="Proposition 1 (window)",
            options=(FIRST_DEPTH,),
        ),
        Component(
            kind="property",
            name="outlying",
            target="stabilitykit_separation.outlying:Outlying",
            summary="images nearer to another class than to their own, by the largest distance over depth",
            reference="nearest neighbours under d_T",
            options=(
                Option("rows", "int", 20, "most outlying images kept in the table", minimum=1, maximum=1000),
                Option("show", "int", 3, "most outlying images to show with their neighbours", minimum=0, maximum=50),
                FIRST_DEPTH,
            ),
        ),
    ]


@hookimpl
def stabilitykit_report_sections() -> list[ReportSection]:
    where = "stabilitykit_separation.sections:"
    return [
        ReportSection("window", "Within and across classes", where + "window", 62),
        ReportSection("outlying", "Images far from their own class", where + "outlying", 64),
        ReportSection("entropy", "Trajectory entropy", where + "entropy", 66),
    ]

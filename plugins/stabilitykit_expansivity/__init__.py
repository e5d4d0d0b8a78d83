"""g-expansivity (Definition 1): how near do images of different classes come, block by block?"""

from stabilitykit import Component, Option, ReportSection, hookimpl


@hookimpl
def stabilitykit_properties() -> list[Component]:
    return [
        Component(
            kind="property",
            name="expansivity",
            target="stabilitykit_expansivity.expansivity:Expansivity",
            summary="g-expansive constants over pairs of images of different class, with witnesses",
            reference="Definition 1",
            options=(
                Option(
                    "pairs",
                    "str",
                    "labels",
                    "what separates two images: their labels, predicted classes, or final readouts (Definition 1 "
                    "literally)",
                    choices=("labels", "distinct", "predictions"),
                ),
                Option(
                    "curve",
                    "int",
                    5,
                    "points of the subsample curve: N, N/2, N/4...; 0 for none",
                    minimum=0,
                    maximum=16,
                ),
                Option("median_pairs", "int", 200_000, "pairs behind each median, or all if fewer", minimum=1),
                Option("table_rows", "int", 5_000, "class pairs kept per reduction, closest first", minimum=1),
                Option("show", "int", 6, "closest class pairs to show as images", minimum=0, maximum=100),
                Option(
                    "nearest",
                    "str",
                    "auto",
                    "each image's nearest one of another class (auto: where that takes at most about a minute)",
                    choices=("auto", "always", "never"),
                ),
                Option("first_depth", "int", 0, "depths before this one do not count", minimum=0),
                Option("extrapolate", "int", 0, "a larger N to foretell max and mean for; 0: none", minimum=0),
            ),
        )
    ]


@hookimpl
def stabilitykit_report_sections() -> list[ReportSection]:
    where, by_class = "stabilitykit_expansivity.sections:", "stabilitykit_expansivity.class_sections:"
    return [
        ReportSection("most-confusable", "Most confusable", where + "glance", 5),
        ReportSection("depth", "Along depth", where + "depth", 20),
        ReportSection("figures-2-3", "Constants per class (Figures 2 and 3)", by_class + "figures", 30),
        ReportSection("class-pairs", "Class pairs", by_class + "heat", 40),
        ReportSection("table-3", "Closest pairs (Table 3)", by_class + "closest", 50),
        ReportSection("subsample-curve", "Constants and N", where + "curve", 60),
    ]

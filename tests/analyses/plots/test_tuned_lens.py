"""The figure of both lenses: a panel per metric, a solid and a dashed line per kind of token."""

import pandas as pd

from analyses.plots.tuned_lens import lens_comparison_figure


def test_lines_are_the_rows_of_the_table() -> None:
    table = pd.DataFrame(
        [
            {"layer": layer, "token_type": token_type, "region": region, "metric": metric, "lens": lens,
             "value": layer + shift, "low": layer + shift - 0.1, "high": layer + shift + 0.1, "n_images": 5}
            for layer in range(3)
            for token_type, region in (("cls", "all"), ("patch", "all"), ("patch", "object"))
            for metric in ("identifiability", "identifiability_rate")
            for lens, shift in (("direct", 0.0), ("tuned", 0.5), ("tuned_minus_direct", 9.0))
        ]
    )  # fmt: skip
    figure = lens_comparison_figure(table, n_classes=7, title="a model")
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["Class identifiability", "Tokens with the class on top"]
    first, second = ([(line.get_label(), list(line.get_ydata())) for line in ax.lines] for ax in figure.axes)
    assert second == [
        ("CLS, tuned lens", [0.5, 1.5, 2.5]),
        ("CLS, direct", [0, 1, 2]),
        ("patches, tuned lens", [0.5, 1.5, 2.5]),
        ("patches, direct", [0, 1, 2]),
    ]
    assert first[:4] == second
    assert first[4] == ("chance", [8 / 14, 8 / 14])
    assert {line.get_linestyle() for line in figure.axes[1].lines} == {"-", "--"}

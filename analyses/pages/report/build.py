"""A sweep's folder as one page: the paper's figures for this model, with definitions, counts and controls."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from analyses.catalogue.published import SETTING, SOURCE, in_published_setting, published_of
from analyses.pages.page import render_page, write_page
from analyses.pages.pdf import print_page
from analyses.pages.report.run_record import record_rows
from analyses.pages.report.section import section_of
from analyses.sweep.output import SweepOutput, read_sweep

__all__ = ["Report", "report"]

_NULL = "null"  # the folder of the untrained model's sweep, from `hooked-vit sweep --null-control`
_SWEEP_TABLES = ("accuracy", "skipped")  # which no analysis computed


@dataclass(frozen=True)
class Report:
    """A report page.

    Attributes:
        html: The whole page; it needs no other file.
        title: Its heading.
    """

    html: str
    title: str

    def save(self, path: str | Path) -> Path:
        """Write the page to a file."""
        return write_page(self.html, path)

    def save_pdf(self, path: str | Path) -> Path:
        """Print the page to a PDF file, with an installed Chromium or Chrome.

        Raises:
            ValueError: If there is none, or it fails.
        """
        return print_page(self.html, path)


def report(
    folder: str | Path, *, null: str | Path | None = None, model: str | None = None, published: str | None = None
) -> Report:
    """Turn the folder of a sweep into one page.

    Args:
        folder: The folder that `sweep(..., out=folder)` or `hooked-vit sweep --out` wrote.
        null: The null control: the folder of the same sweep for the model freshly initialised, over the same images.
            By default the folder `null` inside, if it exists.
        model: The model's name, if the record does not contain it.
        published: The paper's model to compare with, as in `analyses.catalogue.published`; by default the one with
            the same weights, by the model's name.

    Raises:
        ValueError: If there is no finished sweep, the null control is of another model's shape or other images, or
            no values were published for such a model.

    >>> from analyses.data import EmojiScenes
    >>> from analyses.identifiability import Identifiability
    >>> from analyses.sweep import sweep
    >>> from hooked_vit import HookedViT
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     tables = sweep(HookedViT.from_pretrained("emoji-vit"), EmojiScenes(4, 0), [Identifiability()], out=folder)
    ...     report(folder, model="emoji-vit").title
    'emoji-vit'
    """
    found = read_sweep(folder)
    asked = found.asked
    default_null = found.folder / _NULL
    if null is None and (default_null / "record.json").is_file():
        null = default_null
    control = None if null is None else _checked_null(found, read_sweep(null))
    name = model or asked.get("model") or ""
    untrained = bool(asked.get("random_weights"))
    known = published_of(published or name)
    if published is not None and known is None:
        raise ValueError(f"no values were published for '{published}': see analyses.catalogue.published.PUBLISHED")
    if published is None and (untrained or asked.get("weights")):
        known = None  # not the weights that the name refers to
    sections = [section_of(found, table, control, known) for table in found.tables if table not in _SWEEP_TABLES]
    title = name or f"A ViT with {found.record['model']['cfg'].get('n_layers', '?')} blocks"
    page = render_page(
        "report/report.html",
        styles=["report/report.css"],
        title=title,
        untrained=untrained,
        accuracy=section_of(found, "accuracy", control, known) if "accuracy" in found.tables else None,
        sections=sections,
        record=record_rows(found, control, name),
        n_images=found.record["dataset"]["n_images"],
        n_skipped=len(found.tables["skipped"]) if "skipped" in found.tables else 0,
        has_null=control is not None,
        published=known,
        comparable=in_published_setting(found.record["dataset"]),
        setting=SETTING,
        source=SOURCE,
        made=datetime.now(UTC).strftime("%Y-%m-%d"),
    )
    return Report(page, title)


def _checked_null(found: SweepOutput, null: SweepOutput) -> SweepOutput:
    """The null control, if it can be one."""
    ours, theirs = (_compared(output.record) for output in (found, null))
    differing = [name for name in ours if ours[name] != theirs[name]]
    if differing:
        raise ValueError(
            f"'{null.folder}' is not a null control of '{found.folder}': they differ in {', '.join(differing)}; run "
            "the same sweep with --random-weights, or both at once with --null-control"
        )
    if found.record["model"].get("weights_sha256") == null.record["model"].get("weights_sha256"):
        raise ValueError(f"'{null.folder}' is not a null control of '{found.folder}': it has the same weights")
    return null


def _compared(record: Mapping[str, Any]) -> dict[str, Any]:
    return {"the model's architecture": record["model"]["cfg"], "the dataset": record["dataset"]}

"""A sweep's output folder as one page: the paper's figures of this model, defined, counted and controlled."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from analyses.pages.page import render_page, write_page
from analyses.pages.pdf import print_page
from analyses.pages.report.published import SETTING, SOURCE, in_published_setting, published_of
from analyses.pages.report.run_record import record_rows
from analyses.pages.report.section import section_of
from analyses.sweep.output import SweepOutput, read_sweep

__all__ = ["Report", "report"]

_NULL = "null"  # where `hooked-vit sweep --null-control` puts the untrained model's sweep
_OWN_TABLES = ("accuracy", "skipped")


@dataclass(frozen=True)
class Report:
    """A page.

    Attributes:
        html: All of it, with everything that it shows inside.
        title: Its heading.
    """

    html: str
    title: str

    def save(self, path: str | Path) -> Path:
        """Write the page to a file."""
        return write_page(self.html, path)

    def save_pdf(self, path: str | Path) -> Path:
        """Print the page to a PDF file, by a Chromium or Chrome that is installed here.

        Raises:
            ValueError: If none is found, or it fails.
        """
        return print_page(self.html, path)


def report(
    folder: str | Path, *, null: str | Path | None = None, model: str | None = None, published: str | None = None
) -> Report:
    """Turn what a sweep left in a folder into one page.

    Args:
        folder: What `sweep(..., out=folder)` or `hooked-vit sweep --out` wrote.
        null: The same of the model freshly initialised, over the same images: the null control. By default the
            folder `null` inside, if it is there.
        model: The model's name, where the record does not tell it.
        published: Which of the paper's models to hold it against, as in `analyses.pages.report.published`: by default
            the one whose weights the model's name names.

    Raises:
        ValueError: If there is no finished sweep, the null control is of another model's shape or other images, or
            nothing was published of such a model.

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
    beside = found.folder / _NULL
    if null is None and (beside / "record.json").is_file():
        null = beside
    control = None if null is None else _checked_null(found, read_sweep(null))
    name = model or asked.get("model") or ""
    untrained = bool(asked.get("random_weights"))
    known = published_of(published or name)
    if published is not None and known is None:
        raise ValueError(f"nothing was published of '{published}': see analyses.pages.report.published.PUBLISHED")
    if published is None and (untrained or asked.get("weights")):
        known = None  # other weights than those of the name
    sections = [section_of(found, table, control, known) for table in found.tables if table not in _OWN_TABLES]
    title = name or f"A ViT of {found.record['model']['cfg'].get('n_layers', '?')} blocks"
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
    ours, theirs = (_compared(one.record) for one in (found, null))
    differing = [name for name in ours if ours[name] != theirs[name]]
    if differing:
        raise ValueError(
            f"'{null.folder}' is no null control of '{found.folder}': they differ in {', '.join(differing)}; run the "
            "same sweep with --random-weights, or both at once with --null-control"
        )
    if found.record["model"].get("weights_sha256") == null.record["model"].get("weights_sha256"):
        raise ValueError(f"'{null.folder}' is no null control of '{found.folder}': it has the same weights")
    return null


def _compared(record: Mapping[str, Any]) -> dict[str, Any]:
    return {"the model's architecture": record["model"]["cfg"], "the dataset": record["dataset"]}

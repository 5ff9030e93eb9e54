"""The table of covered models: one row per timm entrypoint, from `hooked_vit.covered_models`."""

from typing import Any

MARKER = "<!-- the table of covered models -->"
HEADINGS = ("entrypoint", "class", "readout", "prefix tokens", "image", "patch", "tokens", "blocks", "width", "heads",
            "params", "fp32", "fp32, fused", "bf16", "pretrained tags")  # fmt: skip


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Replace the marker in models.md by the table."""
    if page.file.src_uri != "models.md":
        return markdown
    if MARKER not in markdown:
        raise ValueError(f"models.md must contain the line {MARKER}")
    return markdown.replace(MARKER, table())


def table() -> str:
    """One Markdown table per timm module, the embedded models first."""
    from hooked_vit.covered_models import covered_models

    covered: Any = covered_models()
    parts = [f"{covered['architecture'].nunique()} architectures, {int(covered['pretrained'].sum())} sets of weights."]
    families = sorted(covered["family"].unique(), key=lambda family: (family != "embedded", family))
    for family in families:
        parts += [f"## {_heading(family)}", _rows(covered[covered["family"] == family])]
    return "\n\n".join(parts)


def _heading(family: str) -> str:
    return "Embedded in hooked_vit" if family not in ("vision_transformer", "deit") else f"timm's {family}"


def _rows(covered: Any) -> str:
    lines = [f"| {' | '.join(HEADINGS)} |", "|---|---|---|---|---|---|--:|--:|--:|--:|--:|--:|--:|--:|---|"]
    for architecture, rows in covered.groupby("architecture", sort=True):
        first = rows.iloc[0]
        tags = ", ".join(f"`{tag}`" for tag in rows["tag"] if tag) or ("embedded" if first["pretrained"] else "none")
        cells = [
            f"`{architecture}`", _class(first["timm_class"]), first["pool"], first["prefix_tokens"] or "none",
            _sizes(rows["image_size"]), _sizes(rows["patch_size"]), _range(rows["n_tokens"]), first["n_layers"],
            first["d_model"], first["n_heads"], f"{_range((rows['n_parameters'] / 1e6).round(1))} M",
            *(_difference(first[dtype]) for dtype in ("fp32", "fp32_fused", "bf16")), tags,
        ]  # fmt: skip
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def _class(name: Any) -> str:
    return f"`{name}`" if isinstance(name, str) else "–"


def _difference(relative: float) -> str:
    """How far the logits are from timm's, relative to the largest."""
    return "–" if relative != relative else "0" if relative == 0 else f"{relative:.0e}"


def _sizes(sizes: Any) -> str:
    """The size, or all sizes for which an entrypoint has weights."""
    return ", ".join(f"{height} × {width}" if height != width else f"{height}" for height, width in sorted(set(sizes)))


def _range(numbers: Any) -> str:
    low, high = numbers.min(), numbers.max()
    return f"{low}" if low == high else f"{low}–{high}"

"""For browser tests of explorer pages: what a page shows, and what it should show, computed independently."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from analyses.attribution import LogitAttribution, attribution_names, logit_attribution
from analyses.feature_importance.importance import feature_importance
from analyses.projection import Projection, Stream, project
from hooked_vit import HookedViT, ViTActivationCache

if TYPE_CHECKING:
    from playwright.sync_api import Page


@dataclass(frozen=True)
class Truth:
    """A run of the model whose page is tested, computed without the page's own code."""

    model: HookedViT
    image: torch.Tensor
    logits: torch.Tensor
    cache: ViTActivationCache

    @classmethod
    def of(cls, model: HookedViT, picture: Any) -> "Truth":
        image = model.preprocess(picture)
        with torch.no_grad():
            logits, cache = model.run_with_cache(image)
        return cls(model, image, logits[0], cache)

    @property
    def predicted(self) -> int:
        return int(self.logits.argmax())

    def name(self, label: int) -> str:
        return self.model.class_names[label].split(",")[0]

    def projected(self, label: int, stream: Stream = "resid_post") -> Projection:
        return project(self.model, self.cache, stream, torch.tensor([label]))

    def importance(self, label: int) -> torch.Tensor:
        """[layer head patch]"""
        return feature_importance(self.model, self.image, torch.tensor([label]))[0]

    def attribution(self, label: int, against: int | None = None) -> LogitAttribution:
        names = attribution_names(self.model.cfg)
        with torch.no_grad():
            _, cache = self.model.run_with_cache(self.image, names_filter=names)
        return logit_attribution(self.model, cache, [label], None if against is None else [against])


@dataclass(frozen=True)
class Reading:
    """An open explorer page."""

    page: "Page"

    @classmethod
    def when_ready(cls, page: "Page") -> "Reading":
        page.wait_for_selector("html[data-ready]")
        return cls(page)

    def text(self, selector: str) -> str:
        return self.page.locator(selector).inner_text().replace("\u00a0", " ")

    def value(self, pattern: str, selector: str = "#readout") -> float:
        """The number after some words."""
        found = re.search(pattern + r":?\s*(?:< )?([-+−]?[\d.]+)(?:·10⁻([⁰¹²³⁴⁵⁶⁷⁸⁹]+))?", self.text(selector))
        assert found, f"{pattern!r} is not in {self.text(selector)!r}"
        power = "".join(str("⁰¹²³⁴⁵⁶⁷⁸⁹".index(digit)) for digit in found[2] or "⁰")
        return number(found[1]) * 10 ** -int(power)

    def patch(self, index: int) -> Any:
        return self.page.locator("#patches .cell").nth(index)

    def view(self, name: str) -> None:
        self.page.locator(f"#view input[value={name}]").check(force=True)

    def choose(self, name: str, of: str = "class") -> None:
        """Choose a class, or with `of="against"` the class that it is compared with, by typing its name."""
        box = self.page.locator(f"#{of} input")
        box.fill(name)
        box.press("Enter")

    def chosen(self, of: str = "class") -> str:
        return self.page.locator(f"#{of} input").input_value()

    def to_block(self, block: int) -> None:
        self.page.locator("#tops tbody tr").nth(block).click()

    def tops(self) -> list[list[str]]:
        """For each block: its number, the rank, and the first classes with their logits."""
        rows = self.page.locator("#tops tbody tr").all()
        return [[cell.replace("\u00a0", " ") for cell in row.locator("td").all_inner_texts()] for row in rows]

    def colour(self, index: int) -> tuple[float, ...]:
        """Red, green, blue and opacity of a patch's colour."""
        numbers = re.findall(r"[\d.]+", self.patch(index).evaluate("cell => getComputedStyle(cell).backgroundColor"))
        values = [float(text) for text in numbers]
        return (*values, 1.0) if len(values) == 3 else tuple(values)


def number(text: str) -> float:
    return float(text.replace("−", "-").strip())


def saved(page: Any, folder: Path) -> Path:
    return page.save(folder / "page.html")

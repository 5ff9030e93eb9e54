// A grid of cells for mouse and keyboard: the patches on the picture, and the heads by block.

import { make } from "./dom.js";

/** Cells in rows and columns; Tab reaches one of them, arrow keys move between them. */
export class CellGrid {
  /** `onPoint(row, column)`, or `onPoint(null)` once pointer and focus have left; `onChoose(row, column)`. */
  constructor(host, rows, columns, { label, name, onPoint, onChoose }) {
    this.columns = columns;
    this.cells = [];
    host.setAttribute("role", "grid");
    host.setAttribute("aria-label", label);
    for (let row = 0; row < rows; row++) {
      const line = make("div", { className: "row" });
      line.setAttribute("role", "row");
      for (let column = 0; column < columns; column++) {
        const cell = make("div", { className: "cell", tabIndex: -1 });
        cell.setAttribute("role", "gridcell");
        cell.setAttribute("aria-label", name(row, column));
        this.cells.push(cell);
        line.append(cell);
      }
      host.append(line);
    }
    const positionOf = (cell) => {
      const index = this.cells.indexOf(cell);
      return index < 0 ? null : [Math.floor(index / columns), index % columns];
    };
    const point = (target) => {
      const position = positionOf(target);
      if (position) onPoint(...position);
    };
    const focused = () => (host.contains(document.activeElement) && host.querySelector(":focus-visible") ? document.activeElement : null);
    host.addEventListener("pointerover", (event) => point(event.target));
    host.addEventListener("pointerleave", () => (focused() ? point(focused()) : onPoint(null)));
    host.addEventListener("focusin", (event) => {
      this.reach(event.target);
      if (event.target.matches(":focus-visible")) point(event.target);
    });
    host.addEventListener("focusout", (event) => { if (!host.contains(event.relatedTarget)) onPoint(null); });
    host.addEventListener("click", (event) => {
      const position = positionOf(event.target);
      if (!position) return;
      this.reach(event.target);
      onChoose(...position);
    });
    host.addEventListener("keydown", (event) => {
      const position = positionOf(event.target);
      if (!position || event.ctrlKey || event.metaKey || event.altKey) return;
      const target = this.#moved(event.key, position, rows);
      if (target) {
        this.cells[target[0] * columns + target[1]].focus();
        event.preventDefault();
      } else if (event.key === "Enter" || event.key === " ") {
        onChoose(...position);
        event.preventDefault();
      }
    });
    this.reach(this.cells[0]);
  }

  #moved(key, [row, column], rows) {
    const last = [rows - 1, this.columns - 1];
    const target = {
      ArrowLeft: [row, column - 1], ArrowRight: [row, column + 1], ArrowUp: [row - 1, column], ArrowDown: [row + 1, column],
      Home: [row, 0], End: [row, last[1]], PageUp: [0, column], PageDown: [last[0], column],
    }[key];
    return target && [Math.min(last[0], Math.max(0, target[0])), Math.min(last[1], Math.max(0, target[1]))];
  }

  /** Let Tab reach this cell. */
  reach(cell) {
    if (!this.cells.includes(cell)) return;
    if (this.reached) this.reached.tabIndex = -1;
    this.reached = cell;
    cell.tabIndex = 0;
  }

  /** Colour every cell by its index, and mark the pinned and the pointed cell (-1: none). */
  paint(colour, pinned, pointed) {
    this.cells.forEach((cell, index) => {
      cell.style.backgroundColor = colour(index);
      cell.classList.toggle("pinned", index === pinned);
      cell.classList.toggle("pointed", index === pointed && index !== pinned);
      cell.setAttribute("aria-selected", index === pinned);
    });
  }
}

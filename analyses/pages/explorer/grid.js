// A grid of cells that mouse and keyboard move over: of patches on the picture, and of heads by block.

const make = (tag, properties = {}, ...children) => {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
};

/** Cells in rows and columns; one of them can be reached by Tab, arrow keys move between them. */
class CellGrid {
  /** `onPoint(row, column)` or `onPoint(null)` when pointer and focus have left; `onChoose(row, column)`. */
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
    const place = (cell) => {
      const at = this.cells.indexOf(cell);
      return at < 0 ? null : [Math.floor(at / columns), at % columns];
    };
    const point = (target) => {
      const at = place(target);
      if (at) onPoint(...at);
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
      const at = place(event.target);
      if (!at) return;
      this.reach(event.target);
      onChoose(...at);
    });
    host.addEventListener("keydown", (event) => {
      const at = place(event.target);
      if (!at || event.ctrlKey || event.metaKey || event.altKey) return;
      const to = this.#moved(event.key, at, rows);
      if (to) {
        this.cells[to[0] * columns + to[1]].focus();
        event.preventDefault();
      } else if (event.key === "Enter" || event.key === " ") {
        onChoose(...at);
        event.preventDefault();
      }
    });
    this.reach(this.cells[0]);
  }

  #moved(key, [row, column], rows) {
    const last = [rows - 1, this.columns - 1];
    const to = {
      ArrowLeft: [row, column - 1], ArrowRight: [row, column + 1], ArrowUp: [row - 1, column], ArrowDown: [row + 1, column],
      Home: [row, 0], End: [row, last[1]], PageUp: [0, column], PageDown: [last[0], column],
    }[key];
    return to && [Math.min(last[0], Math.max(0, to[0])), Math.min(last[1], Math.max(0, to[1]))];
  }

  /** Make this cell the one that Tab reaches. */
  reach(cell) {
    if (!this.cells.includes(cell)) return;
    if (this.reached) this.reached.tabIndex = -1;
    this.reached = cell;
    cell.tabIndex = 0;
  }

  /** Colours by cell, and which cells are marked (-1: none). */
  paint(colour, pinned, pointed) {
    this.cells.forEach((cell, at) => {
      cell.style.backgroundColor = colour(at);
      cell.classList.toggle("pinned", at === pinned);
      cell.classList.toggle("pointed", at === pointed && at !== pinned);
      cell.setAttribute("aria-selected", at === pinned);
    });
  }
}

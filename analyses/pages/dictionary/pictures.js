// A latent's pictures, with the patches where it fires bright and the others dark.

import { find, make } from "../explorer/dom.js";
import { formatFixed } from "../explorer/format.js";

const LEVELS = 255;
const DARK = 0.72;
const SIDE = 192;

/** Show the pictures of the latent in this row of the data. */
export function showPictures(data, row, name) {
  const sheet = find("sheet");
  const [nRows, nColumns] = data.grid, nPrefix = data.prefix.length;
  const rows = Math.max(1, Math.ceil(data.sheet.n / data.sheet.columns));
  const width = sheet.naturalWidth / data.sheet.columns, height = sheet.naturalHeight / rows;
  const figures = [];
  for (let place = 0; place < data.picture.shape[1]; place += 1) {
    const picture = data.picture.at(row, place);
    if (picture >= data.sheet.n) continue;
    const label = data.classes[data.labels[picture]], peak = data.peaks.at(row, place);
    const map = data.maps.row(row, place);
    const canvas = make("canvas", { width: SIDE, height: Math.round((SIDE * height) / width) });
    const pen = canvas.getContext("2d");
    pen.imageSmoothingEnabled = !sheet.classList.contains("pixels");
    const onSheet = [(picture % data.sheet.columns) * width, Math.floor(picture / data.sheet.columns) * height];
    pen.drawImage(sheet, ...onSheet, width, height, 0, 0, canvas.width, canvas.height);
    // whole pixels, so that neighbouring patches neither overlap nor leave a gap
    const x = (column) => Math.round((canvas.width * column) / nColumns), y = (line) => Math.round((canvas.height * line) / nRows);
    let onPatches = 0;
    for (let patch = 0; patch < nRows * nColumns; patch += 1) {
      const level = map[nPrefix + patch] / LEVELS;
      onPatches = Math.max(onPatches, level);
      pen.fillStyle = `rgb(0 0 0 / ${(DARK * (1 - level)).toFixed(3)})`;
      const left = patch % nColumns, top = Math.floor(patch / nColumns);
      pen.fillRect(x(left), y(top), x(left + 1) - x(left), y(top + 1) - y(top));
    }
    const prefix = data.prefix.filter((_, token) => map[token] > 0);
    const where = prefix.length ? ` at ${prefix.join(", ")}${onPatches ? " and patches" : ""}` : "";
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", `${label}: ${name} fires${where} up to ${formatFixed(peak, 2)}`);
    figures.push(make("figure", {}, canvas, make("figcaption", { title: `${label}${where}` }, make("span", { textContent: label + (prefix.length ? ` (${prefix.join(", ")})` : "") }), make("span", { textContent: formatFixed(peak, peak < 10 ? 2 : 1) }))));
  }
  find("pictures").replaceChildren(...figures);
}

// Playing through the blocks; readers who prefer less motion step through them instead.

import { data } from "./data.js";
import { find } from "./dom.js";
import { state } from "./state.js";

const PAUSE = 900; // milliseconds a block

const wantsLessMotion = matchMedia("(prefers-reduced-motion: reduce)");
let timer = null;

export const isPlaying = () => timer !== null;

export function stopPlaying() {
  clearInterval(timer);
  timer = null;
  showButton();
}

function showButton() {
  const button = find("play");
  const [sign, words] = wantsLessMotion.matches ? ["⏭\ufe0e", "Next block"] : isPlaying() ? ["❚❚", "Pause"] : ["▶\ufe0e", "Play through the blocks"];
  button.textContent = sign;
  button.title = `${words} (p)`;
  button.setAttribute("aria-label", words);
}

/** Start from the first block if the last one is shown, else from the next; or stop. */
export function play(showBlock) {
  if (isPlaying()) return stopPlaying();
  const next = () => (state.block + 1) % data.n_layers;
  showBlock(next());
  if (!wantsLessMotion.matches) {
    timer = setInterval(() => {
      if (state.block === data.n_layers - 1) stopPlaying();
      else showBlock(next());
    }, PAUSE);
  }
  return showButton();
}

export function makePlay(showBlock) {
  find("play").addEventListener("click", () => play(showBlock));
  wantsLessMotion.addEventListener("change", stopPlaying);
  showButton();
}

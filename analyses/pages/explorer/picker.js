// A box to find a class by name: few lines at a time, however many classes there are.

import { className, data } from "./data.js";
import { make } from "./dom.js";
import { counted } from "./format.js";

const N_FOUND = 40;
const N_ELSEWHERE = 8;

/** A text box with a list of the classes that the page holds; typing narrows it. */
export class Picker {
  #options = [];
  #active = -1;
  #chosen = null;

  /** `onChoose(position)`, or `onChoose(null)` when the box is cleared, if `empty`, what it then says, is given. */
  constructor(host, { label, empty = null, onChoose }) {
    this.onChoose = onChoose;
    this.empty = empty;
    this.input = make("input", { type: "text", autocomplete: "off", spellcheck: false, placeholder: empty ?? "" });
    this.list = make("div", { id: `${host.id}-list`, className: "found", hidden: true });
    this.list.setAttribute("role", "listbox");
    this.list.setAttribute("aria-label", label);
    for (const [name, value] of Object.entries({ role: "combobox", "aria-label": label, "aria-expanded": "false", "aria-controls": this.list.id, "aria-autocomplete": "list" })) this.input.setAttribute(name, value);
    host.append(this.input);
    if (empty !== null) {
      this.clear = make("button", { type: "button", className: "clear", textContent: "×", title: "No other class", onclick: () => onChoose(null) });
      this.clear.setAttribute("aria-label", "No other class");
      host.append(this.clear);
    }
    host.append(this.list);
    this.input.addEventListener("focus", () => { this.input.select(); this.#open(""); });
    this.input.addEventListener("click", () => { if (this.list.hidden) this.#open(""); });
    this.input.addEventListener("blur", () => this.#close());
    this.input.addEventListener("input", () => this.#open(this.input.value.trim()));
    this.input.addEventListener("keydown", (event) => this.#onKey(event));
    // before the box loses the focus
    this.list.addEventListener("pointerdown", (event) => {
      event.preventDefault();
      const option = event.target.closest("[role=option]");
      if (option && !option.ariaDisabled) this.#choose(+option.dataset.position);
    });
  }

  /** Show the class at a position of the page's list, or that there is none. */
  show(position) {
    this.#chosen = position;
    if (this.clear) this.clear.hidden = position === null;
    if (this.list.hidden) this.#showName();
  }

  #showName() {
    this.input.value = this.#chosen === null ? "" : className(data.shown[this.#chosen]);
    this.input.title = this.input.value;
  }

  #open(query) {
    const words = query.toLocaleLowerCase();
    const matches = (label) => className(label).toLocaleLowerCase().includes(words);
    // the name itself first, then names and synonyms that begin with the words
    const place = (label) => {
      const name = className(label).toLocaleLowerCase();
      return name === words ? 0 : name.split(", ").some((synonym) => synonym === words) ? 1 : name.startsWith(words) ? 2 : 3;
    };
    const positions = [...data.shown.keys()].filter((position) => matches(data.shown[position]));
    if (words) positions.sort((a, b) => place(data.shown[a]) - place(data.shown[b]));
    const held = new Set(data.shown);
    const elsewhere = words ? data.class_names.map((_, label) => label).filter((label) => !held.has(label) && matches(label)) : [];
    this.#options = positions.slice(0, N_FOUND).map((position) => {
      const option = make("div", { id: `${this.list.id}-${position}`, textContent: className(data.shown[position]), title: className(data.shown[position]) });
      option.setAttribute("role", "option");
      option.dataset.position = position;
      return option;
    });
    const heading = (text) => make("p", { textContent: text });
    const asked = words ? 0 : Math.min(data.n_asked, this.#options.length);
    const lines = [
      ...(asked ? [heading("Asked for"), ...this.#options.slice(0, asked)] : []),
      ...(words || !this.#options.length ? [] : [heading("By the model's logit")]), ...this.#options.slice(asked),
      ...(positions.length > N_FOUND ? [heading(`${positions.length - N_FOUND} more: type a part of the name`)] : []),
      ...(elsewhere.length ? [heading(`Not in this page (make it with --class): ${counted(elsewhere.length, "class", "classes")}`), ...elsewhere.slice(0, N_ELSEWHERE).map((label) => {
        const option = make("div", { textContent: className(label), title: className(label), ariaDisabled: "true" });
        option.setAttribute("role", "option");
        return option;
      })] : []),
      ...(positions.length + elsewhere.length ? [] : [heading("No class has this in its name")]),
      ...(!words && held.size < data.n_classes ? [heading(`This page holds ${held.size} of the model's ${data.n_classes} classes`)] : []),
    ];
    this.list.replaceChildren(...lines);
    this.list.hidden = false;
    this.input.setAttribute("aria-expanded", "true");
    this.#activate(words ? 0 : this.#options.findIndex((option) => +option.dataset.position === this.#chosen));
  }

  #close() {
    this.list.hidden = true;
    this.list.replaceChildren();
    this.input.setAttribute("aria-expanded", "false");
    this.input.removeAttribute("aria-activedescendant");
    this.#showName();
  }

  #activate(index) {
    this.#options[this.#active]?.removeAttribute("aria-selected");
    this.#active = index;
    const option = this.#options[index];
    if (!option) return;
    option.setAttribute("aria-selected", "true");
    this.input.setAttribute("aria-activedescendant", option.id);
    option.scrollIntoView({ block: "nearest" });
  }

  #choose(position) {
    this.#chosen = position;
    this.#close();
    this.onChoose(position);
  }

  #onKey(event) {
    const move = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (move) {
      if (this.list.hidden) this.#open("");
      else this.#activate(Math.min(this.#options.length - 1, Math.max(0, this.#active + move)));
    } else if (event.key === "Enter" && !this.list.hidden) {
      if (!this.input.value.trim() && this.empty !== null) this.#close(this.onChoose(null));
      else if (this.#options[this.#active]) this.#choose(+this.#options[this.#active].dataset.position);
    } else if (event.key === "Escape" && !this.list.hidden) this.#close();
    else return;
    event.preventDefault();
  }
}

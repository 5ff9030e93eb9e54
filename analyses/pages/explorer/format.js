// Numbers as text.

const withMinus = (text) => text.replace("-", "−");

/** A fixed number of decimals; never "−0". */
export const formatFixed = (value, digits) => withMinus(value.toFixed(digits).replace(/^-(0(\.0*)?)$/, "$1"));
export const formatLogit = (value) => formatFixed(value, 2);
/** With a plus where there is no minus. */
export const withSign = (text) => (text.startsWith("−") ? text : `+${text}`);

/** Of a share of at least 0. */
export const formatPercent = (share) => `${share === 0 ? 0 : share < 0.0001 ? "<\u00a00.01" : (100 * share).toPrecision(share < 0.1 ? 2 : 3)}\u00a0%`;
/** A difference of shares. */
export const formatSignedPercent = (share) => (share === 0 ? "0\u00a0%" : `${share < 0 ? "−" : "+"}${formatPercent(Math.abs(share))}`);

/** Two significant digits and a sign, for numbers of any size. */
export function formatSmall(value) {
  if (value === 0) return "0";
  const size = Math.floor(Math.log10(Math.abs(value)));
  if (size >= -3) return withSign(formatFixed(value, Math.max(0, 1 - size)));
  const power = [...String(-size)].map((digit) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[digit]).join("");
  return `${withSign(formatFixed(value / 10 ** size, 1))}·10⁻${power}`;
}

/** With as many decimals as needed where `most`, the largest of the numbers shown together, is small; with a sign. */
export function formatAmong(value, most) {
  if (most > 0 && most < 0.001) return formatSmall(value);
  return withSign(formatFixed(value, most > 0 ? Math.max(2, 1 - Math.floor(Math.log10(most))) : 2));
}

/** A number of things, in words. */
export const counted = (count, one, many = `${one}s`) => `${count} ${count === 1 ? one : many}`;

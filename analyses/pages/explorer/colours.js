// Colours that colour-blind readers can tell apart: viridis for amounts; blue against a class, orange for it.

const VIRIDIS = [
  [68, 1, 84], [72, 36, 117], [65, 68, 135], [53, 95, 141], [42, 120, 142], [33, 145, 140],
  [34, 168, 132], [68, 191, 112], [122, 209, 81], [189, 223, 38], [253, 231, 37],
];
const FOR = [230, 120, 20];
const AGAINST = [40, 110, 190];

/** From 0, dark violet, to 1, yellow. */
export function amountColour(share, alpha = 1) {
  const position = Math.min(1, Math.max(0, share)) * (VIRIDIS.length - 1);
  const below = Math.min(VIRIDIS.length - 2, Math.floor(position));
  const mixed = VIRIDIS[below].map((channel, i) => Math.round(channel + (position - below) * (VIRIDIS[below + 1][i] - channel)));
  return `rgb(${mixed.join(" ")} / ${alpha})`;
}

/** From −1, blue, through transparent at 0 to 1, orange. */
export function signedColour(share, alpha = 1) {
  const strength = Math.min(1, Math.abs(share));
  return `rgb(${(share < 0 ? AGAINST : FOR).join(" ")} / ${(alpha * strength).toFixed(3)})`;
}

export const amountGradient = () => `linear-gradient(to right, ${VIRIDIS.map((_, i) => amountColour(i / (VIRIDIS.length - 1))).join(", ")})`;
export const signedGradient = () => `linear-gradient(to right, ${signedColour(-1)}, ${signedColour(0)}, ${signedColour(1)})`;

// Colours that colour-blind readers tell apart: viridis for amounts, blue and orange for against and for.

const VIRIDIS = [
  [68, 1, 84], [72, 36, 117], [65, 68, 135], [53, 95, 141], [42, 120, 142], [33, 145, 140],
  [34, 168, 132], [68, 191, 112], [122, 209, 81], [189, 223, 38], [253, 231, 37],
];
const FOR = [230, 120, 20];
const AGAINST = [40, 110, 190];

/** From 0, dark violet, to 1, yellow. */
function amountColour(share, alpha = 1) {
  const place = Math.min(1, Math.max(0, share)) * (VIRIDIS.length - 1);
  const below = Math.min(VIRIDIS.length - 2, Math.floor(place));
  const mixed = VIRIDIS[below].map((one, i) => Math.round(one + (place - below) * (VIRIDIS[below + 1][i] - one)));
  return `rgb(${mixed.join(" ")} / ${alpha})`;
}

/** From −1, blue, over nothing to 1, orange. */
function signedColour(share, alpha = 1) {
  const strength = Math.min(1, Math.abs(share));
  return `rgb(${(share < 0 ? AGAINST : FOR).join(" ")} / ${(alpha * strength).toFixed(3)})`;
}

const amountGradient = () => `linear-gradient(to right, ${VIRIDIS.map((_, i) => amountColour(i / (VIRIDIS.length - 1))).join(", ")})`;
const signedGradient = () => `linear-gradient(to right, ${signedColour(-1)}, ${signedColour(0)}, ${signedColour(1)})`;

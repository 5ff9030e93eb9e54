// The ends of a colour scale on a fine grid, by the rule of `colour_range` in analyses/plots/patch_maps.py.

const TAIL = 0.02; // share of the values beyond each clipped end

/**
 * From the smallest to the largest value; but an end is clipped to the 2nd or 98th percentile if the values beyond it
 * would take up more of the scale than all others.
 */
export function clippedRange(values) {
  const sorted = Float64Array.from(values).sort();
  const last = sorted.length - 1;
  const [low, high] = [sorted[0], sorted[last]];
  const [innerLow, innerHigh] = [sorted[Math.ceil(TAIL * last)], sorted[Math.floor((1 - TAIL) * last)]];
  const inner = innerHigh - innerLow;
  const clipsLow = inner > 0 && inner < innerLow - low;
  const clipsHigh = inner > 0 && inner < high - innerHigh;
  return { low: clipsLow ? innerLow : low, high: clipsHigh ? innerHigh : high, clipsLow, clipsHigh };
}

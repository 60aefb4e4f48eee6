/**
 * A drawing as LeNet-5 saw its training images: as MNIST was made, scaled to fit 20 x 20 pixels with its
 * proportions kept, in 28 x 28 pixels around its centre of mass; then normalised.
 */

export const SIDE = 28;
const FIT = 20;
export const MEAN = 0.1307, STD = 0.3081; // of MNIST's training images, in 0..1

/** The least rectangle that holds all ink: left, top, right, bottom, the last two beyond it. */
function bounds(ink, width, height) {
  let [left, top, right, bottom] = [width, height, 0, 0];
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      if (!ink[y * width + x]) continue;
      left = Math.min(left, x);
      right = Math.max(right, x + 1);
      top = Math.min(top, y);
      bottom = y + 1;
    }
  }
  return right ? [left, top, right, bottom] : null;
}

/** How much of each of `count` pixels from `start` on, of this size, lies in each source pixel. */
function shares(start, size, count) {
  return Array.from({ length: count }, (_, i) => {
    const from = start + i * size, to = from + size, found = [];
    for (let at = Math.floor(from); at < to - 1e-9; at++) {
      found.push([at, (Math.min(at + 1, to) - Math.max(at, from)) / size]);
    }
    return found;
  });
}

/** The ink within bounds in so many pixels, each the mean of what it covers. */
function scaled(ink, width, [left, top, right, bottom], across, down) {
  const columns = shares(left, (right - left) / across, across);
  const rows = shares(top, (bottom - top) / down, down);
  return rows.map((row) =>
    columns.map((column) => {
      let sum = 0;
      for (const [y, high] of row) for (const [x, wide] of column) sum += high * wide * (ink[y * width + x] ?? 0);
      return sum;
    }),
  );
}

/**
 * Place a drawing as MNIST's are.
 *
 * @param {ArrayLike<number>} ink row by row, 0 for none, 255 for full
 * @returns {Float32Array | null} 28 x 28 values in 0..1; null where nothing is drawn
 */
export function centred(ink, width, height) {
  const box = bounds(ink, width, height);
  if (!box) return null;
  const [left, top, right, bottom] = box;
  const scale = FIT / Math.max(right - left, bottom - top);
  const across = Math.max(1, Math.round((right - left) * scale));
  const down = Math.max(1, Math.round((bottom - top) * scale));
  const small = scaled(ink, width, box, across, down);
  let [mass, x, y] = [0, 0, 0];
  for (let r = 0; r < down; r++) {
    for (let c = 0; c < across; c++) {
      mass += small[r][c];
      x += small[r][c] * (c + 0.5);
      y += small[r][c] * (r + 0.5);
    }
  }
  const place = (centre, size) => Math.min(SIDE - size, Math.max(0, Math.round(SIDE / 2 - centre)));
  const column = place(x / mass, across), line = place(y / mass, down);
  const image = new Float32Array(SIDE * SIDE);
  for (let r = 0; r < down; r++) {
    for (let c = 0; c < across; c++) image[(line + r) * SIDE + column + c] = small[r][c] / 255;
  }
  return image;
}

/** What the network takes: of mean 0 and deviation 1 over the training images. */
export function normalised(image) {
  return image.map((value) => (value - MEAN) / STD);
}

/** Logits as chances. */
export function softmax(logits) {
  const most = Math.max(...logits);
  const powers = Array.from(logits, (logit) => Math.exp(logit - most));
  const sum = powers.reduce((a, b) => a + b);
  return powers.map((power) => power / sum);
}

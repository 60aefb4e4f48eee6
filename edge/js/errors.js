/** A file that cannot be decoded: damaged, hostile, too large, or of another kind. */
export class DczError extends Error {
  /** @param {string} message @param {string} code foreign, newer, damaged, limit, memory or graph */
  constructor(message, code = "damaged") {
    super(message);
    this.name = "DczError";
    this.code = code;
  }
}

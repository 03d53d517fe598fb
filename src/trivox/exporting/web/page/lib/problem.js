/** What went wrong, in one line for the person who uses the page. */
export class Problem extends Error {
  constructor(message) {
    super(message);
    this.name = "Problem";
  }
}

const NO_MEMORY =
  /out of memory|bad_alloc|allocat|invalid array( buffer)? length|invalid typed array length/i;

/** The line to show for anything that was thrown. */
export function lineOf(error) {
  if (error instanceof Problem) return error.message;
  const text = String(error?.message ?? error);
  if (NO_MEMORY.test(text)) {
    return (
      "The memory of this browser does not suffice for this image; close other tabs, " +
      "crop the image, or run 'trivox predict' on a computer with more memory."
    );
  }
  return `The page failed (${text.split("\n")[0].slice(0, 200)}); reload it and try again.`;
}

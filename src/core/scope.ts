/** A tool's name, also the value of an OAuth scope. */
const TOOL_NAME = /^[A-Za-z0-9_.-]{1,64}$/;

export function isToolName(text: unknown): text is string {
  return typeof text === 'string' && TOOL_NAME.test(text);
}

/** Whether everything in `inner` is in `outer`: what delegation and child tasks may only do. */
export function isWithin(inner: readonly string[], outer: readonly string[]): boolean {
  return inner.every((value) => outer.includes(value));
}

/** The canonical scope string: sorted, each once. */
export function scopeOf(tools: readonly string[]): string {
  return [...new Set(tools)].sort().join(' ');
}

/** The values of a scope string, or undefined when it is not one (RFC 6749 section 3.3: single spaces, no repeats). */
export function parseScope(text: string): string[] | undefined {
  if (text === '') return undefined;
  const values = text.split(' ');
  return values.every((value) => /^[\x21\x23-\x5b\x5d-\x7e]+$/.test(value)) && new Set(values).size === values.length
    ? values
    : undefined;
}

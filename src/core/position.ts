/**
 * A place in the cell's line: `(epoch, ms, seq)`, written `1795300000-1795382752123-4`. It is the feed's
 * stream id under the cell's epoch. Positions are compared as integers; no wall clock takes part.
 */
export type Position = string;

/** A position as its three integers, for whoever compares the same one many times. */
export interface Place {
  readonly epoch: number;
  readonly ms: number;
  readonly seq: number;
}

const PATTERN = /^(\d{1,15})-(\d{1,15})-(\d{1,15})$/;

/** Before everything. */
export const ORIGIN: Position = '0-0-0';

export function isPosition(text: unknown): text is Position {
  return typeof text === 'string' && PATTERN.test(text);
}

export function positionOf(epoch: number, streamId: string): Position {
  return `${epoch}-${streamId}`;
}

export function epochOf(position: Position): number {
  return Number(position.slice(0, position.indexOf('-')));
}

export function placeOf(position: Position): Place {
  const first = position.indexOf('-');
  const second = position.indexOf('-', first + 1);
  return {
    epoch: Number(position.slice(0, first)),
    ms: Number(position.slice(first + 1, second)),
    seq: Number(position.slice(second + 1)),
  };
}

/** Negative when `a` comes before `b`, 0 when they are the same place, positive when it comes after. */
export function comparePlaces(a: Place, b: Place): number {
  return a.epoch - b.epoch || a.ms - b.ms || a.seq - b.seq;
}

export function comparePositions(a: Position, b: Position): number {
  return comparePlaces(placeOf(a), placeOf(b));
}

export function isBefore(a: Position, b: Position): boolean {
  return comparePositions(a, b) < 0;
}

/** @internal the fakes of the tests keep their fence by it */
export function latest(...positions: Position[]): Position {
  return positions.reduce((a, b) => (isBefore(a, b) ? b : a), ORIGIN);
}

import { z } from 'zod';
import { SELECTOR_MEMBERS } from '../../../core/selector.js';

/** Shapes that several routes share. */
export const text = (max: number) => z.string().min(1).max(max);
export const name = text(2048).meta({ description: 'A SPIFFE ID, or `<issuer>#<subject>` of a person' });
export const taskName = text(256).meta({ description: 'A task id, or `ref:<ref>`' });
export const id = text(64);
export const reason = text(1024).meta({ description: 'Goes into the record' });
export const moment = z.iso.datetime();
export const durationSeconds = z.int().positive();
export const texts = z.array(z.string());

/** Keys that belong to users: they pass untouched. */
export const anyRecord = z.record(z.string(), z.unknown());

export const idParams = z.strictObject({ id });
export const taskParams = z.strictObject({ id: taskName });

const PAGE_DEFAULT = 50;
const PAGE_MAX = 500;

/** What every list takes: where the last page ended, and how much to answer. */
export const pageQuery = {
  cursor: text(512).optional().meta({ description: '`next_cursor` of the page before' }),
  limit: z.coerce.number().int().min(1).max(PAGE_MAX).default(PAGE_DEFAULT),
};

export function pageOf<Item extends z.ZodType>(item: Item) {
  return z.strictObject({ items: z.array(item), next_cursor: z.string().optional() });
}

/** A page as clients see it. */
export function pageOnWire<Item, OnWire>(
  page: { items: Item[]; cursor?: string },
  onWire: (item: Item) => OnWire,
): { items: OnWire[]; next_cursor?: string } {
  return { items: page.items.map(onWire), ...(page.cursor !== undefined && { next_cursor: page.cursor }) };
}

/** A class of leases: one member or more, all must hold. */
export const selector = z
  .strictObject(
    Object.fromEntries(SELECTOR_MEMBERS.map((member) => [member, text(2048).optional()])) as Record<
      (typeof SELECTOR_MEMBERS)[number],
      z.ZodOptional<z.ZodString>
    >,
  )
  .refine((members) => Object.keys(members).length > 0, { message: 'a selector names at least one thing' });

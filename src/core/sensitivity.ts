const SENSITIVITIES = ['public', 'internal', 'confidential', 'restricted'];

/**
 * A task can say that its data is more sensitive than the resource's usually is, never that it is less. A word that nobody knows counts as
 * `restricted`: it was meant to say something.
 */
export function stricterSensitivity(ofResource: string, ofTask: unknown): string {
  if (ofTask === undefined) return ofResource;
  const said = SENSITIVITIES.indexOf(ofTask as string);
  const rank = said === -1 ? SENSITIVITIES.length - 1 : Math.max(SENSITIVITIES.indexOf(ofResource), said);
  return SENSITIVITIES[rank] as string;
}

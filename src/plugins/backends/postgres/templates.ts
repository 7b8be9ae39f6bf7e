const PLACE = /\{\{\s*([^{}]*?)\s*\}\}/g;

/** What an operator's statement may hold, each already quoted for its place: `{{role}}` an identifier, `{{role_text}}` a string. */
const NAMES = ['role', 'role_text', 'database', 'expires_at'] as const;
export type TemplateValues = Readonly<Record<(typeof NAMES)[number], string>>;

export function isTemplate(text: string): boolean {
  const names = [...text.matchAll(PLACE)].map((match) => match[1] as string);
  return (
    names.every((name) => (NAMES as readonly string[]).includes(name)) && !/\{\{|\}\}/.test(text.replace(PLACE, ''))
  );
}

export function fillTemplate(text: string, values: TemplateValues): string {
  return text.replace(PLACE, (_, name: keyof TemplateValues) => values[name]);
}

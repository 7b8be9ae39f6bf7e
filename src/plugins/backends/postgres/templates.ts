const PLACE = /\{\{\s*([^{}]*?)\s*\}\}/g;

/** What an operator's statement may hold, each already quoted for its place: `{{role}}` an identifier, `{{role_text}}` a string. */
export type TemplateValues = Readonly<Record<string, string>>;

export function isTemplate(text: string, names: readonly string[]): boolean {
  const found = [...text.matchAll(PLACE)].map((match) => match[1] as string);
  return found.every((name) => names.includes(name)) && !/\{\{|\}\}/.test(text.replace(PLACE, ''));
}

export function fillTemplate(text: string, values: TemplateValues): string {
  return text.replace(PLACE, (_, name: string) => values[name] as string);
}

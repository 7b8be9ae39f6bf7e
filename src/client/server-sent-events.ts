/** One event of a `text/event-stream`. */
export interface ServerSentEvent {
  event: string;
  data: string;
  id?: string;
}

const EVENT_CHARACTERS_MAX = 256 * 1024;

/** Reads a stream of server-sent events as the WHATWG grammar has them; comments and unknown fields are skipped. Throws on an event past 256 KiB. */
export async function* serverSentEvents(chunks: AsyncIterable<Uint8Array>): AsyncGenerator<ServerSentEvent> {
  const decoder = new TextDecoder();
  let rest = '';
  let fields = { event: '', data: [] as string[], id: undefined as string | undefined };
  let held = 0;
  for await (const chunk of chunks) {
    rest += decoder.decode(chunk, { stream: true });
    const lines = rest.split(/\r\n|\n|\r(?!$)/);
    rest = lines.pop() as string;
    for (const line of lines) {
      if (line === '') {
        if (fields.data.length > 0) {
          yield {
            event: fields.event || 'message',
            data: fields.data.join('\n'),
            ...(fields.id === undefined ? {} : { id: fields.id }),
          };
        }
        fields = { event: '', data: [], id: undefined };
        held = 0;
        continue;
      }
      held += line.length;
      const colon = line.indexOf(':');
      const name = colon === -1 ? line : line.slice(0, colon);
      const value = colon === -1 ? '' : line.slice(line.charAt(colon + 1) === ' ' ? colon + 2 : colon + 1);
      if (name === 'event') fields.event = value;
      else if (name === 'data') fields.data.push(value);
      else if (name === 'id') fields.id = value;
    }
    if (held + rest.length > EVENT_CHARACTERS_MAX) throw new Error('an event is too large');
  }
}

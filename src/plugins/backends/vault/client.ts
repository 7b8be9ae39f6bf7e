import nodeVault, { type client as NodeVault } from 'node-vault';
import type { z } from 'zod';
import type { Secret } from '../../../core/secret.js';
import { BackendProblem } from '../contract.js';
import { problemOf } from './answers.js';
import { type SentOptions, type Tls, VaultTransport } from './transport.js';

export interface Call<Reply> {
  method: 'GET' | 'POST' | 'LIST';
  /** From `vaultPath` or `vaultFolder`. */
  path: string;
  body?: Record<string, unknown>;
  /** Absent for a login. */
  token?: Secret<string>;
  /** What the answer has to look like. */
  reply: z.ZodType<Reply>;
  signal: AbortSignal;
  /** For people: "create a token by the role mayfly". */
  doing: string;
}

/** One Vault and one namespace of it. */
export class VaultClient {
  readonly #vault: NodeVault;
  readonly #transport: VaultTransport;

  constructor(options: {
    address: string;
    namespace?: string | undefined;
    tls: Tls;
    timeoutMs: number;
    connectionsMax: number;
  }) {
    this.#transport = new VaultTransport(options);
    this.#vault = nodeVault({
      endpoint: options.address,
      'request-promise': { defaults: () => (sent: SentOptions) => this.#transport.send(sent) },
      debug: () => {},
      noCustomHTTPVerbs: true,
    });
    // What node-vault would rather take from the environment (VAULT_TOKEN, VAULT_NAMESPACE, VAULT_PREFIX) is set here, empty too.
    const own = { token: '', namespace: options.namespace ?? '', pathPrefix: '' };
    Object.assign(this.#vault, own);
  }

  /** The answer, checked. Throws a BackendProblem that says what was being done. */
  async call<Reply>(call: Call<Reply>): Promise<Reply> {
    try {
      return await this.ask(call);
    } catch (error) {
      throw problemOf(error, call.doing);
    }
  }

  /** The same, but an answer that is not 2xx is thrown as the VaultAnswer it is: some of them are what one wanted to know. */
  async ask<Reply>({ method, path, body, token, reply, signal, doing }: Call<Reply>): Promise<Reply> {
    if (signal.aborted) throw new BackendProblem('timeout', `${doing}: no time left`, { isSure: true });
    const options = { signal, headers: token === undefined ? {} : { 'X-Vault-Token': token.expose() } };
    const sent =
      method === 'POST'
        ? this.#vault.write(path, body ?? {}, options)
        : method === 'LIST'
          ? this.#vault.list(path, options)
          : this.#vault.read(path, options);
    const answer: { body: unknown } = await sent;
    const parsed = reply.safeParse(answer.body);
    if (!parsed.success) throw new BackendProblem('failed', `${doing}: an answer of an unexpected form`);
    return parsed.data;
  }

  close(): Promise<void> {
    return this.#transport.close();
  }
}

// The YAML language server as an editor drives it: over its standard input and output.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath, pathToFileURL } from 'node:url';

const program = fileURLToPath(import.meta.resolve('yaml-language-server/bin/yaml-language-server'));

/** How long the server may take for one answer, in milliseconds: it reads a large schema first. */
const PATIENCE = 60_000;

export class LanguageServer {
  #process;
  #unread = Buffer.alloc(0);
  #next = 1;
  #opened = 0;
  #answers = new Map();
  #mistakes = new Map();

  /** A running server that knows no schema but those that files name. */
  static async start() {
    const server = new LanguageServer();
    await server.#ask('initialize', {
      processId: process.pid,
      rootUri: null,
      capabilities: {
        textDocument: {
          completion: { completionItem: { documentationFormat: ['markdown'] } },
          hover: { contentFormat: ['markdown'] },
        },
        workspace: { configuration: true },
      },
    });
    server.#send({ method: 'initialized', params: {} });
    return server;
  }

  constructor() {
    this.#process = spawn(process.execPath, [program, '--stdio'], { stdio: ['pipe', 'pipe', 'inherit'] });
    this.#process.stdout.on('data', (bytes) => this.#read(bytes));
  }

  async stop() {
    this.#process.kill();
    await once(this.#process, 'exit');
  }

  /** Opens a text, in which `│` stands for the cursor and is taken out, as an editor shows a file. */
  open(text) {
    const at = text.indexOf('│');
    const clean = text.replace('│', '');
    const lines = clean.slice(0, Math.max(at, 0)).split('\n');
    const uri = pathToFileURL(`/runbook-test/${this.#opened++}.yaml`).href;
    const mistakes = this.#waiting(this.#mistakes, uri);
    this.#send({
      method: 'textDocument/didOpen',
      params: { textDocument: { uri, languageId: 'yaml', version: 1, text: clean } },
    });
    const place = {
      textDocument: { uri },
      position: { line: lines.length - 1, character: lines.at(-1).length },
    };
    return {
      /** What can be written at the cursor: label and documentation. */
      completions: async () => {
        const { items } = await this.#ask('textDocument/completion', place);
        return items.map(({ label, documentation }) => ({ label, docs: documentation?.value ?? documentation ?? '' }));
      },
      /** What is shown when the pointer rests at the cursor. */
      hover: async () => (await this.#ask('textDocument/hover', place))?.contents.value ?? '',
      /** What is wrong, each with the text that is underlined. */
      mistakes: async () =>
        (await mistakes).diagnostics.map(({ message, range: { start, end } }) => {
          const line = clean.split('\n')[start.line];
          return { message, text: line.slice(start.character, start.line === end.line ? end.character : undefined) };
        }),
    };
  }

  #waiting(map, key) {
    return new Promise((resolve, reject) => {
      const late = setTimeout(() => reject(new Error(`no answer: ${key}`)), PATIENCE);
      map.set(key, (answer) => {
        clearTimeout(late);
        map.delete(key);
        resolve(answer);
      });
    });
  }

  async #ask(method, params) {
    const id = this.#next++;
    const answer = this.#waiting(this.#answers, id);
    this.#send({ id, method, params });
    const { result, error } = await answer;
    if (error) throw new Error(`${method}: ${error.message}`);
    return result;
  }

  #send(message) {
    const body = Buffer.from(JSON.stringify({ jsonrpc: '2.0', ...message }));
    this.#process.stdin.write(`Content-Length: ${body.length}\r\n\r\n`);
    this.#process.stdin.write(body);
  }

  #read(bytes) {
    this.#unread = Buffer.concat([this.#unread, bytes]);
    for (;;) {
      const end = this.#unread.indexOf('\r\n\r\n');
      if (end < 0) return;
      const length = Number(/Content-Length: (\d+)/.exec(this.#unread.subarray(0, end).toString())[1]);
      if (this.#unread.length < end + 4 + length) return;
      const message = JSON.parse(this.#unread.subarray(end + 4, end + 4 + length));
      this.#unread = this.#unread.subarray(end + 4 + length);
      this.#take(message);
    }
  }

  #take({ id, method, params, ...answer }) {
    if (method === 'textDocument/publishDiagnostics') {
      this.#mistakes.get(params.uri)?.(params);
    } else if (method === 'workspace/configuration') {
      const yaml = { validate: true, hover: true, completion: true, schemaStore: { enable: false } };
      this.#send({ id, result: params.items.map(({ section }) => (section === 'yaml' ? yaml : null)) });
    } else if (method && id !== undefined) {
      this.#send({ id, result: null });
    } else if (id !== undefined) {
      this.#answers.get(id)?.(answer);
    }
  }
}

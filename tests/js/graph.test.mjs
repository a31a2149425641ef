// What `runbook graph` draws, as the real tools read it: Mermaid's parser and Graphviz.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readdirSync, writeFileSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { fileURLToPath } from 'node:url';

import { JSDOM } from 'jsdom';

// Mermaid cleans its labels with what a browser has.
const { window } = new JSDOM('');
Object.assign(globalThis, { window, document: window.document });
const { default: mermaid } = await import('mermaid');

const root = fileURLToPath(new URL('../../', import.meta.url));
const runbook = join(process.env.CARGO_TARGET_DIR ?? join(root, 'target'), 'debug', 'runbook');
const folder = mkdtempSync(join(tmpdir(), 'runbook-graph-'));
after(() => rmSync(folder, { recursive: true }));

// Names that mean something to the tools, every quoting there is, and a freeze inside a freeze.
const odd = join(folder, 'odd.yaml');
writeFileSync(
  odd,
  `runbook: graph
description: "quotes ' and <tags> & \\\\n"
connections: { d: { type: directory, path: /tmp } }
collections: { c: { type: files, connection: d, pattern: "*" } }
limits: { max_items: 5 }
steps:
  - { id: end, uses: command, needs: [], with: { argv: ["true"] } }
  - { id: subgraph, uses: command, needs: [], with: { argv: ["true"] }, if: "\${{ run.id == 'a\\"b\`<b>#;]}|\\\\n' }}" }
  - { id: outer, uses: freeze, needs: [end, subgraph], with: { env_file: { path: a, variable: A, value: "1" } } }
  - { id: inner, uses: freeze, with: { env_file: { path: b, variable: A, value: "1" } } }
  - { id: save, uses: snapshot, with: { collection: c } }
  - { id: ask, uses: confirm-prompt, with: { message: Sure?, phrases: ['"; }'] } }
  - { id: class, uses: delete-batch, with: { collections: [c], keys: "\${{ steps.save.outputs.manifest }}" } }
  - { id: style, uses: unfreeze, with: { freeze: inner } }
  - { id: click, uses: unfreeze, with: { freeze: outer } }
finally:
  - { id: node, uses: report }
`,
);

const shipped = ['runbooks', 'examples'].flatMap((name) =>
  readdirSync(join(root, name)).filter((file) => file.endsWith('.yaml')).map((file) => join(root, name, file)),
);

function draw(file, format) {
  const { status, stdout, stderr } = spawnSync(runbook, ['graph', file, ...format], {
    encoding: 'utf8',
    env: { ...process.env, RUNBOOK_STATE: `sqlite:${join(folder, 'state.db')}` },
  });
  assert.equal(status, 0, stderr);
  return stdout;
}

for (const file of [odd, ...shipped]) {
  const name = file.split('/').at(-1);
  const { steps } = JSON.parse(draw(file, ['--json']));
  const needs = steps.flatMap((step) => step.needs).length;

  test(`Mermaid reads ${name}`, async () => {
    const text = draw(file, ['--format', 'mermaid']);
    assert.equal((await mermaid.parse(text)).diagramType, 'flowchart-v2');
    const { db } = await mermaid.mermaidAPI.getDiagramFromText(text);
    const drawn = [...db.getVertices().values()].filter(({ id }) => /^s\d+$/.test(id));
    assert.equal(drawn.length, steps.length);
    assert.equal(db.getEdges().filter(({ stroke }) => stroke === 'normal').length, needs);
  });

  test(`Graphviz reads ${name}`, () => {
    const { status, stdout, stderr } = spawnSync('dot', ['-Tjson'], {
      input: draw(file, ['--format', 'dot']),
      encoding: 'utf8',
    });
    assert.equal(status, 0, stderr);
    assert.equal(stderr, '');
    const { objects, edges = [] } = JSON.parse(stdout);
    const drawn = objects.filter(({ name }) => /^s\d+$/.test(name));
    assert.deepEqual(drawn.map(({ label }) => label.split('\\n')[0]).sort(), steps.map(({ id }) => id).sort());
    assert.equal(edges.filter(({ style }) => style !== 'dashed').length, needs);
  });
}

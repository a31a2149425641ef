// What an author sees in an editor: the real YAML language server with the schema that is committed.
import assert from 'node:assert/strict';
import { readFileSync, readdirSync } from 'node:fs';
import { after, before, test } from 'node:test';

import { LanguageServer } from './language-server.mjs';

const root = new URL('../../', import.meta.url);
const schema = new URL('schemas/runbook.schema.json', root).href;
const head = `# yaml-language-server: $schema=${schema}\nrunbook: a\n`;
const step = `${head}steps:\n  - id: b\n`;

let server;
before(async () => {
  server = await LanguageServer.start();
});
after(() => server.stop());

const labels = (completions) => completions.map(({ label }) => label);
const docs = (completions, wanted) => completions.find(({ label }) => label === wanted)?.docs;

test('uses: is completed with every step kind and what it is for', async () => {
  const found = await server.open(`${step}    uses: │\n`).completions();
  const kinds = JSON.parse(readFileSync(new URL('schemas/runbook.schema.json', root))).definitions.step.properties.uses
    .oneOf;
  assert.ok(kinds.length >= 15);
  assert.deepEqual(labels(found).sort(), kinds.map((kind) => kind.const).sort());
  for (const kind of kinds) assert.equal(docs(found, kind.const), kind.description);
});

test('the keys below with: are those of the kind', async () => {
  const deletes = await server.open(`${step}    uses: delete-batch\n    with:\n      │\n`).completions();
  for (const key of ['collections', 'keys', 'batch_size']) assert.ok(labels(deletes).includes(key), key);
  assert.match(docs(deletes, 'batch_size'), /keys are deleted in one batch/);
  assert.ok(!labels(deletes).includes('argv'));
  const runs = await server.open(`${step}    uses: command\n    with:\n      │\n`).completions();
  assert.ok(labels(runs).includes('argv'));
  assert.ok(!labels(runs).includes('batch_size'));
});

test('deep in with: the keys are those of the place', async () => {
  const found = await server.open(`${step}    uses: watch-log\n    with:\n      expect:\n        - │\n`).completions();
  for (const key of ['match', 'at_least']) assert.ok(labels(found).includes(key), key);
});

test('values of a closed set are offered', async () => {
  const found = await server.open(`${step}    uses: command\n    with:\n      effect:\n        class: │\n`).completions();
  for (const value of ['read', 'write', 'destroy']) assert.ok(labels(found).includes(value), value);
});

test('the keys of a step, of a connection and of a collection are offered', async () => {
  const ofStep = labels(await server.open(`${step}    │\n`).completions());
  for (const key of ['uses', 'with', 'needs', 'if', 'retry', 'timeout', 'on_failure', 'waive']) {
    assert.ok(ofStep.includes(key), key);
  }
  const types = await server.open(`${head}connections:\n  store:\n    type: │\n`).completions();
  for (const type of ['directory', 'fountainstore', 'http']) assert.ok(labels(types).includes(type), type);
  const ofHttp = await server.open(`${head}connections:\n  store:\n    type: http\n    │\n`).completions();
  assert.ok(labels(ofHttp).includes('url'));
  const ofFiles = await server.open(`${head}collections:\n  old:\n    type: files\n    │\n`).completions();
  for (const key of ['connection', 'pattern']) assert.ok(labels(ofFiles).includes(key), key);
});

test('hovering tells what a kind and what a key is', async () => {
  assert.match(await server.open(`${step}    uses: delete-ba│tch\n`).hover(), /Deletes the keys of manifests/);
  const under = (text) => server.open(`${step}    uses: delete-batch\n    with:\n${text}\n`).hover();
  assert.match(await under('      batch_│size: 50'), /keys are deleted in one batch/);
  assert.match(await under('      ke│ys: "${{ steps.save.outputs.manifest }}"'), /manifests that hold the keys/);
  assert.match(await server.open(`${step}    uses: assert\n    on_failure: cont│inue\n`).hover(), /Steps that need it run all the same/);
  assert.match(await server.open(`${head}loc│k: a\n`).hover(), /one unfinished run per lock/);
});

test('a wrong key, kind and value are underlined exactly', async () => {
  const wrong = `${step}    uses: delete-batch\n    with: { colections: [a], keys: "\${{ steps.s.outputs.manifest }}" }\n`;
  const mistakes = await server.open(wrong).mistakes();
  assert.ok(mistakes.some(({ text, message }) => text === 'colections' && /not allowed/.test(message)), JSON.stringify(mistakes));
  const kind = await server.open(`${step}    uses: delete-bach\n`).mistakes();
  assert.ok(kind.some(({ text, message }) => text === 'delete-bach' && /"delete-batch"/.test(message)), JSON.stringify(kind));
  const value = await server.open(`${step}    uses: command\n    with: { argv: [a], parse: xml }\n`).mistakes();
  assert.deepEqual(value.map(({ text }) => text), ['xml']);
  const other = await server.open(`${step}    uses: command\n    depends_on: [c]\n    with: { argv: [a] }\n`).mistakes();
  assert.deepEqual(other.map(({ text }) => text), ['depends_on']);
});

test('an expression may stand wherever a value does', async () => {
  const text = `${step}    uses: count\n    with: { collections: "\${{ inputs.all }}", expect: "\${{ inputs.n }}" }\n`;
  assert.deepEqual(await server.open(text).mistakes(), []);
});

test('in every shipped runbook nothing is underlined', async () => {
  for (const folder of ['runbooks/', 'examples/']) {
    for (const name of readdirSync(new URL(folder, root)).filter((name) => name.endsWith('.yaml'))) {
      const text = readFileSync(new URL(`${folder}${name}`, root), 'utf8');
      // It names the schema beside its own folder; the text is opened elsewhere.
      const named = /^# yaml-language-server: \$schema=\.\.\/schemas\/runbook\.schema\.json\n/;
      assert.match(text, named, `${folder}${name} names the schema`);
      const shown = server.open(text.replace(named, `# yaml-language-server: $schema=${schema}\n`));
      assert.deepEqual(await shown.mistakes(), [], `${folder}${name}`);
    }
  }
});

// Captions a photo in onnxruntime-web, the runtime of browsers, with greedy decoding.
//
//     npm install onnxruntime-web
//     node benchmarks/experiments/onnx_web.mjs EXPORTED PIXELS.npy
//
// EXPORTED is a folder of `effcap export --format onnx`; PIXELS.npy holds float32 (1,h,w,3), as
// photos.py in that folder loads a photo. Prints the tokens, which `python run.py --greedy` decodes.

import { readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { createRequire } from "node:module";

const require = createRequire(pathToFileURL(resolve("package.json")));
const ort = require("onnxruntime-web");
const [folder, pixelsFile] = process.argv.slice(2);
const manifest = JSON.parse(readFileSync(join(folder, "manifest.json"), "utf8"));

function readNpy(path) {
  const bytes = readFileSync(path);
  const header = bytes.toString("latin1", 10, 10 + bytes.readUInt16LE(8));
  const shape = header.match(/\(([^)]*)\)/)[1].split(",").filter((x) => x.trim()).map(Number);
  const start = 10 + bytes.readUInt16LE(8);
  return new ort.Tensor("float32", new Float32Array(bytes.buffer.slice(bytes.byteOffset + start)), shape);
}

const open = (name) => ort.InferenceSession.create(readFileSync(join(folder, `${name}.onnx`)));
const [encoder, keysValues, decoder] = [await open("encoder"), await open("keys_values"), await open("decoder")];
const begun = performance.now();
const memory = await keysValues.run(await encoder.run({ images: readNpy(pixelsFile) }));
let cache = {};
for (const [name, [, shape]] of Object.entries(manifest.graphs.decoder)) {
  if (name.startsWith("cache")) {
    cache[name] = new ort.Tensor("float32", new Float32Array(0), [1, shape[1], 0, shape[3]]);
  }
}
const text = [...manifest.prompt];
for (let position = 0; position < manifest.prompt.length - 1 + manifest.search.max_new_tokens; position++) {
  const inputs = {
    tokens: new ort.Tensor("int32", Int32Array.of(text[position]), [1, 1]),
    positions: new ort.Tensor("int32", Int32Array.of(position), [1]),
    mask: new ort.Tensor("bool", new Uint8Array(position + 1).fill(1), [1, 1, position + 1]),
  };
  const outputs = await decoder.run({ ...inputs, ...memory, ...cache });
  cache = {};
  for (const [name, value] of Object.entries(outputs)) {
    if (name.startsWith("next_")) cache[name.slice(5)] = value;
  }
  if (position < text.length - 1) continue; // in the prompt
  const scores = outputs.log_probs.data;
  if (position < manifest.prompt.length - 1 + manifest.search.min_new_tokens) scores[manifest.eos_id] = -Infinity;
  const best = scores.indexOf(scores.reduce((a, b) => Math.max(a, b), -Infinity));
  if (best === manifest.eos_id) break;
  text.push(best);
}
console.error(`${((performance.now() - begun) / 1000).toFixed(2)} s`);
console.log(JSON.stringify(text.slice(1)));

"use strict";
// The decoder in the page: sliders to latents, latents to a picture. Nothing is fetched: the models
// and the runtime lie in the page, compressed.

const FIRST = 12;
const find = (name) => document.getElementById(name);
const descriptions = JSON.parse(find("explorables").textContent);
const sessions = new Map();
const now = { run: 0, z: [], label: 0, x: null, shown: FIRST, running: false, wanted: false };
let runtime = null;

async function unpack(name) {
  const bytes = Uint8Array.from(atob(find(name).textContent), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

async function start() {
  const script = new Blob([await unpack("ort-script")], { type: "text/javascript" });
  const ort = await import(URL.createObjectURL(script));
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.wasmBinary = await unpack("ort-wasm");
  return ort;
}

function session(part, run) {
  const key = `${part}-${run}`;
  if (!sessions.has(key)) {
    sessions.set(key, (async () => {
      runtime ??= start();
      const ort = await runtime;
      return [ort, await ort.InferenceSession.create(await unpack(key), { executionProviders: ["wasm"] })];
    })());
  }
  return sessions.get(key);
}

async function infer(part, values, shape) {
  const about = descriptions[now.run];
  const [ort, model] = await session(part, now.run);
  const feeds = { [part === "decoder" ? "z" : "x"]: new ort.Tensor("float32", Float32Array.from(values), [1, ...shape]) };
  if (model.inputNames.includes("y")) feeds.y = new ort.Tensor("int64", [BigInt(now.label)], [1]);
  const answer = await model.run(feeds);
  return answer[part === "decoder" ? "x" : "z"].data;
}

// One at a time; what is asked for meanwhile is done once, with the newest latents.
async function show() {
  if (now.running) { now.wanted = true; return; }
  now.running = true;
  try {
    do {
      now.wanted = false;
      await session("decoder", now.run);
      const z = [...now.z], began = performance.now();
      now.x = await infer("decoder", z, descriptions[now.run].latent_shape);
      paint(find("picture"), now.x, descriptions[now.run]);
      find("state").textContent = `decoded here in ${Math.max(1, Math.round(performance.now() - began))} ms`;
      find("explorer").dataset.shown = JSON.stringify(z);
    } while (now.wanted);
  } catch (error) {
    find("state").textContent = `this browser cannot run the model: ${error.message}`;
  } finally {
    now.running = false;
  }
}

function paint(canvas, x, { shape: [channels, height, width], value_range: [low, high] }) {
  canvas.width = width;
  canvas.height = height;
  const image = new ImageData(width, height), area = width * height;
  for (let i = 0; i < area; i++) {
    let mean = 0;
    for (let c = 0; c < channels; c++) mean += x[c * area + i] / channels;
    for (let c = 0; c < 3; c++) {
      const value = channels === 3 ? x[c * area + i] : mean;
      image.data[4 * i + c] = 255 * Math.min(1, Math.max(0, (value - low) / (high - low)));
    }
    image.data[4 * i + 3] = 255;
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
}

function element(name, attributes, ...children) {
  const made = Object.assign(document.createElement(name), attributes);
  made.append(...children);
  return made;
}

function sliders() {
  const { latents } = descriptions[now.run];
  find("sliders").replaceChildren(...latents.slice(0, now.shown).map(({ n, kl, low, high }) => {
    // What was encoded may lie further out than the prior goes.
    const [min, max] = [Math.min(low, now.z[n]), Math.max(high, now.z[n])];
    const input = element("input", { type: "range", min, max, step: (max - min) / 400, value: now.z[n] });
    input.setAttribute("aria-label", `latent ${n}`);
    input.dataset.latent = n;
    const output = element("output", { textContent: now.z[n].toFixed(2) });
    input.addEventListener("input", () => {
      now.z[n] = Number(input.value);
      output.textContent = now.z[n].toFixed(2);
      show();
    });
    const name = element("span", {}, `z${n}`);
    if (kl !== null && kl !== undefined) name.append(element("small", { textContent: `${kl.toFixed(2)} nats` }));
    return element("label", { className: "slider" }, name, input, output);
  }));
  find("more").hidden = now.shown >= latents.length;
  find("more").textContent = `Show all ${latents.length} latents`;
}

function go(z) {
  now.z = [...z];
  sliders();
  show();
}

function choose(run) {
  const about = descriptions[run];
  Object.assign(now, { run, label: about.label ?? 0, shown: FIRST });
  find("class-field").hidden = !about.class_names.length;
  find("class").replaceChildren(...about.class_names.map((name, i) => element("option", { value: i, textContent: name })));
  find("class").value = now.label;
  find("encode").hidden = !about.encodes;
  find("original").hidden = true;
  find("state").textContent = "starting …";
  go(about.first);
}

async function encode(file) {
  const about = descriptions[now.run], [channels, height, width] = about.shape;
  if (!about.encodes) { find("state").textContent = about.why_not; return; }
  let bitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    find("state").textContent = "that is no image that this browser reads";
    return;
  }
  const canvas = find("dropped");
  canvas.width = width;
  canvas.height = height;
  const pen = canvas.getContext("2d", { willReadFrequently: true });
  pen.fillStyle = "white";
  pen.fillRect(0, 0, width, height);
  pen.imageSmoothingQuality = "high";
  // As a file is read by `reconstruct`: the middle of it, as large as fits, white where it is clear.
  const side = Math.min(bitmap.width / width, bitmap.height / height);
  const [w, h] = [side * width, side * height];
  pen.drawImage(bitmap, (bitmap.width - w) / 2, (bitmap.height - h) / 2, w, h, 0, 0, width, height);
  const { data } = pen.getImageData(0, 0, width, height);
  const area = width * height, x = new Float32Array(channels * area);
  for (let i = 0; i < area; i++) {
    const [r, g, b] = [data[4 * i], data[4 * i + 1], data[4 * i + 2]];
    // ITU-R 601-2, as Pillow turns colours into grey.
    const grey = (0.299 * r + 0.587 * g + 0.114 * b) / 255;
    for (let c = 0; c < channels; c++) {
      const value = channels === 3 ? data[4 * i + c] / 255 : grey;
      x[c * area + i] = about.domain === "binary" ? Number(value >= 0.5) : value;
    }
  }
  paint(canvas, x, about);
  find("original").hidden = false;
  find("state").textContent = "encoding …";
  const run = now.run;
  try {
    const z = await infer("encoder", x, about.shape);
    if (run === now.run) go(z);
  } catch (error) {
    find("state").textContent = `this browser cannot run the model: ${error.message}`;
  }
}

find("which").addEventListener("change", (event) => choose(Number(event.target.value)));
find("class").addEventListener("change", (event) => { now.label = Number(event.target.value); show(); });
find("reset").addEventListener("click", () => go(descriptions[now.run].center));
find("draw").addEventListener("click", () => {
  const { draws } = descriptions[now.run];
  now.draw = ((now.draw ?? -1) + 1) % draws.length;
  go(draws[now.draw]);
});
find("more").addEventListener("click", () => { now.shown = Infinity; sliders(); });
find("file").addEventListener("change", (event) => { if (event.target.files[0]) encode(event.target.files[0]); });

const place = find("explorer");
for (const name of ["dragover", "dragenter"]) {
  place.addEventListener(name, (event) => { event.preventDefault(); place.classList.add("over"); });
}
place.addEventListener("dragleave", () => place.classList.remove("over"));
place.addEventListener("drop", (event) => {
  event.preventDefault();
  place.classList.remove("over");
  if (event.dataTransfer.files[0]) encode(event.dataTransfer.files[0]);
});

// Nothing is unpacked before someone looks.
new IntersectionObserver((entries, observer) => {
  if (entries.some((entry) => entry.isIntersecting)) { observer.disconnect(); choose(0); }
}, { rootMargin: "300px" }).observe(place);

// For tests, and for the curious: what was decoded last.
globalThis.vaezooExplorer = now;

// Restore: files, a folder or an archive go up in parts while the first photos are worked on; a cut upload goes on
// where it was, in this page or in a later one.
"use strict";
const PART = 4 * 2 ** 20;
const ABREAST = 3;
const SHOWN = 24;
const TRIES = 8;
const AGAIN_MS = 3000;
const FOR_ALL = new Set(["no_answer", "batch_closed", "batch_not_found", "batch_has_source", "key_invalid", "scope_missing"]);
const ARCHIVE = /\.(zip|tar|tgz|tar\.gz|tar\.bz2|tar\.xz)$/i;
const form = document.querySelector("#restore");
const drop = document.querySelector("#drop");
const told = document.querySelector("#told");
const work = document.querySelector("#work");
let chosen = []; // { file, path }

// ---- what was chosen
function choose(found) {
  chosen = found.filter(({ file }) => file.size > 0);
  chosen.sort((one, other) => (one.path < other.path ? -1 : 1)); // a folder comes in the order of its disk
  const empty = found.length - chosen.length;
  const bytes = chosen.reduce((sum, { file }) => sum + file.size, 0);
  const words = chosen.length ? `${plural(chosen.length, "file")}, ${size(bytes)}` : "Nothing is chosen.";
  told.textContent = empty ? `${words} (${plural(empty, "empty file")} left out)` : words;
}

const plural = (count, word) => `${count} ${word}${count === 1 ? "" : "s"}`;
const size = (bytes) => (bytes < 2 ** 20 ? `${Math.ceil(bytes / 1024)} KiB` : `${(bytes / 2 ** 20).toFixed(1)} MiB`);

async function entriesOf(reader) {
  const found = [];
  for (;;) {
    const some = await new Promise((done, fail) => reader.readEntries(done, fail));
    if (!some.length) return found;
    found.push(...some);
  }
}

async function filesOf(entry, above) {
  const path = above + entry.name;
  if (entry.isFile) return [{ file: await new Promise((done, fail) => entry.file(done, fail)), path }];
  const inside = await Promise.all((await entriesOf(entry.createReader())).map((one) => filesOf(one, `${path}/`)));
  return inside.flat();
}

for (const input of form.querySelectorAll("input[type=file]")) {
  input.addEventListener("change", () => {
    choose([...input.files].map((file) => ({ file, path: file.webkitRelativePath || file.name })));
  });
}
drop.addEventListener("dragover", (event) => {
  event.preventDefault();
  drop.classList.add("over");
});
drop.addEventListener("dragleave", () => drop.classList.remove("over"));
drop.addEventListener("drop", async (event) => {
  event.preventDefault();
  drop.classList.remove("over");
  const entries = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry()).filter(Boolean);
  choose((await Promise.all(entries.map((entry) => filesOf(entry, "")))).flat());
});

// ---- options: what a choice does not use is neither shown nor sent
function options() {
  const given = new FormData(form);
  const task = given.get("task");
  const made = { task, fidelity: Number(given.get("fidelity")), candidates: Number(given.get("candidates")) };
  made.format = given.get("format");
  made.gps = given.get("gps");
  if (task === "swap") {
    made.to = [given.get("to")];
    if (given.get("of")) made.of = given.get("of");
    return made;
  }
  made.min_face = Number(given.get("min_face"));
  const who = given.get("who");
  if (who === "known") made.unknown = "keep";
  if (who === "everyone") made.everyone = given.get("everyone");
  if (who === "cluster") made.unknown = "cluster";
  if (who === "cluster" && given.get("attested").trim()) made.attested = given.get("attested").trim();
  return made;
}

function showChoice() {
  const given = new FormData(form);
  for (const part of form.querySelectorAll("[data-when]")) {
    const [name, value] = part.dataset.when.split("=");
    part.hidden = given.get(name) !== value || (name === "who" && given.get("task") !== "restore");
  }
}
form.addEventListener("change", showChoice);
showChoice();

// ---- asking the server
const pause = (seconds) => new Promise((done) => setTimeout(done, seconds * 1000));

class Refusal extends Error {
  constructor(body) {
    super(body.detail);
    this.code = body.code;
  }
}

// Asks until there is an answer: a full minute, a server that is away, a cut line are waited for.
async function ask(method, path, { headers = {}, body, json } = {}) {
  const sent = json ? { ...headers, "Content-Type": "application/json" } : headers;
  for (let count = 1; ; count += 1) {
    let answer;
    try {
      answer = await fetch(path, { method, headers: sent, body: json ? JSON.stringify(json) : body });
    } catch (error) {
      if (count === TRIES) throw new Refusal({ detail: "The server does not answer.", code: "no_answer" });
      await pause(count);
      continue;
    }
    if (answer.ok) return answer;
    if (answer.status !== 429 && answer.status !== 503) {
      throw new Refusal(method === "HEAD" ? { detail: "not found", code: "not_found" } : await answer.json());
    }
    if (answer.status === 503 && count === TRIES) throw new Refusal(await answer.json());
    await pause(Number(answer.headers.get("Retry-After")) || 1);
  }
}

const hex = (bytes) => Array.from(new Uint8Array(bytes), (byte) => byte.toString(16).padStart(2, "0")).join("");
const base64 = (text) => btoa(String.fromCharCode(...new TextEncoder().encode(text)));

async function begin(file) {
  let metadata = `filename ${base64(file.name.slice(0, 200))}`;
  if (crypto.subtle && file.size <= 16 * PART) {
    metadata += `,sha256 ${base64(hex(await crypto.subtle.digest("SHA-256", await file.arrayBuffer())))}`;
  }
  const made = await ask("POST", "/v1/uploads", {
    headers: { "Upload-Length": String(file.size), "Upload-Metadata": metadata },
  });
  return made.headers.get("Location");
}

async function offset(place) {
  return Number((await ask("HEAD", place)).headers.get("Upload-Offset"));
}

// Sends a file and returns the id of its upload; `name` is what an earlier visit may have left off under.
async function upload(file, name, progress) {
  const kept = `fpga-upload ${name} ${file.size} ${file.lastModified}`;
  let place = localStorage.getItem(kept);
  let at = 0;
  try {
    if (place) at = await offset(place);
  } catch {
    place = null;
  }
  if (!place) {
    place = await begin(file);
    if (file.size > PART) localStorage.setItem(kept, place);
  }
  while (at < file.size) {
    const before = at;
    try {
      const answer = await ask("PATCH", place, {
        headers: { "Upload-Offset": String(at), "Content-Type": "application/offset+octet-stream" },
        body: file.slice(at, at + PART),
      });
      at = Number(answer.headers.get("Upload-Offset"));
    } catch (error) {
      if (error.code !== "upload_offset") throw error;
      at = await offset(place);
    }
    progress(at - before);
  }
  localStorage.removeItem(kept);
  return place.split("/").pop();
}

// ---- the work
function refuse(error) {
  const alert = document.querySelector("#refusal");
  alert.hidden = false;
  alert.replaceChildren(
    Object.assign(document.createElement("p"), { textContent: error.message }),
    Object.assign(document.createElement("code"), { textContent: error.code || "error" }),
  );
  form.querySelector("button.primary").disabled = false;
  showForm(true);
}

async function showPicture(img, item) {
  const { output } = await (await ask("GET", `/v1/items/${item}`)).json();
  if (output) img.src = `/pictures/${output.id}/small`;
}

function follow(batch) {
  const first = document.querySelector("#first");
  const state = document.querySelector("#state");
  const tell = (completed, total, bad, word) => {
    state.textContent =
      `${completed} of ${total} photos done${bad ? `, ${bad} could not be restored` : ""}` +
      (word === "in_progress" ? "." : ` (${word.replaceAll("_", " ")}).`);
  };
  const stream = new EventSource(`/v1/batches/${batch}/events`);
  stream.addEventListener("item.ended", (event) => {
    const item = JSON.parse(event.data);
    if (item.status !== "completed" || first.children.length >= SHOWN) return;
    if (first.querySelector(`a[href="/items/${item.id}"]`)) return; // told again after the stream was opened again
    const shown = document.querySelector("#result").content.firstElementChild.cloneNode(true);
    shown.querySelector("a").href = `/items/${item.id}`;
    shown.querySelector("img").alt = item.custom_id;
    shown.querySelector(".name").textContent = item.custom_id.split("/").pop();
    shown.querySelector(".verdict").textContent = (item.verdict || "done").replaceAll("_", " ");
    first.append(shown);
    showPicture(shown.querySelector("img"), item.id);
  });
  stream.addEventListener("batch.progress", (event) => {
    const { counts, state: word } = JSON.parse(event.data);
    const total = Object.values(counts).reduce((sum, count) => sum + count, 0);
    tell(counts.completed, total, counts.failed + counts.held, word);
  });
  stream.addEventListener("batch.ended", (event) => {
    const { request_counts: counts, state: word } = JSON.parse(event.data);
    tell(counts.completed, counts.total, counts.failed, word);
    stream.close();
  });
  stream.addEventListener("error", () => {
    // a browser comes back by itself after a cut line, but not after an answer such as 429 or 503
    if (stream.readyState === EventSource.CLOSED) setTimeout(follow, AGAIN_MS, batch);
  });
}

// The choices make room for what comes of them.
function showForm(shown) {
  for (const part of form.querySelectorAll(":scope > :not(#refusal)")) part.hidden = !shown;
}

function showWork(batch) {
  work.hidden = false;
  showForm(false);
  document.querySelector("#batch").href = `/batches/${batch}`;
  history.replaceState(null, "", `/restore?batch=${batch}`);
  follow(batch);
  document.querySelector("#work-title").focus();
}

function meter(files) {
  const bar = document.querySelector("#sent");
  const line = document.querySelector("#sent-line");
  const all = files.reduce((sum, { file }) => sum + file.size, 0);
  let bytes = 0;
  let done = 0;
  const show = () => {
    bar.max = all;
    bar.value = bytes;
    line.textContent = `${done} of ${plural(files.length, "file")} sent, ${size(bytes)} of ${size(all)}`;
  };
  show();
  return {
    sent: (count) => {
      bytes += count;
      show();
    },
    finished: (file) => {
      done += 1;
      if (file) bytes += file.size;
      show();
    },
  };
}

async function knownOf(batch) {
  const known = new Set();
  let cursor = "";
  do {
    const page = await (await ask("GET", `/v1/batches/${batch}/items?limit=500${cursor}`)).json();
    for (const item of page.data) known.add(item.custom_id);
    cursor = page.next ? `&cursor=${encodeURIComponent(page.next)}` : "";
  } while (cursor);
  return known;
}

async function sendPhotos(batch, files) {
  const known = await knownOf(batch);
  const progress = meter(files);
  const left = files.filter(({ file, path }) => {
    if (known.has(path)) progress.finished(file);
    return !known.has(path);
  });
  const next = async () => {
    for (let one = left.shift(); one; one = left.shift()) {
      try {
        const id = await upload(one.file, `${batch} ${one.path}`, progress.sent);
        await ask("POST", `/v1/batches/${batch}/photos`, { json: { upload: id, path: one.path } });
      } catch (error) {
        if (!(error instanceof Refusal) || FOR_ALL.has(error.code)) throw error;
        notSent(one.path, error);
      }
      progress.finished();
    }
  };
  await Promise.all(Array.from({ length: ABREAST }, next));
  await ask("POST", `/v1/batches/${batch}/close`);
}

// One file that cannot be sent stops no other.
function notSent(path, error) {
  const list = document.querySelector("#not-sent");
  list.hidden = false;
  const line = document.createElement("li");
  line.textContent = `${path}: ${error.message} [${error.code}]`;
  list.append(line);
}

async function open(source) {
  const name = new FormData(form).get("name").trim() || chosen[0].path.split("/")[0];
  const made = await ask("POST", "/v1/restorations", { json: { ...options(), name: name.slice(0, 200), ...source } });
  return (await made.json()).id;
}

async function restore() {
  const [one] = chosen;
  if (chosen.length === 1 && ARCHIVE.test(one.file.name)) {
    work.hidden = false;
    const progress = meter(chosen);
    const id = await upload(one.file, one.path, progress.sent);
    progress.finished();
    showWork(await open({ upload: id }));
    return;
  }
  const batch = form.dataset.batch || (await open({}));
  showWork(batch);
  await sendPhotos(batch, [...chosen]);
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  document.querySelector("#refusal").hidden = true;
  if (!chosen.length) {
    refuse(new Refusal({ detail: "Choose photos, a folder or an archive first.", code: "nothing_chosen" }));
    return;
  }
  form.querySelector("button.primary").disabled = true;
  try {
    await restore();
    document.querySelector("#sent-line").append(". Everything is there; this page can be closed.");
  } catch (error) {
    refuse(error);
  }
});

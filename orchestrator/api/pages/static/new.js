// New batch: faces onto places (drag, or press face then place), rows, a manifest instead, check, submit.
"use strict";
const form = document.querySelector("#new");
const rows = document.querySelector("#rows");
const answer = document.querySelector("#answer");
const fileInput = document.querySelector("#manifest");
const chosen = document.querySelector("#chosen");
const TYPES = { csv: "text/csv", jsonl: "application/jsonl", ndjson: "application/jsonl" };
const ENDED = "Your session has ended. Log in again in another tab, then press it once more: your rows stay here.";
const NUMBERS = new Set(["seed", "count"]);
let held = null; // the face that was pressed
let manifest = null;
let last = { sent: null, key: "" }; // the same thing sent again has the same key, so that it makes one batch

// ---- faces and places
function faceOf(handle) {
  return [...document.querySelectorAll(".face")].find((face) => face.dataset.person === handle);
}

function hold(face) {
  held = held === face ? null : face;
  for (const one of document.querySelectorAll(".face")) one.setAttribute("aria-pressed", String(one === held));
}

function put(slot, handle) {
  slot.dataset.person = handle || "";
  const picture = handle && faceOf(handle)?.querySelector("img")?.cloneNode();
  const word = document.createElement("span");
  word.textContent = handle ? `${slot.dataset.slot}: ${handle}` : `${slot.dataset.slot}: nobody`;
  slot.replaceChildren(...(picture ? [picture, word] : [word]));
  slot.classList.toggle("filled", Boolean(handle));
}

function makeSlot(name) {
  const slot = document.createElement("button");
  slot.type = "button";
  slot.className = "slot";
  slot.dataset.slot = name;
  slot.addEventListener("click", () => {
    put(slot, held ? held.dataset.person : "");
    if (held) hold(held);
  });
  slot.addEventListener("dragover", (event) => {
    if (!event.dataTransfer.types.includes("text/plain")) return;
    event.preventDefault();
    slot.classList.add("over");
  });
  slot.addEventListener("dragleave", () => slot.classList.remove("over"));
  slot.addEventListener("drop", (event) => {
    event.preventDefault();
    slot.classList.remove("over");
    const handle = event.dataTransfer.getData("text/plain");
    if (faceOf(handle)) put(slot, handle);
  });
  return slot;
}

for (const face of document.querySelectorAll(".face")) {
  face.addEventListener("click", () => hold(face));
  face.addEventListener("dragstart", (event) => {
    event.dataTransfer.setData("text/plain", face.dataset.person);
    event.dataTransfer.effectAllowed = "copy";
  });
}
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && held) hold(held);
});

// ---- rows
const field = (row, name) => row.querySelector(`[data-field="${name}"]`);
const placed = (row) => [...row.querySelectorAll(".slot")].map((slot) => slot.dataset.person);

function layOut(row, people) {
  const option = field(row, "layout").selectedOptions[0];
  const slots = option.dataset.slots.split(" ").map(makeSlot);
  slots.forEach((slot, index) => put(slot, people[index] || ""));
  row.querySelector(".slots").replaceChildren(...slots);
  field(row, "prompt").placeholder = option.dataset.caption;
}

function valuesOf(row) {
  const fields = [...row.querySelectorAll("[data-field]")].map((one) => [one.dataset.field, one.value]);
  return { ...Object.fromEntries(fields), people: placed(row) };
}

function addRow(values = { people: [] }, name = freeName()) {
  const row = document.querySelector("#row").content.firstElementChild.cloneNode(true);
  for (const one of row.querySelectorAll("[data-field]")) {
    const value = values[one.dataset.field];
    if (value === undefined || (one.options && ![...one.options].some((option) => option.value === value))) continue;
    one.value = value;
  }
  rows.append(row);
  field(row, "custom_id").value = name;
  layOut(row, values.people);
  field(row, "layout").addEventListener("change", () => layOut(row, placed(row)));
  row.querySelector('[data-do="copy"]').addEventListener("click", () => {
    field(addRow(valuesOf(row)), "custom_id").focus();
  });
  row.querySelector('[data-do="remove"]').addEventListener("click", () => {
    row.remove();
    if (!rows.children.length) addRow();
    number();
    document.querySelector("#add").focus();
  });
  number();
  return row;
}

function freeName() {
  const taken = new Set([...rows.children].map((row) => field(row, "custom_id").value));
  let count = 1;
  while (taken.has(`portrait-${count}`)) count += 1;
  return `portrait-${count}`;
}

function number() {
  [...rows.children].forEach((row, index) => {
    row.querySelector("legend").textContent = `Row ${index + 1}`;
  });
}

function rowAsJson(row) {
  const slots = [...row.querySelectorAll(".slot")].filter((slot) => slot.dataset.person);
  const made = { people: slots.map((slot) => ({ identity: slot.dataset.person, slot: slot.dataset.slot })) };
  for (const one of row.querySelectorAll("[data-field]")) {
    const value = one.value.trim();
    if (value) made[one.dataset.field] = NUMBERS.has(one.dataset.field) ? Number(value) : value;
  }
  return made;
}

// ---- manifest
function useManifest(file) {
  manifest = file;
  chosen.hidden = !file;
  rows.parentElement.hidden = Boolean(file);
  chosen.firstElementChild.textContent = file ? `${file.name}, ${Math.ceil(file.size / 1024)} KiB` : "";
  if (!file) fileInput.value = "";
  answer.replaceChildren();
}

const drop = document.querySelector("#drop");
fileInput.addEventListener("change", () => useManifest(fileInput.files[0] || null));
document.querySelector("#forget").addEventListener("click", () => useManifest(null));
drop.addEventListener("dragover", (event) => {
  event.preventDefault();
  drop.classList.add("over");
});
drop.addEventListener("dragleave", () => drop.classList.remove("over"));
drop.addEventListener("drop", (event) => {
  event.preventDefault();
  drop.classList.remove("over");
  if (event.dataTransfer.files.length) useManifest(event.dataTransfer.files[0]);
});

// ---- check and submit
function newKey() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function options() {
  const given = new FormData(form);
  const made = { preset: form.dataset.preset, name: given.get("name"), lane: given.get("lane") };
  made.small_faces = given.get("small_faces");
  made.seed = Number(given.get("seed"));
  made.redraws = Number(given.get("redraws"));
  made.skip_invalid = given.has("skip_invalid");
  if (given.get("stop_after")) made.stop_after = Number(given.get("stop_after"));
  if (given.get("model")) made.model = given.get("model");
  return made;
}

function keyOf(request) {
  const sent = manifest ? `${manifest.name} ${manifest.lastModified} ${request.query}` : request.body;
  if (sent !== last.sent) last = { sent, key: newKey() };
  return last.key;
}

// ---- a draft, for this tab alone: going back, another page or a session that ended lose nothing
const DRAFT = `fpga.draft.${form.dataset.preset}`;

function keepDraft() {
  const made = { rows: [...rows.children].map(valuesOf), options: {} };
  for (const one of form.elements) {
    if (one.name && one.type !== "file") made.options[one.name] = one.type === "checkbox" ? one.checked : one.value;
  }
  sessionStorage.setItem(DRAFT, JSON.stringify(made));
}

function takeDraft() {
  const kept = JSON.parse(sessionStorage.getItem(DRAFT) || "null");
  if (!kept) return false;
  for (const [name, value] of Object.entries(kept.options)) {
    const one = form.elements[name];
    if (one?.type === "checkbox") one.checked = value;
    else if (one) one.value = value;
  }
  for (const row of kept.rows) addRow(row, row.custom_id);
  return kept.rows.length > 0;
}

function nobodyPlaced() {
  if (manifest) return [];
  return [...rows.children].flatMap((row, index) =>
    placed(row).some(Boolean) ? [] : [{ row: index + 1, code: "missing_people", message: "Put a person on a place." }],
  );
}

async function send(path, once = false) {
  const missing = nobodyPlaced();
  if (missing.length) return { ok: false, body: { detail: "Somebody is missing.", errors: missing } };
  let request = { body: "", type: "application/json", query: "" };
  if (manifest) {
    const type = TYPES[manifest.name.split(".").pop().toLowerCase()];
    if (!type) return { ok: false, body: { detail: "A manifest is named .csv, .jsonl or .ndjson." } };
    request = { body: manifest, type, query: `?${new URLSearchParams(options())}` };
  } else {
    request.body = JSON.stringify({ ...options(), items: [...rows.children].map(rowAsJson) });
  }
  try {
    const told = await fetch(path + request.query, {
      method: "POST",
      headers: { "Content-Type": request.type, ...(once ? { "Idempotency-Key": keyOf(request) } : {}) },
      body: request.body,
    });
    if (told.status === 401) return { ok: false, body: { detail: ENDED } };
    return { ok: told.ok, body: await told.json() };
  } catch {
    return { ok: false, body: { detail: "The server did not answer." } };
  }
}

function line(tag, text, kind = "") {
  const made = document.createElement(tag);
  made.textContent = text;
  if (kind) made.className = kind;
  return made;
}

const plural = (count, word) => `${count} ${word}${count === 1 ? "" : "s"}`;

function time(eta) {
  if (!eta) return "How long it takes is not known yet: nothing like it was made here.";
  const words = (seconds) => (seconds < 90 ? `${Math.ceil(seconds)} s` : `${Math.ceil(seconds / 60)} min`);
  return `About ${words(eta.p50)}, nine times in ten under ${words(eta.p90)}.`;
}

function showErrors(errors) {
  for (const row of rows.children) {
    row.querySelector(".row-wrong").hidden = true;
    row.classList.remove("wrong");
  }
  const list = document.createElement("ul");
  list.className = "errors";
  for (const error of errors.slice(0, 200)) {
    const where = error.row ? `Row ${error.row}` : error.pointer || error.parameter || "";
    const told = line("li", `${where}: ${error.message} `);
    told.append(line("code", error.code));
    list.append(told);
    const row = manifest ? null : rows.children[error.row - 1];
    if (row) {
      const note = row.querySelector(".row-wrong");
      note.textContent = note.hidden ? error.message : `${note.textContent} ${error.message}`;
      note.hidden = false;
      row.classList.add("wrong");
    }
  }
  if (errors.length > 200) list.append(line("li", `and ${errors.length - 200} more`));
  return list;
}

function tell(...parts) {
  answer.replaceChildren(...parts);
  answer.focus();
}

function showRefusal(body) {
  tell(line("p", body.detail, "wrong"), showErrors(body.errors || []));
}

function showCheck(found) {
  const parts = [line("p", `${plural(found.items, "picture")} of ${plural(found.people, "person").replace("persons", "people")}. ${time(found.eta)}`, "good")];
  if (found.ahead) parts.push(line("p", `${plural(found.ahead, "item")} of other batches wait before it.`));
  if (!found.workers) parts.push(line("p", "No worker runs at the moment; it will wait for one.", "wrong"));
  for (const sentence of found.missing_consents) parts.push(line("p", `Consent is missing: ${sentence}.`, "wrong"));
  for (const note of found.notes) parts.push(line("p", `${note}.`, "soft"));
  if (found.errors.length) parts.push(line("p", `${plural(found.errors.length, "error")}:`, "wrong"));
  tell(...parts, showErrors(found.errors));
}

async function check() {
  const told = await send("/v1/batches/dry-run");
  if (told.ok) showCheck(told.body);
  else showRefusal(told.body);
  return told;
}

document.querySelector("#add").addEventListener("click", () => field(addRow(), "prompt").focus());
document.querySelector("#check").addEventListener("click", check);
form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const button = form.querySelector("button.primary");
  button.disabled = true;
  const told = await send("/v1/batches", true);
  button.disabled = false;
  if (!told.ok) return showRefusal(told.body);
  sessionStorage.removeItem(DRAFT);
  removeEventListener("pagehide", keepDraft);
  window.location.assign(`/batches/${told.body.id}`);
});
addEventListener("pagehide", keepDraft);
form.addEventListener("change", keepDraft);
if (form.dataset.like) {
  const like = JSON.parse(form.dataset.like);
  addRow(like, like.custom_id);
} else if (!takeDraft()) addRow();

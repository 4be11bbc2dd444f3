// One picture after the other, by keys. Decisions show at once and are sent together a moment later; the pictures
// that come next are decoded before they are asked for, so that nobody waits.
"use strict";
const root = document.querySelector("#review");
const stage = document.querySelector("#stage");
const note = document.querySelector("#note");
const trouble = document.querySelector("#trouble");
const AHEAD = 6;
const BEHIND = 2;
const SEND_MS = 300;
const AGAIN_MS = 3000;
const WORDS = { approve: "approved", reject: "rejected", undo: "undecided" };
const tiles = [];
const images = new Map(); // item id -> its picture, decoded or on its way
let at = 0;
let zoom = 1;
let pan = { x: 0, y: 0 };
let waiting = new Map(); // item id -> what is to be sent of it
let timer = 0;

const one = (name) => document.querySelector(name);
const doubtful = (tile) => !tile.decision && ["needs_review", "rejected"].includes(tile.verdict);
const words = (text) => text.replaceAll("_", " ");

async function load() {
  let cursor = "";
  do {
    const source = new URL(root.dataset.source, location.href);
    if (cursor) source.searchParams.set("cursor", cursor);
    const answer = await fetch(source, { headers: { Accept: "application/json" } });
    if (!answer.ok) throw new Error(answer.status === 401 ? "Your session has ended. Log in again in another tab." : answer.statusText);
    const page = await answer.json();
    const first = !tiles.length;
    tiles.push(...page.data.filter((tile) => tile.output_id));
    cursor = page.next;
    if (first && tiles.length) {
      const wanted = tiles.findIndex((tile) => tile.id === location.hash.slice(1));
      show(Math.max(0, wanted));
    } else tell();
  } while (cursor);
  if (!tiles.length) one("#position").textContent = "No picture here";
}

// ---- pictures
function imageOf(tile) {
  let image = images.get(tile.id);
  if (!image) {
    image = new Image();
    image.decoding = "async";
    image.draggable = false;
    image.alt = tile.custom_id;
    image.src = `/pictures/${tile.output_id}/full`;
    image.decode().catch(() => image.classList.add("lost"));
    images.set(tile.id, image);
  }
  return image;
}

function prefetch() {
  const near = new Set(tiles.slice(Math.max(0, at - BEHIND), at + AHEAD + 1).map((tile) => tile.id));
  for (const id of images.keys()) if (!near.has(id)) images.delete(id);
  for (const tile of tiles.slice(at, at + AHEAD + 1)) imageOf(tile);
}

function show(index) {
  if (!tiles.length) return;
  saveNote();
  at = Math.min(tiles.length - 1, Math.max(0, index));
  zoom = 1;
  pan = { x: 0, y: 0 };
  const image = imageOf(tiles[at]);
  image.classList.toggle("hard", tiles[at].width < 512);
  stage.replaceChildren(image);
  place();
  if (note) note.value = tiles[at].note || "";
  history.replaceState(null, "", `#${tiles[at].id}`);
  tell();
  setTimeout(prefetch);
}

function place() {
  stage.classList.toggle("near", zoom > 1);
  const image = stage.firstElementChild;
  if (image) image.style.transform = `translate(${pan.x}px, ${pan.y}px) scale(${zoom})`;
}

function zoomTo(value) {
  zoom = Math.min(8, Math.max(1, value));
  if (zoom === 1) pan = { x: 0, y: 0 };
  place();
}

// ---- words
function badge(kind, text) {
  const made = document.createElement("span");
  made.className = `badge ${kind}`;
  made.textContent = text;
  return made;
}

function tell() {
  const tile = tiles[at];
  if (!tile) return;
  one("#position").textContent = `${at + 1} of ${tiles.length}`;
  one("#name").textContent = tile.custom_id;
  one("#name").href = `/items/${tile.id}`;
  const likeness = tile.similarity === null ? "" : ` ${tile.similarity.toFixed(2).replace("-", "−")}`;
  one("#verdict").replaceChildren(badge(tile.verdict || "none", words(tile.verdict || "not scored") + likeness));
  const said = [];
  if (tile.decision) said.push(badge(`${tile.decision} person`, `${tile.decision} by you`));
  if (tile.starred) said.push(badge("starred", "starred"));
  one("#decision").replaceChildren(...said);
  one('[data-do="star"]')?.setAttribute("aria-pressed", String(Boolean(tile.starred)));
  one("#download").href = `/pictures/${tile.output_id}/full`;
  one("#download").download = tile.custom_id;
  const left = tiles.filter(doubtful).length;
  const done = tiles.filter((one) => one.decision).length;
  one("#tally").textContent = `${done} decided · ${left} in doubt`;
}

// ---- decisions
function put(change) {
  const tile = tiles[at];
  if (!tile || !note) return;
  const shown = { ...change };
  if (shown.decision === "undecided") shown.decision = null;
  Object.assign(tile, shown);
  waiting.set(tile.id, { ...waiting.get(tile.id), ...change });
  clearTimeout(timer);
  timer = setTimeout(send, SEND_MS);
  tell();
}

async function send(last = false) {
  const sent = waiting;
  waiting = new Map();
  const groups = new Map(); // the same said of many goes as one
  for (const [id, change] of sent) {
    const key = JSON.stringify(change);
    groups.set(key, [...(groups.get(key) || []), id]);
  }
  for (const [key, items] of groups) {
    try {
      const answer = await fetch(`/v1/batches/${root.dataset.batch}/reviews`, {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify({ items, ...JSON.parse(key) }),
        keepalive: last,
      });
      if (!answer.ok) throw new Error((await answer.json()).detail);
      trouble.hidden = true;
    } catch (error) {
      for (const id of items) waiting.set(id, { ...JSON.parse(key), ...waiting.get(id) });
      trouble.textContent = `Not kept yet, it is tried again: ${error.message}`;
      trouble.hidden = false;
      clearTimeout(timer);
      timer = setTimeout(send, AGAIN_MS);
    }
  }
  document.body.dataset.unsent = String(waiting.size);
}

function saveNote() {
  if (!note || !tiles[at] || note.value.trim() === (tiles[at].note || "")) return;
  put({ note: note.value.trim() });
}

const acts = {
  previous: () => show(at - 1),
  next: () => show(at + 1),
  doubtful: () => {
    const order = [...tiles.keys()].map((step) => (at + 1 + step) % tiles.length);
    const found = order.find((index) => doubtful(tiles[index]));
    if (found !== undefined) show(found);
  },
  zoom: () => zoomTo(zoom > 1 ? 1 : 2.5),
  download: () => one("#download").click(),
  approve: () => decide("approve"),
  reject: () => decide("reject"),
  undo: () => put({ decision: WORDS.undo }),
  star: () => tiles[at] && put({ starred: !tiles[at].starred }),
  note: () => note?.focus(),
  back: () => location.assign(root.dataset.back),
};

function decide(word) {
  put({ decision: WORDS[word] });
  if (at < tiles.length - 1) show(at + 1);
}

const KEYS = {
  ArrowLeft: "previous", ArrowRight: "next", a: "approve", x: "reject", s: "star", z: "zoom", u: "undo", n: "doubtful",
  d: "download", e: "note", Escape: "back",
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target === note) {
    if (event.key === "Enter" || event.key === "Escape") {
      saveNote();
      stage.focus();
      event.preventDefault();
    }
    return;
  }
  const act = KEYS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (!act || (event.key === "Escape" && zoom > 1 && !zoomTo(1))) return;
  event.preventDefault();
  acts[act]();
});
for (const button of document.querySelectorAll("[data-do]")) button.addEventListener("click", () => acts[button.dataset.do]());
note?.addEventListener("change", saveNote);

// ---- zoom and pan by hand
stage.addEventListener("wheel", (event) => {
  event.preventDefault();
  zoomTo(zoom * (event.deltaY < 0 ? 1.2 : 1 / 1.2));
}, { passive: false });
stage.addEventListener("dblclick", () => acts.zoom());
stage.addEventListener("pointerdown", (event) => {
  if (zoom === 1) return;
  stage.setPointerCapture(event.pointerId);
  const from = { x: event.clientX - pan.x, y: event.clientY - pan.y };
  const move = (moved) => {
    pan = { x: moved.clientX - from.x, y: moved.clientY - from.y };
    place();
  };
  stage.addEventListener("pointermove", move);
  stage.addEventListener("pointerup", () => stage.removeEventListener("pointermove", move), { once: true });
});
addEventListener("pagehide", () => {
  saveNote();
  if (waiting.size) send(true);
});
load().catch((error) => {
  trouble.textContent = error.message;
  trouble.hidden = false;
});

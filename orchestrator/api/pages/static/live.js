// Keeps the parts of a page marked data-part fresh: when the page's stream tells something, the page is read again
// and what changed is put in its place. The server alone knows how a page looks.
const EVERY_MS = 1500;
const AGAIN_MS = 5000;
const TOLD = ["batch.progress", "batch.ended", "item.drawn", "item", "queue", "training_run"];
const FOCUSABLE = "a, button, summary, input, select, [tabindex]";
let wanted = 0;
let busy = false;
let stream = listen();

const title = document.title;
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) document.title = title;
  later();
});

function listen() {
  const opened = new EventSource(document.body.dataset.stream);
  for (const name of TOLD) opened.addEventListener(name, later);
  opened.addEventListener("batch.ended", () => {
    if (!document.hidden) return;
    document.title = `● Ended: ${title}`; // a tab that nobody looks at says so itself
    if (localStorage.getItem("fpga-notify") && Notification.permission === "granted") {
      new Notification("A batch has ended", { body: title, tag: window.location.pathname }).onclick = () => window.focus();
    }
  });
  opened.addEventListener("error", () => {
    if (opened.readyState !== EventSource.CLOSED) return; // a cut line: the browser comes back by itself
    setTimeout(() => {
      stream = listen();
      later(); // what happened in between
    }, AGAIN_MS);
  });
  return opened;
}

function later() {
  if (wanted || document.hidden) return;
  wanted = setTimeout(async () => {
    wanted = 0;
    if (busy) return later();
    busy = true;
    await refresh();
    busy = false;
  }, EVERY_MS);
}

async function refresh() {
  let page;
  try {
    const answer = await fetch(window.location.href, { headers: { Accept: "text/html" } });
    if (answer.redirected) return window.location.assign(answer.url);
    if (answer.status === 404) return window.location.reload(); // it was erased: say so
    if (answer.status === 429 || answer.status === 503) return setTimeout(later, AGAIN_MS);
    if (!answer.ok) return;
    page = new DOMParser().parseFromString(await answer.text(), "text/html");
  } catch {
    return; // the server is away; the stream tells when it is back
  }
  for (const old of document.querySelectorAll("[data-part]")) {
    const fresh = page.querySelector(`[data-part="${old.dataset.part}"]`);
    if (fresh) renew(old, fresh);
  }
  if (!page.body.dataset.stream) stream.close();
}

// Children with a data-key keep their place and their loaded pictures; anything else is replaced as a whole.
function renew(old, fresh) {
  if (old.innerHTML === fresh.innerHTML) return;
  if (document.activeElement.matches("input, textarea") && old.contains(document.activeElement)) return; // one types
  const place = [...old.querySelectorAll(FOCUSABLE)].indexOf(document.activeElement);
  const open = [...old.querySelectorAll("details")].map((one) => one.open);
  const known = new Map([...old.children].filter((one) => one.dataset.key).map((one) => [one.dataset.key, one]));
  const made = [...fresh.childNodes].map((one) => {
    const kept = known.get(one.dataset?.key);
    return kept && kept.outerHTML === one.outerHTML ? kept : document.adoptNode(one);
  });
  old.replaceChildren(...made);
  [...old.querySelectorAll("details")].forEach((one, index) => (one.open = open[index] || one.open));
  if (place >= 0) old.querySelectorAll(FOCUSABLE)[place]?.focus({ preventScroll: true });
}

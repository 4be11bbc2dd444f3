// Keeps the parts of a page marked data-part fresh: whenever the page's stream tells something, reads the page again.
"use strict";
const source = document.querySelector("[data-stream]");
let reading = false;
let again = false;

function renew(old, fresh) {
  if (old.innerHTML === fresh.innerHTML) return;
  const open = [...old.querySelectorAll("details")].map((one) => one.open);
  [...fresh.querySelectorAll("details")].forEach((one, index) => {
    one.open = open[index] || false;
  });
  const place = [...old.querySelectorAll("button, a, summary")].indexOf(document.activeElement);
  old.replaceChildren(...fresh.childNodes);
  if (place >= 0) old.querySelectorAll("button, a, summary")[place]?.focus();
}

async function refresh() {
  if (reading) {
    again = true;
    return;
  }
  reading = true;
  try {
    const told = await fetch(window.location.href);
    if (told.redirected) window.location.assign(told.url);
    if (told.ok) {
      const page = new DOMParser().parseFromString(await told.text(), "text/html");
      for (const old of document.querySelectorAll("[data-part]")) {
        const fresh = page.querySelector(`[data-part="${old.dataset.part}"]`);
        if (fresh) renew(old, fresh);
      }
      if (!page.querySelector("[data-stream]")) stream.close();
    }
  } catch {
    // the stream asks again when the server is back
  }
  reading = false;
  if (again) {
    again = false;
    refresh();
  }
}

const stream = source && new EventSource(source.dataset.stream);
for (const name of ["batch.progress", "batch.ended", "training"]) stream?.addEventListener(name, refresh);

// Choosing many in a gallery: a click with shift takes everything between, the bar says how many are chosen.
"use strict";
const form = document.querySelector("#gallery");
const told = document.querySelector("#chosen");
const boxes = () => [...form.querySelectorAll('.gallery input[name="item"]')];
const kept = new Set();
let last = null;

function tell() {
  const whole = form.elements.whole?.checked;
  const count = boxes().filter((box) => box.checked).length;
  told.textContent = whole ? "everything of this filter" : count ? `${count} chosen` : "nothing chosen";
  form.classList.toggle("choosing", Boolean(count || whole));
}

if (told) {
  form.addEventListener("click", (event) => {
    const box = event.target.closest('input[name="item"]');
    if (!box) return;
    const all = boxes();
    const from = all.findIndex((one) => one.value === last);
    if (event.shiftKey && from >= 0) {
      const to = all.indexOf(box);
      for (const one of all.slice(Math.min(from, to), Math.max(from, to) + 1)) one.checked = box.checked;
    }
    last = box.value;
    kept.clear();
    for (const one of all) if (one.checked) kept.add(one.value);
    tell();
  });
  form.addEventListener("change", tell);
  // the page's parts are put anew while a batch runs: what was chosen stays chosen
  new MutationObserver(() => {
    for (const box of boxes()) box.checked = kept.has(box.value);
    tell();
  }).observe(form.querySelector(".gallery"), { childList: true });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || !kept.size) return;
    kept.clear();
    for (const box of boxes()) box.checked = false;
    tell();
  });
  tell();
}

// Lays before over after with a line between them: at its left the photo as it was, at its right as it is now.
// Without this script they stand side by side.
for (const pair of document.querySelectorAll("[data-compare]")) {
  const slider = pair.querySelector("input[type=range]");
  const cut = () => {
    pair.style.setProperty("--cut", `${slider.value}%`);
    slider.setAttribute("aria-valuetext", `${slider.value} % before, ${100 - slider.value} % after`);
  };
  pair.classList.add("sliding");
  for (const hidden of pair.querySelectorAll("[hidden]")) hidden.hidden = false;
  slider.addEventListener("input", cut);
  pair.addEventListener("pointermove", (event) => {
    if (event.buttons !== 1 || event.target === slider) return;
    const box = pair.querySelector("img").getBoundingClientRect();
    slider.value = Math.round((100 * (event.clientX - box.left)) / box.width);
    cut();
  });
  cut();
}

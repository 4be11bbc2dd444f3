// Lays before over after, and lets a slider say how much of each is seen. Without this script they stand side by side.
for (const pair of document.querySelectorAll("[data-compare]")) {
  const slider = pair.querySelector("input[type=range]");
  const cut = () => pair.style.setProperty("--cut", `${slider.value}%`);
  pair.classList.add("sliding");
  slider.closest("label").hidden = false;
  slider.addEventListener("input", cut);
  pair.addEventListener("pointermove", (event) => {
    if (event.buttons !== 1 || event.target === slider) return;
    const box = pair.querySelector("img").getBoundingClientRect();
    slider.value = Math.round((100 * (event.clientX - box.left)) / box.width);
    cut();
  });
  cut();
}

// Shows a curve's values under the pointer. The table below a chart says the same to who has none.
const SVG = "http://www.w3.org/2000/svg";

document.addEventListener("pointermove", (event) => {
  const chart = event.target.closest?.("[data-chart]");
  for (const other of document.querySelectorAll("[data-chart] .pointer")) if (other.parentNode !== chart) clear(other.parentNode);
  if (chart) tell(chart, event);
});
document.addEventListener("pointerleave", () => document.querySelectorAll("[data-chart]").forEach(clear));

function tell(chart, event) {
  const curves = JSON.parse(chart.dataset.chart);
  const [left, right, top, bottom] = ["left", "right", "top", "bottom"].map((name) => Number(chart.dataset[name]));
  const steps = curves.flatMap((curve) => curve.values.map(([step]) => step));
  const low = Math.min(...steps);
  const span = Math.max(Math.max(...steps) - low, 1);
  const x = new DOMPoint(event.clientX, event.clientY).matrixTransform(chart.getScreenCTM().inverse()).x;
  const wanted = low + (span * (x - left)) / (right - left);
  const nearest = (values) => values.reduce((best, one) => (Math.abs(one[0] - wanted) < Math.abs(best[0] - wanted) ? one : best));
  const step = nearest(steps.map((one) => [one]))[0];
  const told = curves.map((curve) => `${curve.name} ${Number(nearest(curve.values)[1].toPrecision(4))}`);
  chart.parentNode.querySelector("output").value = `step ${Math.round(step)}: ${told.join(", ")}`;
  let line = chart.querySelector(".pointer");
  if (!line) {
    line = document.createElementNS(SVG, "line");
    line.setAttribute("class", "rule pointer");
    chart.append(line);
  }
  const at = left + ((right - left) * (step - low)) / span;
  for (const [name, value] of Object.entries({ x1: at, x2: at, y1: top, y2: bottom })) line.setAttribute(name, value);
}

function clear(chart) {
  chart.querySelector(".pointer")?.remove();
  const output = chart.parentNode.querySelector("output");
  if (output) output.value = "";
}

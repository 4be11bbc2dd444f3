// Follows a stream of the API and puts what it tells into the line marked data-live.
"use strict";
const line = document.querySelector("[data-live]");
const stream = new EventSource(document.currentScript.dataset.stream);
stream.addEventListener("batch.progress", (event) => {
  const told = JSON.parse(event.data);
  const total = Object.values(told.counts).reduce((sum, count) => sum + count, 0);
  line.textContent = `${told.state.replaceAll("_", " ")}: ${told.counts.completed} of ${total} items completed, ` +
    `${told.counts.failed + told.counts.held} failed.`;
});
stream.addEventListener("batch.ended", () => stream.close());

// Asks this browser, once and by a press, whether it may say on the desk that a batch has ended; live.js says it.
const KEY = "fpga-notify";
const button = document.querySelector("[data-notify]");
const state = document.querySelector("[data-notify-state]");

if ("Notification" in window) {
  button.hidden = false;
  button.addEventListener("click", async () => {
    if (on()) localStorage.removeItem(KEY);
    else if ((await Notification.requestPermission()) === "granted") localStorage.setItem(KEY, "yes");
    show();
  });
  show();
}

function on() {
  return Notification.permission === "granted" && localStorage.getItem(KEY) !== null;
}

function show() {
  button.textContent = on() ? "Tell me no more" : "Tell me on the desk";
  state.textContent = on()
    ? "On: a batch that ends while you look elsewhere is said here."
    : Notification.permission === "denied"
      ? "This browser was told not to: change it in its settings for this site."
      : "Off.";
}

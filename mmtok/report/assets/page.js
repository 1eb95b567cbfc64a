/* What all scripts share: the page's data, its colours, and a word when they change. */
const report = (() => {
  "use strict";
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const root = document.documentElement;
  const listeners = [];
  const probe = document.createElement("span");
  probe.hidden = true;
  document.body.append(probe);

  /** A colour of the style sheet as the present theme has it. */
  function colour(name) {
    probe.style.color = `var(--${name})`;
    return getComputedStyle(probe).color;
  }

  /** The same, as transparent as asked. */
  function veiled(name, share) {
    return colour(name).replace("rgb(", "rgba(").replace(")", `, ${share})`);
  }

  function escape(text) {
    const signs = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" };
    return String(text).replace(/[&<>"']/g, (sign) => signs[sign]);
  }

  /** As a reader wants a number: four digits. */
  function number(value) {
    const size = Math.abs(value);
    if (value === 0) return "0";
    if (size >= 1e6 || size < 1e-3) return value.toExponential(2);
    return Number(value.toPrecision(4)).toLocaleString("en", { maximumFractionDigits: 6 });
  }

  const wanted = matchMedia("(prefers-color-scheme: dark)");
  const button = document.getElementById("theme");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : wanted.matches);
  /** The button names what it gives: the other colours, whoever chose the present ones. */
  function named() {
    document.getElementById("theme-other").textContent = isDark() ? "Light colours" : "Dark colours";
  }
  function told() {
    named();
    listeners.forEach((listener) => listener());
  }
  try {
    const kept = localStorage.getItem("mmtok-report-theme");
    if (kept === "light" || kept === "dark") root.dataset.theme = kept;
  } catch { /* a page from a disk may have no storage */ }
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    try { localStorage.setItem("mmtok-report-theme", root.dataset.theme); } catch { /* as above */ }
    told();
  });
  wanted.addEventListener("change", told);
  named();

  const links = new Map([...document.querySelectorAll("nav a")].map((link) => [link.hash.slice(1), link]));
  const watcher = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      links.forEach((link) => link.removeAttribute("aria-current"));
      links.get(entry.target.id)?.setAttribute("aria-current", "true");
    }
  }, { rootMargin: "-15% 0px -75% 0px" });
  document.querySelectorAll("main > section").forEach((section) => watcher.observe(section));

  const onTheme = (listener) => listeners.push(listener);
  return { data: read("data"), media: read("media"), colour, veiled, escape, number, onTheme };
})();

/* Pictures and sounds out of the page's own data; sliders between two pictures; lines over spectrograms. */
(() => {
  "use strict";
  const addresses = new Map();

  /** A blob's address: a player seeks in it, which it cannot in a data: address. */
  function address(key) {
    if (!addresses.has(key)) {
      const [head, content] = report.media[key].split(",", 2);
      const bytes = Uint8Array.from(atob(content), (sign) => sign.charCodeAt(0));
      addresses.set(key, URL.createObjectURL(new Blob([bytes], { type: head.slice(5, head.indexOf(";")) })));
    }
    return addresses.get(key);
  }

  for (const shown of document.querySelectorAll("[data-media]")) shown.src = address(shown.dataset.media);

  for (const pair of document.querySelectorAll(".pair")) {
    const range = pair.querySelector("input");
    const set = () => pair.style.setProperty("--cut", `${range.value}%`);
    range.addEventListener("input", set); // the keys; the pointer is the picture's
    const follow = (event) => {
      const box = pair.getBoundingClientRect();
      range.value = Math.round((100 * (event.clientX - box.left)) / box.width);
      set();
    };
    pair.addEventListener("pointerdown", (event) => {
      event.preventDefault();
      pair.setPointerCapture(event.pointerId);
      range.focus({ focusVisible: false });
      follow(event);
    });
    pair.addEventListener("pointermove", (event) => event.buttons && follow(event));
    set();
  }

  const players = [...document.querySelectorAll(".player")];
  for (const player of players) {
    const audio = player.querySelector("audio");
    const spectrum = player.querySelector(".spectrum");
    const head = player.querySelector(".playhead");
    const draw = () => {
      head.style.left = `${(100 * audio.currentTime) / (audio.duration || 1)}%`;
      if (!audio.paused) requestAnimationFrame(draw);
    };
    audio.addEventListener("play", () => {
      players.forEach((other) => other !== player && other.querySelector("audio").pause());
      player.classList.add("playing");
      draw();
    });
    audio.addEventListener("seeked", draw);
    audio.addEventListener("ended", () => player.classList.remove("playing"));
    spectrum.addEventListener("click", (event) => {
      const box = spectrum.getBoundingClientRect();
      audio.currentTime = ((event.clientX - box.left) / box.width) * (audio.duration || 0);
      audio.play();
    });
  }
})();

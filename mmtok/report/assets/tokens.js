/* Maps of codes over pictures: point at a square, and all squares of the same code light up. */
(() => {
  "use strict";
  const CELL = 16;
  const looks = report.data.tokens ?? [];

  /** Neighbouring ids far apart in hue. */
  const hashed = (id) => `hsl(${(id * 137.508) % 360} ${55 + (id * 7) % 25}% ${42 + (id * 13) % 26}%)`;

  looks.forEach((look, number) => {
    const canvases = [...document.querySelectorAll(`canvas[data-map^="${number},"]`)];
    const choice = document.getElementById(`tokens-colours-${number}`);
    const veil = document.querySelector(`[data-veil="${number}"]`);
    let lit = null; // the code whose squares light up
    const level = () => (choice.value === "similar" ? 0 : Number(choice.value));

    function draw(canvas, map, place) {
      const [rows, columns] = map.grid;
      canvas.width = columns * CELL;
      canvas.height = rows * CELL;
      const context = canvas.getContext("2d");
      const ids = map.ids[level()];
      ids.forEach((id, i) => {
        const [x, y] = [(i % columns) * CELL, Math.floor(i / columns) * CELL];
        const dim = lit !== null && id !== lit ? 0.25 : 1;
        context.globalAlpha = (Number(veil.value) / 100) * dim;
        context.fillStyle = choice.value === "similar" ? map.similar[i] : hashed(id);
        if (id >= 0) context.fillRect(x, y, CELL, CELL);
        if (lit !== null && id === lit) {
          context.globalAlpha = 1;
          context.strokeStyle = "#fff";
          context.lineWidth = 1.5;
          context.strokeRect(x + 1, y + 1, CELL - 2, CELL - 2);
        }
      });
      if (place !== undefined) {
        context.globalAlpha = 1;
        context.strokeStyle = "#000";
        context.lineWidth = 4;
        const [x, y] = [(place % columns) * CELL, Math.floor(place / columns) * CELL];
        context.strokeRect(x + 1, y + 1, CELL - 2, CELL - 2);
        context.strokeStyle = "#fff";
        context.lineWidth = 2;
        context.strokeRect(x + 1, y + 1, CELL - 2, CELL - 2);
      }
    }

    const map = (canvas) => look.maps[Number(canvas.dataset.map.split(",")[1])];
    const all = (at, place) => canvases.forEach((one) => draw(one, map(one), one === at ? place : undefined));
    const count = (ids) => ids.filter((id) => id === lit).length;

    canvases.forEach((canvas) => {
      const { grid: [rows, columns], ids } = map(canvas);
      const caption = canvas.closest("figure").querySelector("figcaption");
      let place = 0;
      function light(next) {
        place = next;
        lit = ids[level()][place];
        const codes = ids.map((row) => row[place]).join(" · ");
        const everywhere = canvases.reduce((sum, one) => sum + count(map(one).ids[level()]), 0);
        caption.textContent = `code ${codes}: ${count(ids[level()])} here, ${everywhere} in all`;
        all(canvas, place);
      }
      canvas.addEventListener("pointermove", (event) => {
        const box = canvas.getBoundingClientRect();
        const column = Math.min(columns - 1, Math.floor(((event.clientX - box.left) / box.width) * columns));
        const row = Math.min(rows - 1, Math.floor(((event.clientY - box.top) / box.height) * rows));
        light(Math.max(0, row) * columns + Math.max(0, column));
      });
      canvas.addEventListener("pointerleave", () => { lit = null; all(); });
      canvas.addEventListener("focus", () => light(place));
      canvas.addEventListener("blur", () => { lit = null; all(); });
      canvas.addEventListener("keydown", (event) => {
        const [row, column] = [Math.floor(place / columns), place % columns];
        const moves = {
          ArrowLeft: [row, Math.max(0, column - 1)], ArrowRight: [row, Math.min(columns - 1, column + 1)],
          ArrowUp: [Math.max(0, row - 1), column], ArrowDown: [Math.min(rows - 1, row + 1), column],
        };
        if (!(event.key in moves)) return;
        event.preventDefault();
        const [y, x] = moves[event.key];
        light(y * columns + x);
      });
    });
    if (!canvases.length) return;
    choice.addEventListener("change", () => all());
    veil.addEventListener("input", () => all());
    all();
  });
})();

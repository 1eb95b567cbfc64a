/* Charts: figures against rates, curves of logs, shares of codes. Drawn again when colours or choices change. */
(() => {
  "use strict";
  const SYMBOLS = ["circle", "rect", "triangle", "diamond", "roundRect"];
  const paint = (index) => report.colour(`c${index % 10}`);
  const hidden = {}; // section -> names of series that are switched off
  const charts = [];
  const element = (id) => document.getElementById(id);

  /** Of which comparison a section's charts are; undefined where there is one. */
  const scopeOf = (section) => element(`${section}-scope`)?.value;
  function isOff(section, name) {
    const scope = scopeOf(section);
    return Boolean(hidden[section]?.has(name)) || (scope !== undefined && report.data.groups[name] !== scope);
  }

  /** A name without its comparison's, which the choice above the chart tells. */
  function short(name, series = name) {
    const group = report.data.groups[series];
    return group && name.startsWith(`${group}: `) ? name.slice(group.length + 2) : name;
  }

  /** A chart in an element; `build` gives its options, or null for nothing to draw. */
  function chart(id, section, build, zooms = false) {
    const place = element(id);
    if (!place) return;
    const drawn = echarts.init(place, null, { renderer: "svg" });
    const draw = () => {
      drawn.clear();
      drawn.setOption({ ...base(zooms), ...build((name) => isOff(section, name)) });
      if (zooms) drawn.dispatchAction({ type: "takeGlobalCursor", key: "dataZoomSelect", dataZoomSelectActive: true });
    };
    charts.push({ section, draw });
    new ResizeObserver(() => drawn.resize()).observe(place);
    draw();
    return draw;
  }

  function base(zooms) {
    return {
      animation: false,
      textStyle: { fontFamily: getComputedStyle(document.body).fontFamily, color: report.colour("muted") },
      grid: { left: 6, right: 18, top: 34, bottom: 26, containLabel: true },
      // Off the edge: dragging zooms at once, without the tool's own buttons.
      ...(zooms ? { toolbox: { right: -200, feature: { dataZoom: { brushStyle: { color: report.veiled("accent", 0.12) } } } } } : {}),
    };
  }

  function axis(kind, name, more = {}) {
    const rule = { lineStyle: { color: report.colour("rule") } };
    return {
      type: kind, name, scale: true, nameTextStyle: { color: report.colour("muted"), fontSize: 12 },
      axisLine: { show: true, ...rule }, axisTick: { show: false }, splitLine: { ...rule, show: more.nameLocation !== "middle" },
      axisLabel: { color: report.colour("muted"), fontSize: 11.5, hideOverlap: true, formatter: report.number, showMinLabel: more.min === undefined, showMaxLabel: more.max === undefined },
      minorTick: { show: false }, ...more,
    };
  }
  const below = { nameLocation: "middle", nameGap: 26 };
  const beside = { nameLocation: "end", nameTextStyle: { align: "left", padding: [0, 0, 4, 0] } };

  function tooltip(trigger, formatter) {
    return {
      trigger, confine: true, formatter, backgroundColor: report.colour("surface"), borderColor: report.colour("rule"),
      textStyle: { color: report.colour("ink"), fontSize: 12.5 }, padding: [6, 10], axisPointer: { lineStyle: { color: report.colour("muted") } },
    };
  }
  const dot = (colour) => `<span style="display:inline-block;width:.65em;height:.65em;border-radius:50%;margin-right:.45em;background:${colour}"></span>`;

  // Figures against bits and tokens.
  const buys = report.data.tradeoff;
  function against(rates) {
    return (off) => {
      const figure = element("tradeoff-figure").value;
      const points = buys.points.filter((point) => point.figures[figure] && !off(point.name));
      const rate = rates.find((name) => points.some((point) => point.figures[name]));
      if (!rate) return nothing("No rate was measured with this figure.");
      const rated = points.filter((point) => point.figures[rate]);
      const free = points.filter((point) => !rates.some((name) => point.figures[name]));
      const better = buys.higher[figure] ? "↑ better" : "↓ better";
      const ends = points.flatMap(({ figures: { [figure]: [mean, half] } }) => [mean - (half ?? 0), mean + (half ?? 0)]);
      const across = placed(rated, rate, figure, ends);
      across.series[0].markLine = free.length ? ceilings(free, figure) : undefined;
      return {
        xAxis: across.axis,
        yAxis: axis("value", `${buys.titles[figure]}  ${better}`, { ...beside, ...padded(ends) }),
        series: across.series,
        tooltip: tooltip("item", (at) => at.data?.told),
      };
    };
  }
  const nothing = (text) => ({ title: { text, left: "center", top: "middle", textStyle: { fontSize: 13, fontWeight: 400, color: report.colour("muted") } } });

  /** Axis and series: by rate, or side by side where all have the same. */
  function placed(rated, rate, figure, ends) {
    const values = rated.map((point) => point.figures[rate][0]);
    const [low, high] = [Math.min(...values), Math.max(...values)];
    const scope = scopeOf("tradeoff");
    const beside = buys.codecs.filter((codec) => scope === undefined || codec.group === scope);
    const codecs = beside.map((codec) => ({ name: codec.name, points: codec.points.filter((one) => one[rate] !== undefined && one[figure] !== undefined) }));
    const steps = codecs.some((codec) => codec.points.length > 1);
    if (high - low <= 0.01 * high && !steps) {
      const names = rated.map((point) => short(point.name));
      return {
        axis: axis("category", `all at ${report.number(low)} ${buys.titles[rate]}`, { ...below, nameGap: names.length > 6 ? 58 : 26, data: names, boundaryGap: true, axisLabel: { color: report.colour("ink"), fontSize: 12, interval: 0, hideOverlap: false, rotate: names.length > 6 ? 35 : 0, width: 90, overflow: "truncate" } }),
        series: [
          ...rated.flatMap((point, i) => scattered(point, i, figure, rate)),
          ...codecs.filter((codec) => codec.points.length).map(({ name, points: [one] }, i) => level(`${name}, at ${report.number(one[rate])}`, one[figure], i)),
        ],
      };
    }
    const span = high - low;
    const wide = high > 8 * low;
    // Those at about the same rate stand side by side, not on top of each other: close, for the axis is to be read.
    const near = rated.map((point, i) => rated.map((_, j) => j).filter((j) => Math.abs(values[j] - values[i]) < 0.02 * span));
    const aside = near.map((places, i) => (places.indexOf(i) - (places.length - 1) / 2) * Math.min(1, 4 / places.length));
    const down = lowered(rated, near, figure, ends);
    const shift = (value, steps) => (wide ? value * 1.03 ** steps : value + 0.02 * span * steps);
    const bounds = wide ? {} : { min: low - 0.15 * span, max: high + 0.3 * span };
    const inside = (one) => wide || (one[rate] >= bounds.min && one[rate] <= bounds.max);
    const lines = codecs.map((codec) => ({ ...codec, points: codec.points.filter(inside) })).filter((codec) => codec.points.length);
    return {
      axis: axis(wide ? "log" : "value", buys.titles[rate], { ...below, ...bounds, splitNumber: 4 }),
      series: [
        ...rated.flatMap((point, i) => scattered(point, shift(values[i], aside[i]), figure, rate, down[i])),
        ...lines.map((codec) => dashed(codec.name, codec.points.map((one) => [one[rate], one[figure]]))),
      ],
    };
  }
  function padded(values) {
    const [low, high] = [Math.min(...values), Math.max(...values)];
    const room = 0.12 * (high - low) || Math.abs(high) * 0.1 || 1;
    const digits = Math.max(0, 2 - Math.floor(Math.log10(high - low + room)));
    return { min: Number((low - room).toFixed(Math.min(digits, 8))), max: Number((high + room).toFixed(Math.min(digits, 8))) };
  }

  /** How far down each name goes, in pixels, so that names of points at about the same rate do not cover each other. */
  function lowered(rated, near, figure, ends) {
    const heights = rated.map((point) => point.figures[figure][0]);
    const pixels = 180 / (Math.max(...ends) - Math.min(...ends) || 1);
    return near.map((places, i) => {
      const order = [...places].sort((a, b) => heights[b] - heights[a]);
      let [free, down] = [-Infinity, 0];
      for (const place of order.slice(0, order.indexOf(i) + 1)) {
        const wanted = -heights[place] * pixels;
        down = Math.max(0, free - wanted);
        free = wanted + down + 13;
      }
      return down;
    });
  }

  function scattered(point, x, figure, rate, down) {
    const colour = paint(point.colour);
    const [y, half] = point.figures[figure];
    const told = [
      `${dot(colour)}<b>${report.escape(short(point.name))}</b>`,
      `${report.escape(buys.titles[figure])} ${report.number(y)}${half ? ` ± ${report.number(half)}` : ""}`,
      `${report.escape(buys.titles[rate])} ${report.number(point.figures[rate][0])}`,
    ].join("<br>");
    const found = [{
      name: point.name, type: "scatter", symbol: SYMBOLS[point.colour % SYMBOLS.length], symbolSize: 11, color: colour, z: 3,
      data: [{ value: [x, y], told }], itemStyle: { opacity: 1 },
      label: { show: down !== undefined, position: "right", distance: 8, offset: [0, down ?? 0], formatter: () => short(point.name), color: report.colour("ink"), fontSize: 12, overflow: "truncate", width: 130 },
    }];
    if (half) found.push(bar(point.name, colour, x, y, half));
    return found;
  }
  /** An interval, with its ends. */
  const bar = (name, color, x, y, half) => ({
    name, type: "line", symbol: "rect", symbolSize: [9, 1.5], color, silent: true, lineStyle: { width: 1.5, opacity: 0.75 }, data: [[x, y - half], [x, y + half]],
  });
  /** What has a height and no place across: a line over the whole width. */
  const level = (name, value, i) => {
    const markLine = ceilings([{ name, figures: { value: [value] } }], "value");
    markLine.label.position = ["insideEndTop", "insideMiddleTop", "insideEndBottom"][i % 3]; // codecs are often close
    return { name, type: "line", data: [], markLine };
  };
  function dashed(name, data) {
    const colour = report.colour("muted");
    return {
      name, type: "line", data, color: colour, symbol: "emptyCircle", symbolSize: 5, lineStyle: { type: [4, 4], width: 1.2 },
      endLabel: { show: true, formatter: name, color: colour, fontSize: 11 },
    };
  }
  const ceilings = (free, figure) => ({
    silent: true, symbol: "none", lineStyle: { type: [5, 4], color: report.colour("muted"), width: 1 },
    label: { position: "insideStartTop", color: report.colour("muted"), fontSize: 11, formatter: (at) => at.name },
    data: free.map((point) => ({ name: short(point.name), yAxis: point.figures[figure][0] })),
  });
  if (buys) {
    chart("tradeoff-bits", "tradeoff", against(buys.axes[0]));
    chart("tradeoff-tokens", "tradeoff", against(buys.axes[1]));
    element("tradeoff-figure").addEventListener("change", () => redraw("tradeoff"));
  }

  // What each level buys.
  if (report.data.levels) {
    chart("levels-snr", "levels", (off) => ({
      xAxis: axis("value", "levels decoded", { ...below, minInterval: 1 }),
      yAxis: axis("value", ""),
      grid: { left: 6, right: 18, top: 12, bottom: 26, containLabel: true },
      series: report.data.levels.filter((line) => !off(line.name)).flatMap((line) => [
        { name: short(line.name), type: "line", data: line.points.map(([level, mean]) => [level, mean]), color: paint(line.colour), symbol: SYMBOLS[line.colour % SYMBOLS.length], symbolSize: 8, lineStyle: { width: 1.7 } },
        ...line.points.filter(([, , half]) => half).map(([level, mean, half]) => bar(line.name, paint(line.colour), level, mean, half)),
      ]),
      tooltip: tooltip("item", (at) => `${dot(at.color)}<b>${report.escape(at.seriesName)}</b><br>${report.number(at.value[1])} dB with ${at.value[0]} levels`),
    }));
  }

  // Curves of logs.
  function curve(id, section, first) {
    const choice = element(`${id}-column`);
    const log = element(`${id}-log`);
    if (!choice) return;
    if (first) choice.value = first;
    const draw = chart(id, section, (off) => {
      const runs = report.data[section].runs.filter((run) => run.columns[choice.value] && !off(run.series));
      const logarithmic = log?.checked;
      const series = runs.map((run) => {
        const [steps, values] = run.columns[choice.value];
        const data = steps.map((step, i) => [step, values[i]]).filter(([, value]) => !logarithmic || value > 0);
        return { name: short(run.name, run.series), type: "line", data, color: paint(run.colour), showSymbol: data.length < 3, symbolSize: 5, lineStyle: { width: 1.7, opacity: 0.9 }, emphasis: { disabled: true } };
      });
      return {
        xAxis: axis("value", "updates", { ...below, min: "dataMin", max: "dataMax", axisLabel: { color: report.colour("muted"), fontSize: 11.5, hideOverlap: true, formatter: report.number } }),
        yAxis: axis(logarithmic ? "log" : "value", "", {}),
        grid: { left: 6, right: 18, top: 12, bottom: 26, containLabel: true },
        series,
        tooltip: tooltip("axis", (at) => listed(at)),
      };
    }, true);
    choice.addEventListener("change", draw);
    log?.addEventListener("change", draw);
    element(`${id}-reset`)?.addEventListener("click", draw);
  }
  function listed(at) {
    const shown = at.slice(0, 14).map((one) => `${dot(one.color)}${report.escape(one.seriesName)} <b>${report.number(one.value[1])}</b>`);
    const left = at.length > shown.length ? [`and ${at.length - shown.length} more`] : [];
    return [`<span style="opacity:.7">update ${Number(at[0].value[0]).toLocaleString("en")}</span>`, ...shown, ...left].join("<br>");
  }
  if (report.data.curves) {
    const [left, right] = report.data.curves.first;
    curve("curves-left", "curves", left);
    curve("curves-right", "curves", right ?? left);
  }

  // Use of codes.
  const used = report.data.usage;
  if (used) {
    const level = element("usage-level");
    chart("usage-shares", "usage", (off) => {
      const drawn = used.shares.filter((one) => !off(one.name) && one.levels[Number(level?.value ?? 0)]);
      const series = drawn.map((one) => ({
        name: short(one.name), type: "line", step: "start", symbol: "none", color: paint(one.colour), lineStyle: { width: 1.7 },
        data: one.levels[Number(level?.value ?? 0)], emphasis: { disabled: true },
      }));
      if (series.length) {
        series[0].markLine = {
          silent: true, symbol: "none", lineStyle: { type: [5, 4], color: report.colour("muted"), width: 1 },
          label: { formatter: "even share", position: "insideEndTop", color: report.colour("muted"), fontSize: 11 }, data: [{ yAxis: 1 }],
        };
      }
      return {
        xAxis: axis("value", "percent of the codebook", { ...below, scale: false }),
        yAxis: axis("log", "", {}),
        grid: { left: 6, right: 18, top: 12, bottom: 26, containLabel: true },
        series,
        tooltip: tooltip("axis", (at) => [`<span style="opacity:.7">${report.number(at[0].value[0])} % of the codes</span>`, ...at.map((one) => `${dot(one.color)}${report.escape(one.seriesName)} <b>${report.number(one.value[1])}</b> × an even share`)].join("<br>")),
      };
    });
    level?.addEventListener("change", () => redraw("usage"));
    curve("usage-history", "usage", used.first[0]);
  }

  function redraw(section) {
    charts.forEach((one) => (section === undefined || one.section === section) && one.draw());
  }
  report.onTheme(() => redraw());
  for (const group of document.querySelectorAll("[data-legend]")) {
    const section = group.dataset.legend;
    const off = (hidden[section] = new Set());
    const keys = [...group.querySelectorAll("button")];
    for (const key of keys) {
      key.addEventListener("click", () => {
        const name = key.dataset.series;
        if (!off.delete(name)) off.add(name);
        key.setAttribute("aria-pressed", String(!off.has(name)));
        redraw(section);
      });
    }
    const within = () => keys.forEach((key) => { key.hidden = scopeOf(section) !== undefined && report.data.groups[key.dataset.series] !== scopeOf(section); });
    element(`${section}-scope`)?.addEventListener("change", () => { within(); redraw(section); });
    within();
  }
})();

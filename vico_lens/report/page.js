"use strict";
(() => {
  const root = document.documentElement;
  const prefersDark = matchMedia("(prefers-color-scheme: dark)");
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  const data = (id) => JSON.parse(document.getElementById(id).textContent);
  const theme = () => root.dataset.theme || (prefersDark.matches ? "dark" : "light");

  // Videos: one clock for all, so that plain and balanced show the same frame.
  const videos = [...document.querySelectorAll("video[data-frames]")];
  const scrub = document.querySelector(".scrub");
  if (videos.length && scrub) {
    const [button, slider, output] = ["button", "input", "output"].map((name) => scrub.querySelector(name));
    const first = videos[0], count = Number(first.dataset.frames), fps = Number(first.dataset.fps);
    const seek = (video, frame) => { video.currentTime = (frame + 0.5) / fps; };
    const show = (frame) => { slider.value = frame; output.textContent = `frame ${frame}`; };
    const playing = () => !first.paused;
    const label = () => { button.textContent = playing() ? "❚❚" : "▶"; button.setAttribute("aria-label", playing() ? "pause" : "play"); };
    const play = () => videos.forEach((video) => video.play().catch(() => {}));
    const pause = () => videos.forEach((video) => video.pause());
    button.addEventListener("click", () => (playing() ? pause() : play()));
    slider.addEventListener("input", () => { pause(); videos.forEach((video) => seek(video, Number(slider.value))); show(Number(slider.value)); });
    const follow = () => {
      if (!playing()) return;
      show(Math.min(count - 1, Math.floor(first.currentTime * fps + 1e-3)));
      for (const other of videos.slice(1)) if (Math.abs(other.currentTime - first.currentTime) > 0.6 / fps) other.currentTime = first.currentTime;
      // Once a frame of the video where the browser can tell, so that a page left open costs nothing.
      if (first.requestVideoFrameCallback) first.requestVideoFrameCallback(follow); else requestAnimationFrame(follow);
    };
    first.addEventListener("play", () => { label(); follow(); });
    first.addEventListener("pause", label);
    if (still) pause(); else play();
    scrub.hidden = false;
    show(0); label(); follow();
  }

  // Figures: drawn one after the other so that the text can be read at once; redrawn with the page's colours and width.
  const boxes = [...document.querySelectorAll("[data-figure]")];
  if (!boxes.length || !window.Plotly) return;
  const templates = data("templates");
  let paper = Infinity; // width of a sheet, in pixels, while printing
  const size = (figure, width) => {
    const grid = figure.meta.grid;
    if (!grid) return [width, figure.height];
    const panel = Math.min(300, Math.max(110, 640 / grid[0]), (width - 52) / grid[1]);
    const tall = grid[0] * (panel + 24) + (figure.meta.top || 0) + (figure.meta.bottom || 0) + 6;
    return [Math.min(width, Math.max(340, Math.round(grid[1] * panel * 1.04 + 60))), Math.round(tall)];
  };
  const draw = async (box) => {
    const figure = box.figure || (box.figure = data(box.dataset.figure));
    const [wide, tall] = size(figure, Math.min(box.clientWidth, paper));
    box.style.height = `${tall}px`;
    const layout = { ...figure.layout, template: templates[theme()], height: tall, width: wide };
    if (box.clientWidth < 480) {
      Object.assign(layout, { margin: { ...layout.margin, l: Math.min(layout.margin.l, 30), r: 8 }, dragmode: false });
      if (figure.meta.grid) layout.annotations = (layout.annotations || []).map((note) => ({ ...note, font: { ...note.font, size: 10 } }));
      if (layout.sliders) layout.sliders = layout.sliders.map((slider) => ({ ...slider, x: 0.36, len: 0.64 }));
    }
    // Plotly fades the links of a redrawn Sankey in; paper would be printed before they are there. A new plot has them at once.
    const plot = figure.data.some((trace) => trace.type === "sankey") ? Plotly.newPlot : Plotly.react;
    await plot(box, figure.data.map((trace) => ({ ...trace })), layout, { displayModeBar: false, scrollZoom: false, doubleClick: "reset" });
    if (figure.frames.length && !box.moving) { box.moving = true; await Plotly.addFrames(box, figure.frames); }
    box.dataset.drawn = theme();
  };
  const redraw = () => boxes.filter((box) => box.dataset.drawn).forEach(draw);
  const next = (left) => left.length && draw(left[0]).finally(() => setTimeout(() => next(left.slice(1)), 0));
  next(boxes);
  let last = innerWidth, waiting;
  addEventListener("resize", () => { if (innerWidth !== last) { last = innerWidth; clearTimeout(waiting); waiting = setTimeout(redraw, 150); } });
  prefersDark.addEventListener("change", redraw);
  const toggle = document.querySelector(".masthead button");
  const name = () => { toggle.textContent = theme() === "dark" ? "light page" : "dark page"; };
  toggle.hidden = false;
  toggle.addEventListener("click", () => { root.dataset.theme = theme() === "dark" ? "light" : "dark"; name(); redraw(); });
  prefersDark.addEventListener("change", name);
  name();

  // Paper is white and as wide as the sheet, whatever the screen was.
  let before;
  addEventListener("beforeprint", () => { paper = 660; before = root.dataset.theme; root.dataset.theme = "light"; document.querySelectorAll("details").forEach((d) => { d.open = true; }); redraw(); });
  addEventListener("afterprint", () => { paper = Infinity; if (before) root.dataset.theme = before; else delete root.dataset.theme; redraw(); });
})();

"use strict";

const MATCH_COLOURS = ["#e6194b", "#3cb44b", "#ffe119", "#4363d8", "#f58231", "#911eb4", "#42d4f4", "#f032e6", "#bfef45",
  "#fabed4"];

/** The requested path with the estimated ones beside it, all in the axes and the unit of the requested one. */
class Paths extends World {
  constructor(canvas, scene, marks, paths) {
    super(canvas, scene, marks);
    this.paths = paths;
    const axes = [0, 1, 2], places = [...scene.centres, ...paths.flatMap((path) => path.centres)];
    const low = axes.map((k) => Math.min(...places.map((place) => place[k])));
    const high = axes.map((k) => Math.max(...places.map((place) => place[k])));
    this.middle = axes.map((k) => (low[k] + high[k]) / 2);
    this.extent = Math.hypot(...axes.map((k) => high[k] - low[k])) || 1;
  }

  draw() {
    super.draw();
    const pen = this.canvas.getContext("2d");
    for (const { centres, colour } of this.paths) this.path(pen, centres, colour, 1.4);
  }
}

/** A point in one frame, its partner and its epipolar line in another. */
function drawMatches(canvas, matches, second) {
  const pen = canvas.getContext("2d"), ratio = window.devicePixelRatio || 1;
  const width = canvas.clientWidth, height = canvas.clientHeight;
  canvas.width = width * ratio;
  canvas.height = height * ratio;
  pen.scale(ratio, ratio);
  (second ? matches.partners : matches.points).forEach(([u, v], k) => {
    const colour = MATCH_COLOURS[k % MATCH_COLOURS.length];
    pen.fillStyle = colour;
    pen.strokeStyle = colour;
    const [a, b, c] = second ? matches.lines[k] : [0, 0, 0], x = a / width, y = b / height;
    if (x !== 0 || y !== 0) {
      const flat = Math.abs(y) > Math.abs(x);
      pen.lineWidth = 1.6;
      pen.beginPath();
      pen.moveTo(...(flat ? [0, -c / y] : [-c / x, 0]));
      pen.lineTo(...(flat ? [width, -(c + x * width) / y] : [-(c + y * height) / x, height]));
      pen.stroke();
    }
    pen.beginPath();
    pen.arc(u * width, v * height, 4, 0, 7);
    pen.fill();
    pen.lineWidth = 1;
    pen.strokeStyle = "#000";
    pen.stroke();
  });
}

class ClipPage {
  constructor(root) {
    this.data = JSON.parse(document.querySelector("script.clip-data").textContent);
    this.root = root;
    this.frame = 0;
    this.slider = root.querySelector(".controls input");
    this.label = root.querySelector(".controls output");
    this.slider.max = this.data.frames - 1;
    const addresses = {};
    for (const [name, video] of Object.entries(this.data.videos)) {
      const bytes = Uint8Array.from(atob(video), (letter) => letter.charCodeAt(0));
      addresses[name] = URL.createObjectURL(new Blob([bytes], { type: "video/mp4" }));
    }
    for (const video of root.querySelectorAll("video")) video.src = addresses[video.dataset.set];
    this.videos = [...root.querySelectorAll(".videos video")];
    this.world = new Paths(root.querySelector(".world"), this.data.scene, () => [[this.frame, "#c2500a"]], this.data.paths);
    this.slider.addEventListener("input", () => this.show(Number(this.slider.value)));
    root.querySelector(".play").addEventListener("click", () => this.play());
    for (const figure of root.querySelectorAll(".matches figure")) {
      const { set, side } = figure.dataset, matches = this.data.matches[set], canvas = figure.querySelector("canvas");
      figure.querySelector("video").currentTime = (matches.frames[side] + 0.5) / this.data.fps[set];
      new ResizeObserver(() => drawMatches(canvas, matches, side === "1")).observe(canvas);
    }
    new ResizeObserver(() => this.world.draw()).observe(root.querySelector(".world"));
    this.show(0);
  }

  show(frame) {
    this.frame = frame;
    this.slider.value = frame;
    this.label.textContent = `frame ${frame} of 0 to ${this.data.frames - 1}`;
    for (const video of this.videos) video.currentTime = (frame + 0.5) / this.data.fps[video.dataset.set];
    for (const line of this.root.querySelectorAll(".curves .now")) {
      const { from, to } = line.dataset, x = Number(from) + (Number(to) - Number(from)) * frame / (this.data.frames - 1);
      line.setAttribute("x1", x);
      line.setAttribute("x2", x);
    }
    this.world.draw();
  }

  play() {
    if (this.timer) return this.stop();
    if (this.frame === this.data.frames - 1) this.show(0);
    this.timer = setInterval(() => {
      if (this.frame < this.data.frames - 1) this.show(this.frame + 1);
      else this.stop();
    }, 1000 / (Object.values(this.data.fps)[0] || 8));
    return undefined;
  }

  stop() {
    clearInterval(this.timer);
    this.timer = null;
  }
}

window.cami2vClip = new ClipPage(document.querySelector("main"));

"use strict";

const COLOURS = ["#e6194b", "#3cb44b", "#ffe119", "#4363d8", "#f58231", "#911eb4", "#42d4f4", "#f032e6", "#bfef45",
  "#fabed4", "#469990", "#dcbeff"];
const MARKS = ["#0b6bcb", "#c2500a"];

const cross = (a, b) => [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];

/** Images in frame j of the start and the direction of the ray of point (u, v) of frame i: start + t * far, t > 0. */
function imageOfRay(scene, i, j, u, v) {
  const far = times(scene.project[j].map((row) => row.slice(0, 3)), times(scene.unproject[i], [u, v, 1]));
  return { start: times(scene.project[j], [...scene.centres[i], 1]), far };
}

/** Line [a, b, c] with a u + b v + c = 0 in frame j; null where the frames share a camera centre. */
function epipolarLine(scene, i, j, u, v) {
  const { start, far } = imageOfRay(scene, i, j, u, v);
  return Math.hypot(...start) < scene.negligible ? null : cross(start, far);
}

/** Ends of the part of the line that frame j sees before it: the point lies there, if it is in the picture at all. */
function seenPart({ start, far }) {
  const at = (t) => [0, 1, 2].map((k) => start[k] + t * far[k]);
  const depth = Math.abs(start[2]) + Math.abs(far[2]);
  let from = 0, to = 1e6 * (1 + Math.hypot(...start) / Math.hypot(...far));
  const turn = -start[2] / far[2], gap = 1e-6 * depth / Math.max(Math.abs(far[2]), 1e-12);
  if (far[2] > 0) from = Math.max(0, turn + gap);
  else if (start[2] <= 0) return null;
  else if (far[2] < 0) to = turn - gap;
  return [at(from), at(to)].map(([x, y, z]) => [x / z, y / z]);
}

class Panel {
  constructor(figure, clip, side) {
    Object.assign(this, { clip, side, frame: 0 });
    this.video = figure.querySelector("video");
    this.canvas = figure.querySelector("canvas");
    this.slider = figure.querySelector("input");
    this.label = figure.querySelector("figcaption");
    this.slider.max = clip.data.frames.length - 1;
    this.slider.addEventListener("input", () => clip.show(side, Number(this.slider.value)));
    this.canvas.addEventListener("click", (event) => {
      const box = this.canvas.getBoundingClientRect();
      clip.pick(side, (event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height);
    });
  }

  seek(frame) {
    this.frame = frame;
    this.slider.value = frame;
    seek(this.video, frame, this.clip.data.fps);
    this.label.textContent = `frame ${this.clip.data.frames[frame]}`;
  }

  draw() {
    const pen = penOn(this.canvas), width = this.canvas.clientWidth, height = this.canvas.clientHeight;
    for (const point of this.clip.points) {
      if (point.side === this.side) dot(pen, point.u * width, point.v * height, point.colour);
      else this.drawLine(pen, point, width, height);
    }
  }

  drawLine(pen, point, width, height) {
    const { scene } = this.clip.data, from = this.clip.panels[point.side].frame;
    const ray = imageOfRay(scene, from, this.frame, point.u, point.v);
    const line = epipolarLine(scene, from, this.frame, point.u, point.v);
    pen.strokeStyle = point.colour;
    if (line === null) {
      if (ray.far[2] > 0) ring(pen, ray.far[0] / ray.far[2] * width, ray.far[1] / ray.far[2] * height, point.colour);
    } else {
      const ends = acrossCanvas(this.canvas, line);
      if (ends) stroke(pen, 0.8, [4, 4], ...ends);
      const seen = seenPart(ray);
      if (seen) stroke(pen, 2, [], ...seen.map(([u, v]) => [u * width, v * height]));
    }
    if (point.partner) dot(pen, point.partner[0] * width, point.partner[1] * height, point.colour);
  }
}

function ring(pen, x, y, colour) {
  pen.strokeStyle = colour;
  pen.lineWidth = 2;
  pen.setLineDash([]);
  pen.beginPath();
  pen.arc(x, y, 8, 0, 7);
  pen.stroke();
}

class Clip {
  constructor(section) {
    this.data = JSON.parse(section.querySelector("script.clip-data").textContent);
    this.section = section;
    this.points = [];
    this.panels = [...section.querySelectorAll(".panel")].map((figure, side) => new Panel(figure, this, side));
    const marks = () => this.panels.map((panel, side) => [panel.frame, MARKS[side]]);
    this.world = this.data.scene ? new World(section.querySelector(".world"), this.data.scene, marks) : null;
    const address = videoAddress(this.data.video);
    this.data.video = null;
    for (const panel of this.panels) panel.video.src = address;
    this.on(".play", () => this.play());
    this.on(".clear", () => this.choose([]));
    this.on(".matches", () => this.showMatches());
    new ResizeObserver(() => this.draw()).observe(section.querySelector(".stage"));
    if (this.data.matches) this.showMatches();
    else [0, Math.floor(this.data.frames.length / 3)].forEach((frame, side) => this.show(side, frame));
  }

  on(name, action) {
    const button = this.section.querySelector(name);
    if (button) button.addEventListener("click", action);
  }

  show(side, frame) {
    // Points belong to the frame they were chosen in, and partners to the pair.
    this.points = this.points.filter((point) => point.side !== side).map((point) => ({ ...point, partner: null }));
    this.panels[side].seek(frame);
    this.draw();
  }

  pick(side, u, v) {
    if (!this.data.scene) return;
    const colour = COLOURS[this.points.length % COLOURS.length];
    this.choose([...this.points.slice(1 - COLOURS.length), { side, u, v, colour, partner: null }]);
  }

  showMatches() {
    const { frames, points, partners } = this.data.matches;
    frames.forEach((frame, side) => this.panels[side].seek(frame));
    this.choose(points.map(([u, v], k) => ({ side: 0, u, v, colour: COLOURS[k], partner: partners[k] })));
  }

  choose(points) {
    this.points = points;
    this.draw();
  }

  play() {
    const [panel] = this.panels, { video } = panel;
    if (!video.paused) return video.pause();
    if (panel.frame === this.data.frames.length - 1) video.currentTime = 0;
    this.choose(this.points.filter((point) => point.side !== 0));
    const follow = () => {
      const frame = Math.min(Math.floor(video.currentTime * this.data.fps), this.data.frames.length - 1);
      if (video.paused || video.ended) return this.show(0, frame);
      panel.frame = frame;
      panel.slider.value = frame;
      panel.label.textContent = `frame ${this.data.frames[frame]}`;
      this.draw();
      window.requestAnimationFrame(follow);
    };
    return video.play().then(follow);
  }

  draw() {
    for (const panel of this.panels) panel.draw();
    if (this.world) this.world.draw();
  }
}

/** Clips by id, made when they come into sight. */
const clips = {};
const observer = new IntersectionObserver((entries) => {
  for (const { isIntersecting, target } of entries) {
    if (!isIntersecting) continue;
    observer.unobserve(target);
    clips[target.dataset.clip] = new Clip(target);
  }
}, { rootMargin: "400px" });
for (const section of document.querySelectorAll("section.playable")) observer.observe(section);
window.cami2vView = { clips, epipolarLine, seenPart, imageOfRay };

"use strict";

const COLOURS = ["#e6194b", "#3cb44b", "#ffe119", "#4363d8", "#f58231", "#911eb4", "#42d4f4", "#f032e6", "#bfef45",
  "#fabed4", "#469990", "#dcbeff"];
const MARKS = ["#0b6bcb", "#c2500a"];

const times = (matrix, vector) => matrix.map((row) => row.reduce((sum, value, k) => sum + value * vector[k], 0));
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
    this.video.currentTime = (frame + 0.5) / this.clip.data.fps;
    this.label.textContent = `frame ${this.clip.data.frames[frame]}`;
  }

  draw() {
    const { canvas } = this, pen = canvas.getContext("2d"), ratio = window.devicePixelRatio || 1;
    const width = canvas.clientWidth, height = canvas.clientHeight;
    canvas.width = width * ratio;
    canvas.height = height * ratio;
    pen.scale(ratio, ratio);
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
      const [a, b, c] = [line[0] / width, line[1] / height, line[2]];
      const flat = Math.abs(b) > Math.abs(a);
      stroke(pen, 0.8, [4, 4], ...(flat ? [[0, -c / b], [width, -(c + a * width) / b]]
        : [[-c / a, 0], [-(c + b * height) / a, height]]));
      const seen = seenPart(ray);
      if (seen) stroke(pen, 2, [], ...seen.map(([u, v]) => [u * width, v * height]));
    }
    if (point.partner) dot(pen, point.partner[0] * width, point.partner[1] * height, point.colour);
  }
}

function stroke(pen, thickness, dashes, [x0, y0], [x1, y1]) {
  pen.lineWidth = thickness;
  pen.setLineDash(dashes);
  pen.beginPath();
  pen.moveTo(x0, y0);
  pen.lineTo(x1, y1);
  pen.stroke();
}

function dot(pen, x, y, colour) {
  pen.fillStyle = colour;
  pen.strokeStyle = "#000";
  pen.setLineDash([]);
  pen.lineWidth = 1;
  pen.beginPath();
  pen.arc(x, y, 4, 0, 7);
  pen.fill();
  pen.stroke();
}

function ring(pen, x, y, colour) {
  pen.strokeStyle = colour;
  pen.lineWidth = 2;
  pen.setLineDash([]);
  pen.beginPath();
  pen.arc(x, y, 8, 0, 7);
  pen.stroke();
}

/** The camera path, turned with mouse, finger or arrow keys; wheel or two fingers bring it closer. */
class World {
  constructor(canvas, clip) {
    Object.assign(this, { canvas, clip, yaw: -0.5, pitch: 0.55, zoom: 1, pointers: new Map() });
    const { centres } = clip.data.scene, axes = [0, 1, 2];
    const low = axes.map((k) => Math.min(...centres.map((c) => c[k])));
    const high = axes.map((k) => Math.max(...centres.map((c) => c[k])));
    this.middle = axes.map((k) => (low[k] + high[k]) / 2);
    this.extent = Math.hypot(...axes.map((k) => high[k] - low[k])) || 1;
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      this.pointers.set(event.pointerId, [event.clientX, event.clientY]);
    });
    canvas.addEventListener("pointermove", (event) => this.move(event));
    for (const end of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(end, (event) => this.pointers.delete(event.pointerId));
    }
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.turn(0, 0, Math.exp(-event.deltaY / 500));
    }, { passive: false });
    canvas.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: [-0.1, 0], ArrowRight: [0.1, 0], ArrowUp: [0, 0.1], ArrowDown: [0, -0.1] }[event.key];
      if (!step) return;
      event.preventDefault();
      this.turn(...step, 1);
    });
  }

  move(event) {
    const before = this.pointers.get(event.pointerId);
    if (!before) return;
    const spread = () => {
      const [a, b] = [...this.pointers.values()];
      return b ? Math.hypot(a[0] - b[0], a[1] - b[1]) : 0;
    };
    const apart = spread();
    this.pointers.set(event.pointerId, [event.clientX, event.clientY]);
    if (apart) this.turn(0, 0, spread() / apart);
    else this.turn((event.clientX - before[0]) / 120, (event.clientY - before[1]) / 120, 1);
  }

  turn(yaw, pitch, zoom) {
    this.yaw += yaw;
    this.pitch = Math.max(-1.57, Math.min(1.57, this.pitch + pitch));
    this.zoom = Math.max(0.1, Math.min(50, this.zoom * zoom));
    this.draw();
  }

  /** Pixel of a point; OpenCV axes point right, down and ahead, as on the canvas. */
  at(point) {
    const [x, y, z] = point.map((value, k) => value - this.middle[k]);
    const right = x * Math.cos(this.yaw) + z * Math.sin(this.yaw);
    const ahead = -x * Math.sin(this.yaw) + z * Math.cos(this.yaw);
    const down = y * Math.cos(this.pitch) - ahead * Math.sin(this.pitch);
    const scale = 0.6 * Math.min(this.canvas.clientWidth, this.canvas.clientHeight) / this.extent * this.zoom;
    return [this.canvas.clientWidth / 2 + scale * right, this.canvas.clientHeight / 2 + scale * down];
  }

  path(pen, points, colour, thickness) {
    pen.strokeStyle = colour;
    pen.lineWidth = thickness;
    pen.beginPath();
    points.map((point) => this.at(point)).forEach(([x, y], k) => (k ? pen.lineTo(x, y) : pen.moveTo(x, y)));
    pen.stroke();
  }

  frustum(pen, frame, colour, thickness) {
    const { centres, unproject } = this.clip.data.scene, centre = centres[frame], size = 0.14 * this.extent;
    const corner = (u, v) => times(unproject[frame], [u, v, 1]).map((value, k) => centre[k] + size * value);
    const corners = [corner(0, 0), corner(1, 0), corner(1, 1), corner(0, 1)];
    this.path(pen, [...corners, corners[0]], colour, thickness);
    for (const each of corners) this.path(pen, [centre, each], colour, thickness);
  }

  draw() {
    const { canvas } = this, pen = canvas.getContext("2d"), ratio = window.devicePixelRatio || 1;
    canvas.width = canvas.clientWidth * ratio;
    canvas.height = canvas.clientHeight * ratio;
    pen.scale(ratio, ratio);
    const { centres } = this.clip.data.scene, every = Math.ceil(centres.length / 16);
    for (let frame = 0; frame < centres.length; frame += every) this.frustum(pen, frame, "#a0a8b0", 0.7);
    this.path(pen, centres, "#1b1f24", 1.6);
    ["#b3261e", "#1a7f37", "#0b6bcb"].forEach((colour, k) => {
      const tip = centres[0].map((value, axis) => value + (axis === k ? 0.2 * this.extent : 0));
      this.path(pen, [centres[0], tip], colour, 2);
      pen.fillStyle = colour;
      pen.fillText("xyz"[k], ...this.at(tip));
    });
    this.clip.panels.forEach((panel, side) => this.frustum(pen, panel.frame, MARKS[side], 2));
  }
}

class Clip {
  constructor(section) {
    this.data = JSON.parse(section.querySelector("script.clip-data").textContent);
    this.section = section;
    this.points = [];
    this.panels = [...section.querySelectorAll(".panel")].map((figure, side) => new Panel(figure, this, side));
    this.world = this.data.scene ? new World(section.querySelector(".world"), this) : null;
    const video = Uint8Array.from(atob(this.data.video), (letter) => letter.charCodeAt(0));
    const address = URL.createObjectURL(new Blob([video], { type: "video/mp4" }));
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

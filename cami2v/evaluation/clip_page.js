"use strict";

const MATCH_COLOURS = ["#e6194b", "#3cb44b", "#ffe119", "#4363d8", "#f58231", "#911eb4", "#42d4f4", "#f032e6", "#bfef45",
  "#fabed4"];

/** The requested path with the estimated ones beside it, all in the axes and the unit of the requested one. */
class Paths extends World {
  constructor(canvas, scene, marks, paths) {
    super(canvas, scene, marks);
    this.paths = paths;
    this.fit([...scene.centres, ...paths.flatMap((path) => path.centres)]);
  }

  draw() {
    super.draw();
    const pen = this.canvas.getContext("2d");
    for (const { centres, colour } of this.paths) this.path(pen, centres, colour, 1.4);
  }
}

/** A point in one frame, its partner and its epipolar line in another. */
function drawMatches(canvas, matches, second) {
  const pen = penOn(canvas);
  (second ? matches.partners : matches.points).forEach(([u, v], k) => {
    const colour = MATCH_COLOURS[k % MATCH_COLOURS.length];
    const line = second && acrossCanvas(canvas, matches.lines[k]);
    pen.strokeStyle = colour;
    if (line) stroke(pen, 1.6, [], ...line);
    dot(pen, u * canvas.clientWidth, v * canvas.clientHeight, colour);
  });
}

class ClipPage extends FramePlayer {
  constructor(root) {
    const data = JSON.parse(document.querySelector("script.clip-data").textContent);
    super(root.querySelector(".controls"), data.frames, Object.values(data.fps)[0] || 8);
    Object.assign(this, { root, data });
    const addresses = Object.fromEntries(
      Object.entries(data.videos).map(([name, video]) => [name, videoAddress(video)]));
    for (const video of root.querySelectorAll("video")) video.src = addresses[video.dataset.set];
    this.videos = [...root.querySelectorAll(".videos video")];
    this.world = new Paths(root.querySelector(".world"), data.scene, () => [[this.frame, "#c2500a"]], data.paths);
    for (const figure of root.querySelectorAll(".matches figure")) {
      const { set, side } = figure.dataset, matches = data.matches[set], canvas = figure.querySelector("canvas");
      seek(figure.querySelector("video"), matches.frames[side], data.fps[set]);
      new ResizeObserver(() => drawMatches(canvas, matches, side === "1")).observe(canvas);
    }
    new ResizeObserver(() => this.world.draw()).observe(root.querySelector(".world"));
    this.show(0);
  }

  show(frame) {
    super.show(frame);
    for (const video of this.videos) seek(video, frame, this.data.fps[video.dataset.set]);
    for (const line of this.root.querySelectorAll(".curves .now")) {
      const { from, to } = line.dataset, x = Number(from) + (Number(to) - Number(from)) * frame / (this.frames - 1);
      line.setAttribute("x1", x);
      line.setAttribute("x2", x);
    }
    this.world.draw();
  }
}

window.cami2vClip = new ClipPage(document.querySelector("main"));

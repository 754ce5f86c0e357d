"use strict";

const times = (matrix, vector) => matrix.map((row) => row.reduce((sum, value, k) => sum + value * vector[k], 0));

/**
 * A camera path, turned with mouse, finger or arrow keys; wheel or two fingers bring it closer.
 *
 * `scene` is that of cami2v/geometry/scene.py, `marks()` lists [frame, colour] of cameras to stand out, and `cloud`, if
 * there is one, has `points` (x y z after each other), `colours` (r g b, 0 to 255) and `corners` of what to show.
 */
class World {
  constructor(canvas, scene, marks, cloud = null) {
    Object.assign(this, { canvas, scene, marks, cloud, yaw: -0.5, pitch: 0.55, zoom: 1, pointers: new Map() });
    this.fit(cloud ? [...scene.centres, ...cloud.corners] : scene.centres);
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

  /** Make these points fill the canvas. */
  fit(points) {
    const axes = [0, 1, 2];
    const low = axes.map((k) => Math.min(...points.map((point) => point[k])));
    const high = axes.map((k) => Math.max(...points.map((point) => point[k])));
    this.middle = axes.map((k) => (low[k] + high[k]) / 2);
    this.extent = Math.hypot(...axes.map((k) => high[k] - low[k])) || 1;
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
    const [x, y, z] = [0, 1, 2].map((k) => point[k] - this.middle[k]);
    const right = x * Math.cos(this.yaw) + z * Math.sin(this.yaw);
    const ahead = -x * Math.sin(this.yaw) + z * Math.cos(this.yaw);
    const down = y * Math.cos(this.pitch) - ahead * Math.sin(this.pitch);
    const scale = 0.6 * Math.min(this.canvas.clientWidth, this.canvas.clientHeight) / this.extent * this.zoom;
    return [this.canvas.clientWidth / 2 + scale * right, this.canvas.clientHeight / 2 + scale * down];
  }

  points(pen) {
    const { points, colours } = this.cloud;
    for (let k = 0; k < points.length; k += 3) {
      const [x, y] = this.at(points.subarray(k, k + 3));
      pen.fillStyle = `rgb(${colours[k]},${colours[k + 1]},${colours[k + 2]})`;
      pen.fillRect(x - 1, y - 1, 2, 2);
    }
  }

  path(pen, points, colour, thickness) {
    pen.strokeStyle = colour;
    pen.lineWidth = thickness;
    pen.beginPath();
    points.map((point) => this.at(point)).forEach(([x, y], k) => (k ? pen.lineTo(x, y) : pen.moveTo(x, y)));
    pen.stroke();
  }

  frustum(pen, frame, colour, thickness) {
    const { centres, unproject } = this.scene, centre = centres[frame], size = 0.14 * this.extent;
    const corner = (u, v) => times(unproject[frame], [u, v, 1]).map((value, k) => centre[k] + size * value);
    const corners = [corner(0, 0), corner(1, 0), corner(1, 1), corner(0, 1)];
    this.path(pen, [...corners, corners[0]], colour, thickness);
    for (const each of corners) this.path(pen, [centre, each], colour, thickness);
  }

  draw() {
    const pen = penOn(this.canvas);
    if (this.cloud) this.points(pen);
    const { centres } = this.scene, every = Math.ceil(centres.length / 16);
    for (let frame = 0; frame < centres.length; frame += every) this.frustum(pen, frame, "#a0a8b0", 0.7);
    this.path(pen, centres, "#1b1f24", 1.6);
    ["#b3261e", "#1a7f37", "#0b6bcb"].forEach((colour, k) => {
      const tip = centres[0].map((value, axis) => value + (axis === k ? 0.2 * this.extent : 0));
      this.path(pen, [centres[0], tip], colour, 2);
      pen.fillStyle = colour;
      pen.fillText("xyz"[k], ...this.at(tip));
    });
    for (const [frame, colour] of this.marks()) this.frustum(pen, frame, colour, 2);
  }
}

"use strict";

const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));

/** A path in space, the image's points where depth is known, and what the camera of the chosen frame sees. */
class TrajectoryPage {
  constructor(root) {
    this.data = JSON.parse(document.querySelector("script.trajectory-data").textContent);
    this.frame = 0;
    this.slider = root.querySelector("input");
    this.label = root.querySelector("output");
    this.video = root.querySelector("video");
    const { cloud } = this.data;
    const drawn = cloud && {
      points: new Float32Array(bytes(cloud.points).buffer), colours: bytes(cloud.colours), corners: cloud.corners,
    };
    this.world = new World(root.querySelector(".world"), this.data.scene, () => [[this.frame, "#c2500a"]], drawn);
    this.world.zoom = drawn ? 1.5 : 1;  // what leaves the canvas at its corners is seen beside it
    if (this.video) {
      this.video.src = URL.createObjectURL(new Blob([bytes(this.data.video)], { type: "video/mp4" }));
    }
    this.slider.max = this.data.frames - 1;
    this.slider.addEventListener("input", () => this.show(Number(this.slider.value)));
    root.querySelector(".play").addEventListener("click", () => this.play());
    new ResizeObserver(() => this.world.draw()).observe(root.querySelector(".world"));
    this.show(0);
  }

  show(frame) {
    this.frame = frame;
    this.slider.value = frame;
    this.label.textContent = `frame ${frame} of 0 to ${this.data.frames - 1}`;
    if (this.video) this.video.currentTime = (frame + 0.5) / this.data.fps;
    this.world.draw();
  }

  play() {
    if (this.timer) return this.stop();
    if (this.frame === this.data.frames - 1) this.show(0);
    this.timer = setInterval(() => {
      if (this.frame < this.data.frames - 1) this.show(this.frame + 1);
      else this.stop();
    }, 1000 / this.data.fps);
    return undefined;
  }

  stop() {
    clearInterval(this.timer);
    this.timer = null;
  }
}

window.cami2vTrajectory = new TrajectoryPage(document.querySelector("main"));

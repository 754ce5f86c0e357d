"use strict";

const bytesOf = (base64) => Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));

const videoAddress = (base64) => URL.createObjectURL(new Blob([bytesOf(base64)], { type: "video/mp4" }));

/** Show a frame of a video: its middle, so that no rounding of times shows a neighbour. */
const seek = (video, frame, fps) => { video.currentTime = (frame + 0.5) / fps; };

/** A slider over frames with its label and a button that plays them; subclasses override `show`. */
class FramePlayer {
  constructor(controls, frames, fps) {
    Object.assign(this, { frame: 0, frames, fps, timer: null });
    this.slider = controls.querySelector("input");
    this.label = controls.querySelector("output");
    this.slider.max = frames - 1;
    this.slider.addEventListener("input", () => this.show(Number(this.slider.value)));
    controls.querySelector(".play").addEventListener("click", () => (this.timer ? this.stop() : this.play()));
  }

  show(frame) {
    this.frame = frame;
    this.slider.value = frame;
    this.label.textContent = `frame ${frame} of 0 to ${this.frames - 1}`;
  }

  play() {
    if (this.frame === this.frames - 1) this.show(0);
    this.timer = setInterval(() => {
      if (this.frame < this.frames - 1) this.show(this.frame + 1);
      else this.stop();
    }, 1000 / this.fps);
  }

  stop() {
    clearInterval(this.timer);
    this.timer = null;
  }
}

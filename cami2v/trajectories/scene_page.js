"use strict";

/** A path in space, the image's points where depth is known, and what the camera of the chosen frame sees. */
class TrajectoryPage extends FramePlayer {
  constructor(root) {
    const data = JSON.parse(document.querySelector("script.trajectory-data").textContent);
    super(root, data.frames, data.fps);
    this.video = root.querySelector("video");
    if (this.video) this.video.src = videoAddress(data.video);
    const { cloud } = data;
    const drawn = cloud && {
      points: new Float32Array(bytesOf(cloud.points).buffer), colours: bytesOf(cloud.colours), corners: cloud.corners,
    };
    this.world = new World(root.querySelector(".world"), data.scene, () => [[this.frame, "#c2500a"]], drawn);
    this.world.zoom = drawn ? 1.5 : 1;  // what leaves the canvas at its corners is seen beside it
    new ResizeObserver(() => this.world.draw()).observe(root.querySelector(".world"));
    this.show(0);
  }

  show(frame) {
    super.show(frame);
    if (this.video) seek(this.video, frame, this.fps);
    this.world.draw();
  }
}

window.cami2vTrajectory = new TrajectoryPage(document.querySelector("main"));

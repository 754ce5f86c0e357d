"use strict";

/** A pen on an empty canvas that is as fine as the screen; it draws in CSS pixels. */
function penOn(canvas) {
  const pen = canvas.getContext("2d"), ratio = window.devicePixelRatio || 1;
  canvas.width = canvas.clientWidth * ratio;
  canvas.height = canvas.clientHeight * ratio;
  pen.scale(ratio, ratio);
  return pen;
}

function stroke(pen, thickness, dashes, [x0, y0], [x1, y1]) {
  pen.lineWidth = thickness;
  pen.setLineDash(dashes);
  pen.beginPath();
  pen.moveTo(x0, y0);
  pen.lineTo(x1, y1);
  pen.stroke();
}

/** Where the line a u + b v + c = 0, in coordinates from 0 to 1, enters and leaves a canvas; null where it is none. */
function acrossCanvas({ clientWidth: width, clientHeight: height }, [a, b, c]) {
  const x = a / width, y = b / height;
  if (x === 0 && y === 0) return null;
  if (Math.abs(y) > Math.abs(x)) return [[0, -c / y], [width, -(c + x * width) / y]];
  return [[-c / x, 0], [-(c + y * height) / x, height]];
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

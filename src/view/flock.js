/* Draws what flock_page.c computed: the flock in time, its curves, the game. Nothing here decides or measures anything. */
"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const data = JSON.parse($("data").textContent);
  const say = (key, n) => (n === undefined ? data.labels[key] : data.labels[key].replace("{n}", n));
  const still = matchMedia("(prefers-reduced-motion: reduce)");
  const SPEEDS = [1, 2, 4, 8, 16, 32];
  const NOBODY = 65535;

  /* ---- data ---- */

  const unpack = (text) => {
    const raw = atob(text);
    const out = new Uint16Array(raw.length >> 1);
    for (let i = 0; i < out.length; i++) out[i] = raw.charCodeAt(2 * i) | (raw.charCodeAt(2 * i + 1) << 8);
    return out;
  };
  const numbers = (packed) => packed && Float32Array.from(unpack(packed.v), (v) => (v === NOBODY ? NaN : packed.low + v * packed.step));

  /* A layer's arrays, made when it is first shown. */
  const layers = data.layers.map((raw) => {
    let made = null;
    return () => {
      if (made) return made;
      const edges = unpack(raw.edges);
      made = { ...raw, edges: [], near: Array.from({ length: raw.n }, () => []) };
      for (const key of ["home_x", "home_y", "x", "y", "target_x", "target_y", "load", "price"]) made[key] = numbers(raw[key]);
      made.chosen = raw.chosen && unpack(raw.chosen);
      for (let e = 0; e < raw.n_edges; e++) {
        const [a, b, w] = [edges[3 * e], edges[3 * e + 1], edges[3 * e + 2] / 65535];
        made.edges.push([a, b, w]);
        made.near[a].push([b, w]);
        made.near[b].push([a, w]);
      }
      made.edges.sort((p, q) => p[2] - q[2]);
      for (const list of made.near) list.sort((p, q) => q[1] - p[1] || p[0] - q[0]);
      return made;
    };
  });

  const number = (v, digits = 4) => {
    let text = v === 0 ? "0" : Math.abs(v) < 1e-3 ? v.toExponential(1) : Math.abs(v) >= 1e4 ? v.toPrecision(digits) : String(Number(v.toPrecision(digits)));
    return data.turkish ? text.replace(".", ",") : text;
  };
  const name_of = (bird) => (data.names ? data.names[bird] : String(bird));

  /* ---- state ---- */

  const state = { layer: data.shown, time: 0, playing: false, speed: 4, hover: -1, kept: -1, angles: null, flap: 0 };
  let layer = layers[state.layer]();
  let colours = {};
  const step_of = () => Math.min(data.steps - 1, Math.floor(state.time + 1e-6));
  const chosen_at = (step) => {
    const out = [];
    for (let r = 0; layer.chosen && step >= 0 && r < data.used; r++) {
      const bird = layer.chosen[step * data.used + r];
      if (bird !== NOBODY) out.push(bird);
    }
    return out;
  };

  /* ---- theme ---- */

  const system_dark = matchMedia("(prefers-color-scheme: dark)");
  let theme = document.documentElement.dataset.theme;
  const use_theme = (wanted) => {
    theme = wanted;
    const shown = theme === "auto" ? (system_dark.matches ? "dark" : "light") : theme;
    document.documentElement.dataset.theme = shown;
    $("theme").textContent = say(shown === "dark" ? "light" : "dark");
    const style = getComputedStyle(document.documentElement);
    for (const key of ["paper", "panel", "ink", "faint", "grid", "axis", "even", "blue", "orange", "green", "pink", "line"])
      colours[key] = style.getPropertyValue("--" + key).trim();
    colours.rgb = {};
    for (const key of ["even", "blue", "orange"]) colours.rgb[key] = [1, 3, 5].map((i) => parseInt(colours[key].slice(i, i + 2), 16));
    redraw_all();
  };

  /* Grey without a price, orange above, blue below: as in the still picture. */
  const colour_of = (price) => {
    const at = layer.price_most > 0 ? Math.sqrt(Math.min(1, Math.abs(price) / layer.price_most)) : 0;
    const to = colours.rgb[price > 0 ? "orange" : "blue"];
    return "rgb(" + colours.rgb.even.map((v, i) => Math.round(v + (to[i] - v) * at)).join(",") + ")";
  };
  const size_of = (load) => (layer.load_most > 0 ? Math.max(0.34, Math.sqrt(Math.max(0, load) / layer.load_most)) : 0.7);

  /* ---- canvases ---- */

  /* A canvas as sharp as the screen; returns its context, cleared, and its size in CSS pixels. */
  const begin = (canvas) => {
    const ratio = Math.min(3, window.devicePixelRatio || 1);
    const w = canvas.clientWidth, h = canvas.clientHeight;
    if (canvas.width !== Math.round(w * ratio) || canvas.height !== Math.round(h * ratio)) {
      canvas.width = Math.round(w * ratio);
      canvas.height = Math.round(h * ratio);
    }
    const c = canvas.getContext("2d");
    c.setTransform(ratio, 0, 0, ratio, 0, 0);
    c.clearRect(0, 0, w, h);
    return { c, w, h };
  };

  const bird_path = new Path2D();
  data.bird.forEach(([x, y], i) => (i ? bird_path.lineTo(x, y) : bird_path.moveTo(x, y)));
  bird_path.closePath();

  const draw_bird = (c, x, y, radius, angle, colour, wings, edge) => {
    c.save();
    c.translate(x, y);
    c.rotate(angle);
    c.scale(radius, radius * wings);
    c.fillStyle = colour;
    if (edge) {
      c.lineWidth = Math.min(3, 0.4 * radius) / radius;
      c.lineJoin = "round";
      c.strokeStyle = edge;
      c.stroke(bird_path);
    }
    c.fill(bird_path);
    c.restore();
  };

  /* ---- where birds are ---- */

  const clamp = (v, low, high) => Math.max(low, Math.min(high, v));
  const cubic = (a, b, c, d, f) => b + 0.5 * f * (c - a + f * (2 * a - 5 * b + 4 * c - d + f * (3 * (b - c) + d - a)));
  const slope = (a, b, c, d, f) => 0.5 * (c - a) + f * (2 * a - 5 * b + 4 * c - d) + 1.5 * f * f * (3 * (b - c) + d - a);
  const tween = (values, bird, time, how) => {
    const n = layer.n, i = clamp(Math.floor(time), 0, data.steps - 1), f = time - i, at = (t) => values[clamp(t, 0, data.steps - 1) * n + bird];
    return how(at(i - 1), at(i), at(i + 1), at(i + 2), f);
  };
  const linear = (a, b, c, d, f) => b + (c - b) * f;

  /* Flock to canvas; turned by a quarter where that fills a narrow screen better. */
  const frame_of = (w, h, radius) => {
    const [x0, y0, x1, y1] = layer.box, wide = Math.max(1e-6, x1 - x0), high = Math.max(1e-6, y1 - y0);
    const margin = radius * 1.4 + 14, turned = (wide > high * 1.25 && h > w * 1.05) || (high > wide * 1.25 && w > h * 1.4);
    const [a, b] = turned ? [high, wide] : [wide, high];
    const unit = Math.min((w - 2 * margin) / a, (h - 2 * margin) / b), ox = (w - a * unit) / 2, oy = (h - b * unit) / 2;
    return { turned, put: (x, y) => (turned ? [ox + (y1 - y) * unit, oy + (x - x0) * unit] : [ox + (x - x0) * unit, oy + (y - y0) * unit]) };
  };

  const birds = []; /* of the frame that is shown: {x, y, r, angle} */

  const place_birds = (w, h, dt) => {
    const radius = clamp(0.2 * Math.sqrt((w * h) / layer.n), 5, 26), frame = frame_of(w, h, radius);
    const time = still.matches ? step_of() : state.time;
    if (!state.angles || state.angles.length !== layer.n) state.angles = new Float64Array(layer.n).fill(NaN);
    birds.length = 0;
    for (let i = 0; i < layer.n; i++) {
      let x = layer.home_x[i], y = layer.home_y[i], vx = 0, vy = 0, load = 0, price = 0;
      if (layer.x) {
        x = tween(layer.x, i, time, cubic);
        y = tween(layer.y, i, time, cubic);
        vx = tween(layer.x, i, time, slope);
        vy = tween(layer.y, i, time, slope);
        for (let t = step_of(); Math.abs(vx) + Math.abs(vy) < 1e-4 && t > 0 && t > step_of() - 40; t--) {
          vx = layer.x[t * layer.n + i] - layer.x[(t - 1) * layer.n + i];
          vy = layer.y[t * layer.n + i] - layer.y[(t - 1) * layer.n + i];
        }
      }
      if (layer.load) load = tween(layer.load, i, time, linear);
      if (layer.price) price = tween(layer.price, i, time, linear);
      if (frame.turned) [vx, vy] = [-vy, vx];
      const wanted = Math.abs(vx) + Math.abs(vy) > 1e-4 ? Math.atan2(vy, vx) : -Math.PI / 2;
      const turn = Math.atan2(Math.sin(wanted - state.angles[i]), Math.cos(wanted - state.angles[i]));
      state.angles[i] = Number.isNaN(turn) || dt === 0 ? wanted : state.angles[i] + turn * Math.min(1, dt * (3 + state.speed));
      const [px, py] = frame.put(x, y);
      birds.push({ x: px, y: py, r: radius * size_of(load), angle: state.angles[i], load, price, fast: Math.hypot(vx, vy) });
    }
    return frame;
  };

  /* ---- the sky ---- */

  const draw_edges = (c, marked) => {
    const groups = 6, fade = clamp(Math.sqrt(350 / (layer.n_edges + 1)), 0.2, 1);
    for (let g = 0; g < groups; g++) {
      c.beginPath();
      for (const [a, b, w] of layer.edges)
        if (Math.min(groups - 1, Math.floor(w * groups)) === g) {
          c.moveTo(birds[a].x, birds[a].y);
          c.lineTo(birds[b].x, birds[b].y);
        }
      const strength = (g + 0.5) / groups;
      c.strokeStyle = `rgba(${colours.line}, ${(marked >= 0 ? 0.4 : 1) * fade * (0.16 + 0.5 * strength)})`;
      c.lineWidth = 0.6 + 1.4 * strength;
      c.stroke();
    }
    if (marked < 0) return;
    c.strokeStyle = colours.ink;
    for (const [other, w] of layer.near[marked]) {
      c.globalAlpha = 0.35 + 0.65 * w;
      c.lineWidth = 0.8 + 1.8 * w;
      c.beginPath();
      c.moveTo(birds[marked].x, birds[marked].y);
      c.lineTo(birds[other].x, birds[other].y);
      c.stroke();
    }
    c.globalAlpha = 1;
  };

  /* Where birds have been in the last steps. */
  const draw_trails = (c, frame) => {
    const back = 5, now = step_of();
    if (!layer.x || now === 0) return;
    c.lineCap = "round";
    c.lineWidth = 2;
    birds.forEach((bird, i) => {
      let [x0, y0] = [bird.x, bird.y];
      for (let k = 0; k < back && now - k >= 0; k++) {
        const t = now - k, [x1, y1] = frame.put(layer.x[t * layer.n + i], layer.y[t * layer.n + i]);
        if (Math.abs(x1 - x0) + Math.abs(y1 - y0) > 0.5) {
          c.globalAlpha = 0.34 * (1 - k / back);
          c.strokeStyle = colour_of(bird.price);
          c.beginPath();
          c.moveTo(x0, y0);
          c.lineTo(x1, y1);
          c.stroke();
        }
        [x0, y0] = [x1, y1];
      }
    });
    c.globalAlpha = 1;
  };

  const draw_token = (c, frame, step, alpha) => {
    if (!layer.target_x || step < 0 || Number.isNaN(layer.target_x[step]) || alpha <= 0.02) return;
    const [x, y] = frame.put(layer.target_x[step], layer.target_y[step]);
    c.globalAlpha = alpha;
    c.strokeStyle = c.fillStyle = colours.green;
    c.lineWidth = 2.4;
    c.lineCap = "round";
    for (const bird of chosen_at(step)) {
      c.beginPath();
      c.moveTo(x, y);
      c.lineTo(birds[bird].x, birds[bird].y);
      c.stroke();
    }
    c.beginPath();
    c.arc(x, y, 5, 0, 2 * Math.PI);
    c.fill();
    c.globalAlpha = 1;
  };

  const draw_labels = (c, w, h, list, token_x) => {
    const taken = birds.map((b) => [b.x - 0.75 * b.r, b.y - 0.75 * b.r, b.x + 0.75 * b.r, b.y + 0.75 * b.r]);
    const free = (b) => b[0] > 3 && b[1] > 3 && b[2] < w - 3 && b[3] < h - 3 && taken.every((t) => b[2] < t[0] || t[2] < b[0] || b[3] < t[1] || t[3] < b[1]);
    c.textBaseline = "middle";
    for (const [i, strong] of list) {
      const bird = birds[i], size = strong ? 13 : 11.5, text = name_of(i).slice(0, 24), r = bird.r * 0.8 + (strong ? 7 : 2);
      c.font = `${strong ? 600 : 400} ${size}px system-ui, sans-serif`;
      const wide = c.measureText(text).width + 4, high = size + 2;
      const right = [bird.x + r, bird.y - high / 2], left = [bird.x - r - wide, bird.y - high / 2];
      for (const [x, y] of [...(strong && bird.x < token_x ? [left, right] : [right, left]), [bird.x - wide / 2, bird.y - r - high], [bird.x - wide / 2, bird.y + r],
                            [bird.x + 0.7 * r, bird.y + 0.6 * r], [bird.x - 0.7 * r - wide, bird.y + 0.6 * r]]) {
        const at = [x, y, x + wide, y + high];
        if (!free(at)) continue;
        taken.push(at);
        c.lineWidth = 4;
        c.lineJoin = "round";
        c.strokeStyle = colours.panel;
        c.globalAlpha = 0.75;
        c.strokeText(text, x + 2, y + high / 2 + 0.5);
        c.globalAlpha = 1;
        c.fillStyle = strong ? colours.ink : colours.faint;
        c.fillText(text, x + 2, y + high / 2 + 0.5);
        break;
      }
    }
  };

  const marked = () => (state.hover >= 0 ? state.hover : state.kept);

  const draw_sky = (dt) => {
    const { c, w, h } = begin($("sky"));
    if (w === 0) return;
    const frame = place_birds(w, h, dt), step = step_of(), f = still.matches ? 1 : state.time - step, now = chosen_at(step);
    draw_edges(c, marked());
    if (!still.matches) draw_trails(c, frame);
    draw_token(c, frame, step - 1, 0.6 * (1 - 2.5 * f));
    draw_token(c, frame, step, 1);
    const order = birds.map((_, i) => i).sort((a, b) => birds[b].r - birds[a].r || a - b);
    for (const i of order) {
      const b = birds[i], beat = state.playing && !still.matches ? Math.min(1, b.fast * 60) : 0;
      draw_bird(c, b.x, b.y, b.r, b.angle, colour_of(b.price), 1 - 0.34 * beat * (0.5 + 0.5 * Math.sin(state.flap * 9 + i * 1.7)), colours.panel);
    }
    for (const bird of now) {
      c.strokeStyle = colours.green;
      c.lineWidth = 2;
      c.beginPath();
      c.arc(birds[bird].x, birds[bird].y, birds[bird].r * 1.1 + 4, 0, 2 * Math.PI);
      c.stroke();
    }
    const strong = new Set(now);
    if (marked() >= 0) {
      strong.add(marked());
      c.strokeStyle = colours.ink;
      c.lineWidth = 1.5;
      c.setLineDash([3, 3]);
      c.beginPath();
      c.arc(birds[marked()].x, birds[marked()].y, birds[marked()].r + 7, 0, 2 * Math.PI);
      c.stroke();
      c.setLineDash([]);
    }
    const list = [...strong].map((i) => [i, true]);
    if (!state.playing) list.push(...order.filter((i) => !strong.has(i)).slice(0, 64).map((i) => [i, false]));
    draw_labels(c, w, h, list, layer.target_x ? frame.put(layer.target_x[step], layer.target_y[step])[0] : NaN);
    show_tip(w, h);
  };

  /* ---- the bird that is pointed at ---- */

  const bird_text = (i) => {
    const parts = [];
    if (layer.load) parts.push(`${say("load")} ${number(birds[i].load, 3)}`);
    if (layer.price) parts.push(`${say("price")} ${number(birds[i].price, 3)}`);
    return parts.join(", ");
  };
  const count_served = (i) => {
    let n = 0;
    for (let k = 0; layer.chosen && k < data.steps * data.used; k++) n += layer.chosen[k] === i;
    return n;
  };

  let tip_of = -1;
  const show_tip = (w, h) => {
    const i = marked(), tip = $("tip");
    tip.hidden = i < 0;
    if (i < 0) return void (tip_of = -1);
    if (tip_of !== i) {
      tip.replaceChildren();
      for (const [tag, text] of [["b", name_of(i)], ["div", ""], ["span", `${say("neighbours")}: ${layer.near[i].slice(0, 9).map(([j]) => name_of(j)).join(", ")}`], ["div", layer.chosen ? say("served", count_served(i)) : ""]]) {
        const part = document.createElement(tag);
        part.textContent = text;
        tip.append(part);
      }
      tip_of = i;
    }
    tip.children[1].textContent = bird_text(i);
    const b = birds[i], right = b.x + b.r + 16 + tip.offsetWidth < w;
    tip.style.transform = `translate(${clamp(right ? b.x + b.r + 14 : b.x - b.r - 14 - tip.offsetWidth, 4, Math.max(4, w - tip.offsetWidth - 4))}px, ${clamp(b.y - 20, 4, Math.max(4, h - tip.offsetHeight - 4))}px)`;
  };

  const bird_at = (event) => {
    const box = $("sky").getBoundingClientRect(), x = event.clientX - box.left, y = event.clientY - box.top;
    let best = -1, least = Infinity;
    birds.forEach((b, i) => {
      const far = Math.hypot(b.x - x, b.y - y);
      if (far < Math.max(14, b.r + 4) && far < least) [best, least] = [i, far];
    });
    return best;
  };
  $("sky").addEventListener("pointermove", (event) => {
    const found = event.pointerType === "mouse" ? bird_at(event) : -1;
    if (found !== state.hover) [state.hover, dirty] = [found, true];
  });
  $("sky").addEventListener("pointerleave", () => ([state.hover, dirty] = [-1, true]));
  $("sky").addEventListener("click", (event) => {
    const found = bird_at(event);
    keep(found === state.kept ? -1 : found);
  });
  const keep = (bird) => {
    [state.kept, dirty] = [bird, true];
    if (bird >= 0) $("live").textContent = `${name_of(bird)}: ${bird_text(bird)}`;
  };

  /* ---- charts ---- */

  const ticks = (low, high, most) => {
    const out = [];
    if (!(high > low)) return [low];
    const power = 10 ** Math.floor(Math.log10((high - low) / most));
    const step = [1, 2, 5, 10, 20].map((s) => s * power).find((s) => Math.floor(high / s + 1e-9) - Math.ceil(low / s - 1e-9) + 1 <= most);
    for (let k = Math.ceil(low / step - 1e-9); k * step <= high + step * 1e-9; k++) out.push(Number((k * step).toPrecision(12)));
    return out;
  };

  /* The range of the smooth lines, and of single values as far as they do not flatten them. */
  const range_of = (lines, from_zero) => {
    const of = (values) => [Math.min(...values), Math.max(...values)];
    let [low, high] = of(lines.flatMap((l) => of(l.smooth)));
    const [all_low, all_high] = of(lines.flatMap((l) => of(l.faint || l.smooth))), more = 0.6 * (high - low) + 1e-9;
    [low, high] = [Math.max(Math.min(low, all_low), low - more), Math.min(Math.max(high, all_high), high + more)];
    if (from_zero) low = Math.min(0, low);
    if (!(high > low)) [low, high] = [low - 0.5 * Math.abs(low || 1), high + 0.5 * Math.abs(high || 1)];
    const room = 0.06 * (high - low);
    return [low === 0 && from_zero ? 0 : low - room, high + room];
  };

  const draw_axes = (c, p, w, h) => {
    c.font = "11px system-ui, sans-serif";
    c.fillStyle = colours.faint;
    c.lineWidth = 1;
    c.textAlign = "right";
    c.textBaseline = "middle";
    for (const v of ticks(p.y0, p.y1, 5)) {
      c.strokeStyle = colours.grid;
      c.beginPath();
      c.moveTo(p.left, p.y(v));
      c.lineTo(w - p.right, p.y(v));
      c.stroke();
      c.fillText(number(v), p.left - 6, p.y(v));
    }
    c.textAlign = "center";
    c.textBaseline = "top";
    const bottom = h - p.bottom, name_wide = c.measureText(p.x_name).width + 10;
    c.strokeStyle = colours.axis;
    const wide = c.measureText(number(Math.ceil(p.x1), 6)).width + 8, most = Math.max(2, Math.floor((w - p.left - p.right) / wide));
    for (const v of ticks(p.x0, p.x1, Math.min(8, most))) {
      if (!Number.isInteger(v) || p.x(v) > w - p.right - name_wide - 12) continue;
      c.beginPath();
      c.moveTo(p.x(v), bottom);
      c.lineTo(p.x(v), bottom + 4);
      c.stroke();
      c.fillText(number(v, 6), p.x(v), bottom + 6);
    }
    c.beginPath();
    c.moveTo(p.left, bottom);
    c.lineTo(w - p.right, bottom);
    c.stroke();
    c.textAlign = "right";
    c.fillText(p.x_name, w - p.right, bottom + 6);
  };

  const draw_line = (c, p, values, colour, width, alpha) => {
    c.strokeStyle = colour;
    c.lineWidth = width;
    c.globalAlpha = alpha;
    c.lineJoin = "round";
    c.beginPath();
    values.forEach((v, i) => (i ? c.lineTo(p.x(p.first + i), p.y(v)) : c.moveTo(p.x(p.first + i), p.y(v))));
    c.stroke();
    c.globalAlpha = 1;
  };

  /* lines: {smooth, faint, colour}. A chart of steps follows the time; one of moves stands still. */
  class Chart {
    constructor(box, title, x_name, first, lines, options) {
      this.lines = lines;
      this.options = options;
      this.plot = { x_name, first, left: 46, right: 8, bottom: 22 };
      this.root = document.createElement("figure");
      this.root.className = "chart panel" + (options.steps ? "" : " still");
      this.root.style.margin = 0;
      const head = document.createElement("div"), heading = document.createElement("h3");
      this.value = document.createElement("output");
      this.canvas = document.createElement("canvas");
      this.canvas.setAttribute("role", "img");
      this.canvas.setAttribute("aria-label", title);
      heading.textContent = title;
      head.append(heading, this.value);
      this.root.append(head, this.canvas);
      box.append(this.root);
      const seek = (event) => {
        if (!options.steps || (event.type === "pointermove" && !event.buttons)) return;
        const at = this.canvas.getBoundingClientRect();
        go_to(Math.round(((event.clientX - at.left - this.plot.left) / (at.width - this.plot.left - this.plot.right)) * (data.steps - 1)));
      };
      this.canvas.addEventListener("pointerdown", seek);
      this.canvas.addEventListener("pointermove", seek);
    }

    /* All that does not move, kept as an image. */
    prepare() {
      const { c, w, h } = begin(this.canvas), p = this.plot, n = this.lines[0].smooth.length;
      if (w === 0) return;
      [p.y0, p.y1] = range_of(this.lines, this.options.from_zero);
      [p.x0, p.x1] = n > 1 ? [p.first, p.first + n - 1] : [p.first - 0.5, p.first + 0.5];
      p.x = (v) => p.left + ((v - p.x0) / (p.x1 - p.x0)) * (w - p.left - p.right);
      p.y = (v) => 6 + (1 - (v - p.y0) / (p.y1 - p.y0)) * (h - p.bottom - 6);
      draw_axes(c, p, w, h);
      c.save();
      c.beginPath();
      c.rect(p.left - 3, 2, w - p.left - p.right + 6, h - p.bottom);
      c.clip();
      for (const line of this.lines) if (line.faint) draw_line(c, p, line.faint, line.colour(), 0.9, 0.3);
      for (const line of this.lines) draw_line(c, p, line.smooth, line.colour(), line.thin ? 1.4 : 2, 1);
      for (const line of this.lines)
        if (n <= 60 && !this.options.steps)
          line.smooth.forEach((v, i) => {
            c.fillStyle = line.colour();
            c.beginPath();
            c.arc(p.x(p.first + i), p.y(v), 2.6, 0, 2 * Math.PI);
            c.fill();
          });
      c.restore();
      this.size = [w, h];
      if (this.options.steps) {
        this.image = document.createElement("canvas");
        this.image.width = this.canvas.width;
        this.image.height = this.canvas.height;
        this.image.getContext("2d").drawImage(this.canvas, 0, 0);
      } else {
        this.value.textContent = `${number(this.lines[0].smooth[0])} → ${number(this.lines[0].smooth[n - 1])}`;
      }
    }

    draw() {
      if (!this.image || !this.size) return;
      const { c, h } = begin(this.canvas), p = this.plot, step = step_of(), x = p.x(p.first + (still.matches ? step : Math.min(state.time, data.steps - 1)));
      c.save();
      c.setTransform(1, 0, 0, 1, 0, 0);
      c.drawImage(this.image, 0, 0);
      c.restore();
      c.strokeStyle = colours.ink;
      c.globalAlpha = 0.55;
      c.lineWidth = 1.2;
      c.beginPath();
      c.moveTo(x, 4);
      c.lineTo(x, h - p.bottom);
      c.stroke();
      c.globalAlpha = 1;
      for (const line of this.lines) {
        c.fillStyle = line.colour();
        c.beginPath();
        c.arc(p.x(p.first + step), clamp(p.y(line.smooth[step]), 4, h - p.bottom), 3.4, 0, 2 * Math.PI);
        c.fill();
      }
      this.value.replaceChildren(number(this.lines[0].smooth[step], 3));
      if (this.lines[1]) {
        const other = document.createElement("span");
        other.className = "by-lot";
        other.textContent = `  ${say("by_lot")} ${number(this.lines[1].smooth[step], 3)}`;
        this.value.append(other);
      }
    }
  }

  let charts = [];
  const make_charts = () => {
    const curve = (key, colour, thin) => layer.curves[key] && { smooth: layer.curves[key].smooth, faint: thin ? null : layer.curves[key].v, colour: () => colours[colour], thin };
    charts = [];
    $("curves").replaceChildren();
    for (const [key, other] of [["alignment", "chance"], ["cohesion"], ["separation"], ["violation"]]) {
      const lines = [curve(key, "blue"), other && curve(other, "faint", true)].filter(Boolean);
      if (lines.length && layer.curves[key]) charts.push(new Chart($("curves"), say(key), say("step"), data.first + 1, lines, { steps: true, from_zero: key === "violation" }));
    }
    $("curves").hidden = charts.length === 0;
    $("game").replaceChildren();
    $("game").hidden = !layer.game;
    if (!layer.game) return;
    const settle = (key, colour) => layer.game[key] && charts.push(new Chart($("game"), say(key), say("move"), 0, [{ smooth: layer.game[key], colour: () => colours[colour] }], { from_zero: key === "gap" }));
    settle("potential", "orange");
    settle("gap", "pink");
    const text = document.createElement("div"), heading = document.createElement("h3"), p = document.createElement("p");
    text.className = "chart panel";
    heading.textContent = say("game");
    p.textContent = layer.game.text;
    text.append(heading, p);
    $("game").append(text);
  };

  /* ---- the legend ---- */

  const draw_sizes = () => {
    if (!layer.load) return;
    const { c, w, h } = begin($("sizes")), most = layer.load_most;
    c.font = "12px system-ui, sans-serif";
    c.textBaseline = "middle";
    c.fillStyle = colours.ink;
    [most, Math.min(1, most / 2), 0].forEach((load, i) => {
      const r = 25 * size_of(load), x = (w / 3) * i + (i ? 12 : 26);
      draw_bird(c, x, h / 2, r, -Math.PI / 2, colours.even, 1);
      c.fillStyle = colours.ink;
      c.fillText(number(load, 2), x + r + 7, h / 2);
    });
  };

  const draw_colours = () => {
    if (!layer.price) return;
    const { c, w } = begin($("colours")), left = 20, wide = w - 40;
    const price_at = (share) => layer.price_least + (layer.price_most - layer.price_least) * share;
    for (let x = 0; x < wide; x++) {
      c.fillStyle = colour_of(price_at((x + 0.5) / wide));
      c.fillRect(left + x, 0, 1.2, 13);
    }
    c.font = "11px system-ui, sans-serif";
    c.textAlign = "center";
    c.textBaseline = "top";
    for (let i = 0; i < 5; i++) {
      const x = left + (wide * i) / 4;
      c.fillStyle = colours.axis;
      c.fillRect(x - 0.5, 13, 1, 4);
      c.fillStyle = colours.faint;
      c.fillText(number(price_at(i / 4), 2), x, 20);
    }
  };

  /* ---- what belongs to a step ---- */

  let told = -1;
  const show_step = () => {
    const step = step_of();
    if (step === told || data.steps === 0) return;
    told = step;
    const n = data.first + step + 1;
    $("position").value = step;
    $("position").setAttribute("aria-valuetext", `${say("step")} ${n}`);
    $("when").textContent = `${n} / ${data.total}`;
    $("now").textContent = say("now", n);
    const names = chosen_at(step).map(name_of).join(", ") || say("nobody");
    $("chosen").textContent = names;
    if (!state.playing) $("live").textContent = `${say("now", n)}: ${names}`;
    if (!data.texts) return;
    const clean = (text) => text.replace(/[\r\n]+/g, " ⏎ ").replace(/[\u0000-\u001f]/g, " ");
    $("before").textContent = clean(data.texts.slice(Math.max(0, step - 70), step).join(""));
    $("token").textContent = clean(data.texts[step]) || "∅";
    $("after").textContent = clean(data.texts.slice(step + 1, step + 30).join(""));
  };

  const show_layer = () => {
    layer = layers[state.layer]();
    state.angles = null;
    tip_of = -1;
    told = -1;
    $("subtitle").textContent = layer.subtitle;
    $("kept").textContent = layer.kept;
    $("sky").setAttribute("aria-label", layer.subtitle);
    $("size-box").hidden = !layer.load;
    $("colour-box").hidden = !layer.price;
    $("now-box").hidden = !layer.chosen || data.used === 0;
    make_charts();
    redraw_all();
  };

  const redraw_all = () => {
    if (!colours.rgb) return;
    draw_sizes();
    draw_colours();
    for (const chart of charts) chart.prepare();
    dirty = true;
  };

  /* ---- time ---- */

  let dirty = true, before = 0;
  const go_to = (step) => {
    state.time = clamp(step, 0, Math.max(0, data.steps - 1));
    state.angles = null;
    dirty = true;
  };
  const play = (on) => {
    if (data.steps < 2) return;
    if (on && state.time >= data.steps - 1) go_to(0);
    state.playing = on;
    $("play").setAttribute("aria-label", say(on ? "pause" : "play"));
    $("play").title = say(on ? "pause" : "play");
    $("play-icon").setAttribute("d", on ? "M3 2h4v12H3zM9 2h4v12H9z" : "M4 2l10 6-10 6z");
    dirty = true;
  };
  const tick = (now) => {
    const dt = Math.min(0.1, (now - before) / 1000);
    before = now;
    if (state.playing) {
      state.time = Math.min(data.steps - 1, state.time + dt * state.speed);
      state.flap += dt;
      if (state.time >= data.steps - 1) play(false);
    }
    if (state.playing || dirty) {
      dirty = false;
      show_step();
      draw_sky(state.playing ? dt : 0);
      for (const chart of charts) chart.draw();
    }
    requestAnimationFrame(tick);
  };

  /* ---- controls ---- */

  const step_by = (n) => {
    play(false);
    go_to(step_of() + n);
  };
  const set_layer = (index) => {
    state.layer = clamp(index, 0, layers.length - 1);
    $("layer").value = state.layer;
    show_layer();
  };

  document.querySelectorAll("[data-label]").forEach((e) => {
    e.textContent = say(e.dataset.label);
    e.hidden = !e.textContent;
  });
  for (const [id, key] of [["back", "back"], ["forward", "forward"], ["position", "position"], ["speed", "speed"], ["layer", "layer"]]) {
    $(id).setAttribute("aria-label", say(key));
    if (id === "back" || id === "forward") $(id).title = say(key);
  }
  for (const speed of SPEEDS) $("speed").add(new Option(say("per_second", speed), speed, false, speed === state.speed));
  data.layers.forEach((l, i) => $("layer").add(new Option(l.index, i, false, i === state.layer)));
  $("layer-box").hidden = layers.length < 2;
  $("controls").hidden = data.steps < 2;
  $("keys").hidden = data.steps < 2;
  $("ribbon").hidden = !data.texts;
  $("notes").textContent = data.notes;
  $("position").max = Math.max(0, data.steps - 1);

  $("play").addEventListener("click", () => play(!state.playing));
  $("back").addEventListener("click", () => step_by(-1));
  $("forward").addEventListener("click", () => step_by(1));
  $("position").addEventListener("input", () => go_to(Number($("position").value)));
  $("speed").addEventListener("change", () => (state.speed = Number($("speed").value)));
  $("layer").addEventListener("change", () => set_layer(Number($("layer").value)));
  $("theme").addEventListener("click", () => use_theme(document.documentElement.dataset.theme === "dark" ? "light" : "dark"));
  system_dark.addEventListener("change", () => theme === "auto" && use_theme("auto"));
  still.addEventListener("change", () => ((dirty = true), still.matches && play(false)));

  document.addEventListener("keydown", (event) => {
    const on = event.target, typing = on.tagName === "SELECT" || (on.tagName === "INPUT" && event.key.startsWith("Arrow"));
    if (event.ctrlKey || event.metaKey || event.altKey || typing || (on.tagName === "BUTTON" && event.key === " ") || (on.tagName === "SUMMARY" && event.key === " ")) return;
    const far = event.shiftKey ? 10 : 1;
    const does = {
      " ": () => play(!state.playing),
      ArrowLeft: () => step_by(-far),
      ArrowRight: () => step_by(far),
      Home: () => step_by(-data.steps),
      End: () => step_by(data.steps),
      "[": () => set_layer(state.layer - 1),
      "]": () => set_layer(state.layer + 1),
      Escape: () => keep(-1),
      ArrowUp: () => on === $("sky") && keep((state.kept + layer.n) % (layer.n + 1) - (state.kept < 0 ? 1 : 0)),
      ArrowDown: () => on === $("sky") && keep(state.kept + 1 < layer.n ? state.kept + 1 : 0),
    }[event.key];
    if (!does || ((event.key === "ArrowUp" || event.key === "ArrowDown") && on !== $("sky"))) return;
    event.preventDefault();
    does();
  });

  let resizing = 0;
  new ResizeObserver(() => {
    cancelAnimationFrame(resizing);
    resizing = requestAnimationFrame(redraw_all);
  }).observe(document.querySelector("main"));

  show_layer();
  use_theme(theme);
  play(!still.matches);
  requestAnimationFrame(tick);
})();
